"""``/previous``: the number before it."""

from typing import Final

from web.endpoints.sequence import reading

PREVIOUS: Final = reading(
    "previous",
    "Read the number before the current one.",
    "F(n - 1); 0 at n = 0.",
    3,
    lambda snapshot: snapshot.previous,
)
