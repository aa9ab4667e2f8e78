"""What runs beside the server: ``watchdog`` kills hung processes, ``backup`` keeps a backup copy.

Each is a plain program, one loop and one decision, run as ``python -m supervise.NAME``, and exits
with supervisord. ``extension`` runs inside supervisord. ``run`` and ``restart`` implement
``make run`` and ``make restart``.
"""
