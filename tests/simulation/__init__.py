"""A simulation of the whole, in which one seed decides everything.

Real: both steppers, admission, service, protocol, parser, heads, answers and endpoints, and the
stores down to what they ask of a disk or of an engine. Simulated: event loop, threads, clocks,
sockets, machines, and what is behind the stores. To build with:

``world.World(seed, tracing=...)``
    Time and its events. ``after(seconds, process, action, *arguments)`` has something happen: with
    a process only while that lives and is not stopped. ``run(until)`` lets things happen,
    ``close()`` ends it. ``random`` is the only source of chance, ``say(who, what)`` writes the
    trace. A finding is a ``Violation``.
``process.Process(world, name, host, clock)``
    ``spawn(run)`` starts a thread: a greenlet, so that whatever would block calls ``world.park``
    (or ``process.sleep``, ``Queue.get``) and is woken by an event. ``run(main, ended)`` runs a
    coroutine on its ``loop``, an event loop on simulated time, in the first thread. ``kill``,
    ``stop`` (SIGSTOP), ``resume``; ``end(status)`` is what stands for ``os._exit`` and
    ``fail_stop(error)`` for the stepper's. ``at_end`` has what the kernel does when it ends,
    however: close sockets, let go of locks. ``time()`` and ``monotonic()`` are its clocks.
``process.SimulatedWorker``
    A ``fibcore.threads.Worker`` on such a thread.
``network.Network``, ``Listener(network, host)``, ``ClientSocket``
    Streams between machines, with ``cut(source, target)`` and ``heal``. A ``Listener`` belongs to
    no process, as supervisord's: who connects waits in it until a process ``serve``s.
``server.Server(process, listener, settings, open_store)``
    The service and the protocol in a process; ``stop()`` is SIGTERM.
``plan.plan_of(seed, engines)``, ``run.run(plan, tracing=...)``, ``judge``
    A seed's plan of engine, nodes, clients and faults; the run of one; what it is held against.
``engine.Session``, ``engine.EngineServer``, ``engines.Cluster``
    A connection to a server of an engine, over which questions and replies are late or lost; and
    an engine as a run has it, with what can happen to it.
``install.installed()``
    Replaces what the stores import of the system.
``bugs.planted(name)``
    A defect, to see that seeds find it: ``python -m tests.simulation --bug NAME --seeds 1000``.
``clients.Client(process, name, listeners, history)``
    ``ask(endpoint, expected)`` in a thread, and what it was told, as ``bench.checker`` has it.
``disk.Disk``, ``system``, ``sqlite``, ``machine_install.on_machines()``
    A page cache and a disk that lose what a power cut loses, and as much of the system and of
    SQLite as the embedded store asks for, in a ``system.MachineProcess``.
    ``disk.after_calls(n, action)`` has something happen in the middle of the nth call.
``machine.Machine``, ``machine_plan``, ``machine_run``, ``machine_bugs``
    A machine with the embedded store: servers with the product's life, which supervisord starts
    again, and a backup; what a seed stands for on it, and what comes of that.
    ``python -m tests.simulation.machines`` replays a seed, or tries many.
"""
