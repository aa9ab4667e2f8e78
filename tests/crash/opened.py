"""Opens the databases whose paths it reads, and verifies copies; prints the index or the problem.

    python -m tests.crash.opened NAME < PATHS

NAME is the name of the databases; all other files are copies.
"""

import sys
from pathlib import Path

from fibcore.problems import StoreProblem
from fibcore.stores import opener_of


def index_of(path: Path, *, is_copy: bool) -> int:
    opener = opener_of(f"sqlite:{path}", "main", "full", 1000)
    if is_copy:
        found = opener.describe()
        if found.problem is not None:
            raise found.problem
        return found.index
    opener.stand_by(lambda _: None)
    store = opener.open()
    try:
        return store.read()
    finally:
        store.close()


for _path in map(Path, sys.stdin.read().splitlines()):
    try:
        print(index_of(_path, is_copy=_path.name != sys.argv[1]))
    except StoreProblem as _problem:
        print(f"{type(_problem).__name__}: {_problem.reason}")
