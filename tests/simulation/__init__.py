"""A deterministic simulation of the appliance: one seed determines the whole run.

Real: both steppers, admission, service, protocol, parser, endpoints, and the stores down to their
system calls and engine requests. Simulated: event loop, threads, clocks, sockets, machines, disk,
SQLite and engines.

Start with ``plan`` (what a seed stands for) and ``run`` (execute a plan, then ``judge`` it). Then:

``world``, ``process``
    ``World``: simulated time and its events; ``random`` is the only source of chance. ``Process``:
    threads (greenlets), an event loop and clocks; it can be killed, stopped and resumed.
``network``, ``server``, ``clients``
    Connections with delays and cuts; the product's server in a process; clients, and the
    ``History`` of their answers.
``base``, ``engine_run``, ``machine_run``
    A run: its servers, its faults and what they may cost. ``EngineRun`` has nodes on an engine;
    ``MachineRun`` has one machine with the embedded store.
``engine``, ``engines``, ``etcd``, ``postgresql``, ``redis``
    Sessions with an engine, whose requests and replies can be late or lost; the engines and their
    faults.
``machine``, ``disk``, ``system``, ``sqlite``, ``sqlite_wal``
    A machine with its servers and backup; a page cache and a disk that lose what a power cut
    loses; the system calls and the SQLite that the embedded store uses.
``install.installed()``
    Replaces what the product imports of the system.
``bugs.planted(name)``
    Plants a defect, to show that seeds find it: ``python -m tests.simulation --bug NAME``.
"""
