"""What runs beside the server: ``watchdog`` ends what hangs, ``checkpoint`` keeps a spare copy.

Each is a plain program, one loop and one decision, run as ``python -m supervise.NAME``;
``events`` is the protocol that supervisord speaks with its event listeners, as ``checkpoint`` is.
"""
