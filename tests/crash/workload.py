"""The embedded store in a process of its own, which reports what it begins and what it has done.

    python -m tests.crash.workload DATABASE full create=5 open step step:keys backup=copy.db close

It uses the store through its seam alone. Before "done" it reports the content of each file of one
page: a store may write to such a file through a mapping, which no system call shows.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, cast

from fibcore.stores import Keys, Opener, Store, key_of, opener_of

PAGE: Final = 4096

KEYS: Final = 200
"""Keys of a keyed step: enough for a commit of a dozen pages, so that checkpoints come soon."""

Level = Literal["full", "normal", "off"]


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def done(database: Path, name: str, index: int) -> None:
    for each in sorted(database.parent.iterdir()):
        if each.stat().st_size == PAGE:
            say("page", each.name, each.read_bytes().hex())
    say("done", name, index)


def keys_at(index: int) -> Keys:
    """New keys for so many steps from ``index`` on."""
    found = (key_of(b'"%d:%016d"' % (index, number)) for number in range(KEYS))
    return {key: number + 1 for number, key in enumerate(found) if key is not None}


def run(database: Path, opener: Opener, commands: Iterator[str]) -> None:
    store: Store | None = None
    for command in commands:
        verb, _, value = command.partition("=")
        name = database.name
        if verb == "create":
            say("begin", name, value)
            opener.create(int(value))
            done(database, name, int(value))
        elif verb == "open":
            opener.stand_by(lambda _: None)
            store = opener.open()
            done(database, name, store.read())
        elif verb in ("set", "lower"):
            say("setting", name, value)
            opener.set_index(int(value), lower=verb == "lower")
            done(database, name, int(value))
        elif verb == "backup":
            say("begin", value, opener.describe().index)
            done(database, value, opener.backup(database.with_name(value)))
        elif verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            assert store is not None
            if verb == "close":
                store.close()
                continue
            index = store.read()
            keys = keys_at(index) if verb == "keyed" else {}
            steps = len(keys) or 1
            if keys:
                say("keyed", name, index)
            say("begin", name, index + steps)
            done(database, name, store.advance(steps, keys=keys))


if __name__ == "__main__":
    _database = Path(sys.argv[1])
    try:
        run(
            _database,
            opener_of(f"sqlite:{_database}", "main", cast("Level", sys.argv[2]), 1000),
            iter(sys.argv[3:]),
        )
    except Exception:
        # As the server does: nothing is closed, which would change files.
        os._exit(1)
