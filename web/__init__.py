"""The HTTP side: the Starlette application, its settings, and ``python -m web``."""
