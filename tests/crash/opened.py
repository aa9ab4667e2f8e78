"""Opens the databases whose paths it reads, and verifies copies; prints the index or the problem.

    python -m tests.crash.opened NAME < PATHS

NAME is the name of the databases; all other files are copies. After each path is the index from
which a batch of keys was last sent: once the sequence is past their steps, they are never new.
"""

import sys
from pathlib import Path

from fibcore.problems import StoreProblem
from fibcore.stores import KeyConflictError, Store, opener_of
from tests.crash.workload import KEYS, keys_at


def no_key_is_new(store: Store, since: int) -> bool:
    keys = keys_at(since)
    try:
        store.advance(len(keys), keys=keys)
    except KeyConflictError as known:
        return all(known.found.get(key, 0) in (since + place, None) for key, place in keys.items())
    return False


def found_at(path: Path, since: int, *, is_copy: bool) -> str:
    opener = opener_of(f"sqlite:{path}", "main", "full", 1000)
    if is_copy:
        copy = opener.describe()
        if copy.problem is not None:
            raise copy.problem
        return str(copy.index)
    opener.stand_by(lambda _: None)
    store = opener.open()
    try:
        index = store.read()
        is_past = since >= 0 and since + KEYS <= index < since + 2 * KEYS
        return f"{index}: keys lost" if is_past and not no_key_is_new(store, since) else str(index)
    finally:
        store.close()


for _line in sys.stdin.read().splitlines():
    _path, _since = _line.split("\t")
    try:
        print(found_at(Path(_path), int(_since), is_copy=Path(_path).name != sys.argv[1]))
    except StoreProblem as _problem:
        print(f"{type(_problem).__name__}: {_problem.reason}")
