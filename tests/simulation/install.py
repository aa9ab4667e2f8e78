"""Puts the simulated world under the stores: what they import of the system is replaced.

The stores of engines are used by threads of simulated processes alone while this lasts.
"""

import contextlib
import http
import http.client
import time
import types
from collections.abc import Iterator
from typing import Any

import fibcore.stores
from fibcore.stores import etcd_connection, postgresql, redis
from tests.simulation import etcd as simulated_etcd
from tests.simulation import postgresql as simulated_postgresql
from tests.simulation import redis as simulated_redis
from tests.simulation.engine import EngineServer, calling_process


class Time(types.ModuleType):
    """``time``, as the calling process has it."""

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


def has_input(there: Any, seconds: float = 0.0) -> bool:
    """``engine.has_input``, of what stands for a descriptor."""
    assert not seconds
    return bool(there.has_input())


def namespace(module: types.ModuleType, **replaced: object) -> types.SimpleNamespace:
    """A module, with some of it replaced."""
    return types.SimpleNamespace(**{**vars(module), **replaced})


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Have the stores live in simulated worlds."""
    undo: list[tuple[Any, str, object]] = []

    def replace(module: Any, name: str, value: object) -> None:
        undo.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    clock = Time("time")
    for each in vars(fibcore.stores).values():
        if isinstance(each, types.ModuleType):
            if getattr(each, "time", None) is time:
                replace(each, "time", clock)
            if "has_input" in vars(each):
                replace(each, "has_input", has_input)
    client = namespace(http.client, HTTPConnection=simulated_etcd.HTTPConnection)
    replace(etcd_connection, "http", namespace(http, client=client))
    replace(redis, "Connection", simulated_redis.Connection)
    replace(postgresql, "connect", simulated_postgresql.connect)
    try:
        yield
    finally:
        for module, name, value in reversed(undo):
            setattr(module, name, value)


def with_servers(servers: dict[str, EngineServer]) -> None:
    """Have the names of hosts lead to these servers."""
    simulated_etcd.HTTPConnection.servers = servers
    simulated_redis.Connection.hosts = servers
    simulated_postgresql.Connection.hosts = servers
