"""Expensive public answers, each rendered once for all clients that ask at the same time.

A crowd costs no more than a single client; see ``web.http.turns`` for the rule.
"""

import time
from collections.abc import Callable
from typing import Final

from web.http.answers import Answer

RENDERED_SECONDS: Final = 0.25
"""Maximum age of such an answer: the page polls once a second, Prometheus less often."""


class Renderings:
    """The last answer of each of a few forms.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._made: dict[str, tuple[float, Answer]] = {}

    def answer(self, form: str, make: Callable[[], Answer]) -> Answer:
        """The answer of ``form``, one of a few; ``make`` makes a new one if the last is too old."""
        now = self.clock()
        made = self._made.get(form)
        if made is None or now - made[0] >= RENDERED_SECONDS:
            made = self._made[form] = now, make()
        return made[1]
