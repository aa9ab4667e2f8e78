"""The HTTP server: ``python -m web``, the service behind it, and the Starlette application."""
