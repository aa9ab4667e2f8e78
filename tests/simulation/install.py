"""Replaces what the product imports of the system and of client libraries with the simulation.

Meanwhile only threads of simulated processes may use the stores.
"""

import contextlib
import http
import http.client
import time
import types
from collections.abc import Iterator
from typing import Any, Final

import fibcore.appliance.process
import fibcore.stores
from fibcore import follower, stepper
from fibcore.appliance import takeover_history
from fibcore.stores import (
    engine,
    etcd,
    etcd_connection,
    files,
    high_water_mark,
    lock,
    postgresql,
    redis,
    sqlite,
    sqlite_file,
    sqlite_opener,
)
from fibcore.stores.keys import MAX_KEYED
from tests.simulation import etcd as simulated_etcd
from tests.simulation import postgresql as simulated_postgresql
from tests.simulation import redis as simulated_redis
from tests.simulation import sqlite as simulated_sqlite
from tests.simulation import system
from tests.simulation.engine import EngineServer
from tests.simulation.process import calling_process
from tests.simulation.system import SimulatedPath, namespace
from web import life


class Time(types.ModuleType):
    """``time``, with the clocks of the calling process."""

    perf_counter = staticmethod(time.perf_counter)

    @staticmethod
    def time() -> float:
        return calling_process().time()

    @staticmethod
    def monotonic() -> float:
        return calling_process().monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        calling_process().sleep(seconds)


def has_input(session: Any, seconds: float = 0.0) -> bool:
    """``engine.has_input``, of a session in place of a descriptor."""
    assert not seconds
    return bool(session.has_input())


def simulated(path: object) -> Any:
    """Return the same path on the calling process's machine."""
    return SimulatedPath(str(path))


CLOCK: Final = Time("time")
SQLITE: Final = {"os": system.os, "sqlite3": simulated_sqlite.sqlite3}
CLIENT: Final = namespace(http.client, HTTPConnection=simulated_etcd.HTTPConnection)
TAKEOVERS: Final = namespace(
    takeover_history,
    note_ending=lambda path, *how: takeover_history.note_ending(simulated(path), *how),
    record=lambda path, seconds: takeover_history.record(simulated(path), seconds),
)
REPLACEMENTS: Final[dict[Any, dict[str, Any]]] = {
    etcd_connection: {"http": namespace(http, client=CLIENT)},
    # So small that keys need several pages.
    etcd: {"PAGE": 2},
    **{each: {"MAX_KEYED": MAX_KEYED} for each in (engine, stepper)},
    redis: {"Connection": simulated_redis.Connection},
    postgresql: {"connect": simulated_postgresql.connect},
    sqlite: {**SQLITE, "WAL_PAGES": sqlite.WAL_PAGES},
    sqlite_file: SQLITE,
    high_water_mark: {
        "os": system.os,
        "mmap": system.mmap,
        "BOOT_ID": simulated("/proc/boot_id"),
    },
    lock: {"os": system.os, "fcntl": system.fcntl},
    files: {"os": system.os},
    sqlite_opener: {"os": system.os},
    takeover_history: {"threading": system.threading, "time": CLOCK},
    # Numbers are short here; following the server would only take time.
    follower: {"os": system.os, "threading": system.threading, "INTERVAL_SECONDS": 5.0},
    life: {
        "threading": system.threading,
        "time": CLOCK,
        "takeover_history": TAKEOVERS,
        "servers": namespace(
            fibcore.appliance.servers,
            another_serves=lambda _: system.calling_machine_process().another_serves(),
        ),
        "process": namespace(fibcore.appliance.process, listens_elsewhere=lambda _: False),
    },
}
"""Replacements by module and name."""


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Replace the names while the context lasts."""
    replaced = dict(REPLACEMENTS)
    for each in vars(fibcore.stores).values():
        if isinstance(each, types.ModuleType):
            names: dict[str, Any] = {"time": CLOCK} if getattr(each, "time", None) is time else {}
            if "has_input" in vars(each):
                names["has_input"] = has_input
            replaced[each] = {**names, **replaced.get(each, {})}
    were = [(each, name, getattr(each, name)) for each in replaced for name in replaced[each]]
    for each, names in replaced.items():
        for name, value in names.items():
            setattr(each, name, value)
    try:
        yield
    finally:
        for each, name, value in were:
            setattr(each, name, value)


def set_servers(servers: dict[str, EngineServer]) -> None:
    """Resolve host names to these servers."""
    simulated_etcd.HTTPConnection.servers = servers
    simulated_redis.Connection.hosts = servers
    simulated_postgresql.Connection.hosts = servers
