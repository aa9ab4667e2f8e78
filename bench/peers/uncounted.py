"""fibcore without its counting, which is removed from its source: the difference is its cost.

python -m bench.peers.uncounted, with fibcore's settings in the environment.
"""

import inspect
import sys
import textwrap

from fibcore.stepper import Stepper
from web import server
from web.http.protocol import Protocol

COUNTING = {
    (Protocol, "_reply"): ["head.counts[answer.status] += 1"],
    (Stepper, "_answer"): ["self.batch_wait_seconds.observe(self._clock() - self._batch_oldest)"],
    (Stepper, "_commit"): [
        "self.batch_steps.observe(steps)",
        "self.commit_seconds.observe(self._clock() - began)",
    ],
}
"""The lines of each method that count."""


def take_out() -> None:
    """Redefine the methods without these lines."""
    for (owner, name), lines in COUNTING.items():
        method = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(method))
        for line in lines:
            if source.count(line) != 1:
                raise ValueError(f"{owner.__name__}.{name} has no line {line!r}")
            source = source.replace(line, "pass")
        made: dict[str, object] = {}
        exec(source, sys.modules[owner.__module__].__dict__, made)
        setattr(owner, name, made[name])


if __name__ == "__main__":
    take_out()
    server.main()
