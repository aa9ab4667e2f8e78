"""A store whose commits end when the test says so: no test need wait for a disk."""

from queue import SimpleQueue

from fibcore.stores.keys import NO_KEYS, KeptKeys, Keys, check, made_by
from tests.support.waiting import PATIENCE


class BlockingStore:
    """A store that is in the middle of each commit until ``finish`` or ``fail`` is called."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.closed = False
        self.kept = KeptKeys(0)
        self._begun: SimpleQueue[int] = SimpleQueue()
        self._outcomes: SimpleQueue[BaseException | None] = SimpleQueue()

    exclusive = True
    where = "blocking"
    warnings = ()
    doubt = None
    kept_keys = None

    def read(self) -> int:
        return 0

    def advance(
        self,
        steps: int,
        expected: int | None = None,
        limit: int | None = None,
        keys: Keys = NO_KEYS,
    ) -> int:
        assert expected is not None
        assert limit is None
        index = expected + steps
        self._begun.put(index)
        outcome = self._outcomes.get(timeout=PATIENCE)
        if outcome is not None:
            raise outcome
        check(keys, self.kept.made, expected, self.kept.dropped)
        if steps:
            self.committed.append(index)
            self.kept.add(index, made_by(keys, expected))
        return index

    def close(self) -> None:
        self.closed = True

    def begun(self) -> int:
        """Wait until a commit is under way; return what it commits."""
        return self._begun.get(timeout=PATIENCE)

    def is_committing(self) -> bool:
        return not self._begun.empty()

    def finish(self, commits: int = 1) -> None:
        """Let as many commits succeed, those to come included."""
        for _ in range(commits):
            self._outcomes.put(None)

    def fail(self, error: BaseException) -> None:
        self._outcomes.put(error)
