"""Runs each test with both clients."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from fibcore import AsyncClient, Client
from fibcore.client import Number


class Either(Protocol):
    """The methods of both clients."""

    def next(self, *, key: str | None = None, timeout: float | None = None) -> Number: ...
    def current(self, *, timeout: float | None = None) -> Number: ...
    def previous(self, *, timeout: float | None = None) -> Number: ...
    def number(self, index: int, *, timeout: float | None = None) -> Number: ...
    def new_key(self) -> str: ...
    def close(self) -> None: ...


Connect = Callable[..., Either]


class InLoop:
    """An ``AsyncClient`` whose calls block."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def next(self, **options: Any) -> Number:
        return self._runner.run(self._client.next(**options))

    def current(self, **options: Any) -> Number:
        return self._runner.run(self._client.current(**options))

    def previous(self, **options: Any) -> Number:
        return self._runner.run(self._client.previous(**options))

    def number(self, index: int, **options: Any) -> Number:
        return self._runner.run(self._client.number(index, **options))

    def new_key(self) -> str:
        return self._runner.run(self._client.new_key())

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, InLoop], ids=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Creates a client, which is closed at the end."""
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Either:
            client: Either = request.param(*arguments, **options)
            stack.callback(client.close)
            return client

        yield make
