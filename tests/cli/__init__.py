"""The ``fibcore`` command."""
