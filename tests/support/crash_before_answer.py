"""A server that is killed after every second commit, before the answer.

It always loses the answer and never the step: the worst moment for a client that retries.
"""

import itertools
import os
import signal

from fibcore.stepper import Stepper
from web import server

EVERY = 2
"""A process commits so many batches and answers all but the last."""


def _crash_before_answers() -> None:
    answer = Stepper._answer
    commits = itertools.count(1)

    def answer_or_die(self: Stepper) -> None:
        # A batch without a step makes no commit.
        if self._commit_began is not None and next(commits) == EVERY:
            os.kill(os.getpid(), signal.SIGKILL)
        answer(self)

    Stepper._answer = answer_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    _crash_before_answers()
    server.main()
