"""A fake store whose commits the test completes, for a real event loop."""

from queue import SimpleQueue

from fibcore.stores.keys import NO_KEYS, Keys
from tests.support.waiting import PATIENCE


class BlockingStore:
    """A store whose commits block until ``finish`` is called."""

    exclusive = True
    where = "blocking"
    warnings = ()
    doubt = None
    kept_keys = None

    def __init__(self) -> None:
        self.closed = False
        self._begun: SimpleQueue[int] = SimpleQueue()
        self._finished: SimpleQueue[None] = SimpleQueue()

    def read(self) -> int:
        return 0

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,  # noqa: ARG002
    ) -> int:
        assert expected is not None
        assert limit is None
        self._begun.put(expected + steps)
        self._finished.get(timeout=PATIENCE)
        return expected + steps

    def close(self) -> None:
        self.closed = True

    def begun(self) -> int:
        """Wait until a commit has begun; return its index."""
        return self._begun.get(timeout=PATIENCE)

    def finish(self) -> None:
        """Let one commit succeed, the current one or the next."""
        self._finished.put(None)
