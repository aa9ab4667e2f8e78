"""A deterministic simulation of the appliance: one seed determines the whole run.

Real: both steppers, admission, service, protocol, parser, endpoints, and what all engines share.
Simulated: event loop, threads, clocks, sockets, machines, and the stores, by two models that have
the shapes of ``Link`` and ``Store``. The real stores keep the contract of those shapes:
tests/stores; what a power cut may leave of a real file: tests/crash.

Start with ``plan`` (what a seed stands for) and ``run`` (execute a plan, then ``judge`` it). Then:

``world``, ``process``
    ``World``: simulated time and its events; ``random`` is the only source of chance. ``Process``:
    threads (greenlets), an event loop and a clock; it can be killed, stopped and resumed.
``network``, ``clients``
    Connections with delays and cuts; clients, and the ``History`` of their answers.
``product``, ``server``
    The only file that imports inner parts of the product; a server of it in a process.
``base``, ``nodes``, ``machine``
    A run: its servers, its faults and what they may cost. ``nodes`` on an engine; or a machine
    with the embedded store, its server and its standby.
``model_engine``, ``session``, ``model_store``
    The engine: its rows and transactions, a replica, sessions whose requests and replies can be
    late, lost or duplicated. The embedded store: its index, its keys and its lock.
``sabotages``
    What breaks a promise, to show that seeds find it: ``python -m tests.simulation --sabotage
    NAME``.
"""
