"""The HTTP contract, sentence by sentence, against a real server; conftest.py says which."""

NUMBERS = ["current", "next", "previous"]
READS = ["/current", "/previous"]
WITH_INDEX = [f"/{name}" for name in NUMBERS]
LIVE = ["/status", "/metrics"]
"""Paths whose answers change all the time."""
