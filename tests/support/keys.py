"""Makes idempotency keys, and uses them in a store."""

from typing import Any

import pytest

from fibcore.idempotency_key import Key, key_of
from fibcore.stores.keys import KeyConflictError


def key(number: int, since: int = 0) -> Key:
    made = key_of(b'"%d:%016d"' % (since, number))
    assert made is not None
    return made


def step(store: Any, *keys: Key) -> int:
    """Make one step per key; return the index."""
    index: int = store.advance(len(keys), keys={each: place for place, each in enumerate(keys, 1)})
    return index


def found(store: Any, *keys: Key) -> dict[Key, int | None]:
    """Return the indexes that the store knows for keys that are not new."""
    with pytest.raises(KeyConflictError) as conflict:
        step(store, *keys)
    return dict(conflict.value.found)
