"""A simulation of the whole, in which one seed decides everything.

Real: both steppers, admission, service, protocol, parser, heads, answers and endpoints, and the
stores down to what they ask of a disk or of an engine. Simulated: event loop, threads, clocks,
sockets, machines, and what is behind the stores. To build with:

``world.World(seed, tracing=...)``
    Time and its events. ``after(seconds, process, action, *arguments)`` has something happen: with
    a process only while that lives and is not stopped. ``run(until)`` lets things happen,
    ``close()`` ends it. ``random`` is the only source of chance, ``log(who, what)`` writes the
    trace. A finding is a ``Violation``.
``process.Process(world, name, host, clock)``
    ``spawn(run)`` starts a thread: a greenlet, so that whatever would block calls ``world.park``
    (or ``process.sleep``, ``Queue.get``) and is woken by an event. ``run(main)`` runs a
    coroutine on its ``loop``, an event loop on simulated time, in the first thread. ``kill``,
    ``stop`` (SIGSTOP), ``resume``; ``end(status)`` is what stands for ``os._exit``.
    ``at_end`` has what the kernel does when it ends,
    however: close sockets, let go of locks. ``time()`` and ``monotonic()`` are its clocks.
``process.SimulatedWorker``
    A ``fibcore.threads.Worker`` on such a thread.
``network.Network``, ``Listener(network, host)``, ``ClientSocket``
    Streams between machines, with ``cut(source, target)`` and ``heal``. A ``Listener`` belongs to
    no process, as supervisord's: who connects waits in it until a process ``serve``s.
``server.Server(process, listener, settings, opener)``
    The life of a server, its service and protocol, in a process; ``stop()`` is SIGTERM.
``plan.plan_of(seed, stores)``, ``run.run(plan, tracing=...)``, ``judge``
    A seed's plan of store, nodes, clients and faults; the run of one; what it is held against.
    ``base.Run`` is what the runs of all stores have in common.
``engine.Session``, ``engine.EngineServer``, ``engines.Cluster``
    A connection to a server of an engine, over which questions and replies are late or lost; and
    an engine as a run has it, with what can happen to it.
``install.installed()``
    Replaces what the product imports of the system.
``bugs.planted(name)``
    A defect, to see that seeds find it: ``python -m tests.simulation --bug NAME --seeds 1000``.
``clients.Client(process, name, listeners, history)``
    ``ask(endpoint, expected)`` in a thread, and what it was told, as ``bench.checker`` has it.
    ``insist`` asks by a key until it is settled, with several clients at once.
``engine_run.EngineRun``
    Nodes on an engine, and what can happen to them and to it.
``disk.Disk``, ``system``, ``sqlite``
    A page cache and a disk that lose what a power cut loses, and as much of the system and of
    SQLite as the embedded store asks for, in a ``system.MachineProcess``.
    ``disk.after_calls(n, action)`` has something happen in the middle of the nth call.
``machine.Machine``, ``machine_run.MachineRun``
    A machine with the embedded store: servers that supervisord starts again, and the backup; and
    what can happen to it.
"""
