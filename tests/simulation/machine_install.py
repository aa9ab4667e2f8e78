"""Puts a simulated machine under the embedded store: what it imports of the system is replaced."""

import contextlib
import time as real_time
import types
from collections.abc import Iterator
from typing import Any, Final

import fibcore.appliance.process
from fibcore import follower
from fibcore.appliance import takeover_history
from fibcore.stores import files, high_water_mark, lock, sqlite, sqlite_file
from tests.simulation import sqlite as simulated_sqlite
from tests.simulation import system
from tests.simulation.system import SimulatedPath, calling, namespace
from web import life


class Time(types.ModuleType):
    """``time``, as the calling process has it."""

    perf_counter = staticmethod(real_time.perf_counter)

    @staticmethod
    def time() -> float:
        return calling().time()

    @staticmethod
    def monotonic() -> float:
        return calling().monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        calling().sleep(seconds)


def simulated(path: object) -> Any:
    """The same path on the machine of the calling process."""
    return SimulatedPath(str(path))


CLOCK: Final = Time("time")
TAKEOVERS: Final = namespace(
    takeover_history,
    note_ending=lambda path, ending: takeover_history.note_ending(simulated(path), ending),
    record=lambda path, seconds: takeover_history.record(simulated(path), seconds),
)
REPLACED: Final[dict[Any, dict[str, Any]]] = {
    sqlite: {"os": system.os, "sqlite3": simulated_sqlite.sqlite3, "WAL_PAGES": sqlite.WAL_PAGES},
    sqlite_file: {"os": system.os, "sqlite3": simulated_sqlite.sqlite3},
    high_water_mark: {
        "os": system.os,
        "mmap": system.mmap,
        "BOOT_ID": simulated("/proc/boot_id"),
    },
    lock: {"os": system.os, "fcntl": system.fcntl},
    files: {"os": system.os},
    takeover_history: {"threading": system.threading, "time": CLOCK},
    # A number here is short, and is followed for nothing.
    follower: {"os": system.os, "threading": system.threading, "INTERVAL_SECONDS": 5.0},
    life: {
        "threading": system.threading,
        "time": CLOCK,
        "takeover_history": TAKEOVERS,
        "process": namespace(fibcore.appliance.process, listens_elsewhere=lambda _: False),
    },
}
"""What the modules of the embedded store have instead."""


@contextlib.contextmanager
def on_machines() -> Iterator[None]:
    """Have the embedded store live on simulated machines."""
    were = {(each, name): getattr(each, name) for each in REPLACED for name in REPLACED[each]}
    for each, names in REPLACED.items():
        for name, value in names.items():
            setattr(each, name, value)
    try:
        yield
    finally:
        for (each, name), value in were.items():
            setattr(each, name, value)
