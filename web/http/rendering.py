"""Answers that are dear to make, and that anyone may ask for: each is made once for all who ask.

What a crowd asks for at once costs no more than what one asks for; see ``web.http.turns`` for the
rule.
"""

import time
from collections.abc import Callable
from typing import Final

from web.http.answers import Answer

RENDERED_SECONDS: Final = 0.25
"""How old such an answer may be: the page asks once a second, and Prometheus less often."""


class Renderings:
    """The last answer of each of a few forms.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._made: dict[str, tuple[float, Answer]] = {}

    def answer(self, form: str, make: Callable[[], Answer]) -> Answer:
        """The answer of ``form``, one of few, made by ``make`` unless it was just now."""
        now = self.clock()
        made = self._made.get(form)
        if made is None or now - made[0] >= RENDERED_SECONDS:
            made = self._made[form] = now, make()
        return made[1]
