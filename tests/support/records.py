"""Reads and removes all records of a sequence in an engine."""

from fibcore.stores.engine import EngineStore
from fibcore.stores.records import PIECE


def all_records(store: EngineStore) -> dict[str, str]:
    """Return all records, by name."""
    found: dict[str, str] = {}
    after = ""
    assert store._link is not None
    while True:
        piece, after = store._link.records(after)
        # Redis returns a small hash whole, and may exceed the requested count.
        assert len(piece) <= max(2 * PIECE, 512)
        found |= piece
        if not after:
            return found


def remove_records(store: EngineStore, records: dict[str, str]) -> None:
    assert store._link is not None
    names = list(records)
    for start in range(0, len(names), PIECE):
        store._link.remove({name: records[name] for name in names[start : start + PIECE]})
