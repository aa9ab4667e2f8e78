"""``/current``: the number that the sequence is at."""

from typing import Final

from web.endpoints.sequence import reading

CURRENT: Final = reading(
    "current", "Read the current number.", "F(n).", 5, lambda snapshot: snapshot.current
)
