"""The ``fibcore`` command: one body for every store."""
