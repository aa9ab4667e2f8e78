"""What runs beside the server: ``watchdog`` ends what hangs, ``backup`` keeps a backup copy.

Each is a plain program, one loop and one decision, run as ``python -m supervise.NAME``, and ends
with supervisord. ``extension`` runs inside supervisord. ``run`` and ``restart`` are what
``make run`` and ``make restart`` do.
"""
