"""What runs beside the server: ``watchdog`` ends what hangs, ``backup`` keeps a backup copy.

Each is a plain program, one loop and one decision, run as ``python -m supervise.NAME``;
``events`` is the protocol that supervisord speaks with its event listeners, as ``backup`` is.
"""
