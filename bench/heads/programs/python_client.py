"""Sends requests with a Python client: python python_client.py LIBRARY BASE SECONDS CASE...

A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
cases are sent in turn for SECONDS, or twice if that is 0; the number of answers is printed.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator


class Turns:
    """The cases in turn, with their count."""

    def __init__(self, seconds: float, cases: list[list[str]]) -> None:
        self.seconds, self.cases = seconds, cases
        self.count = 0

    def __iter__(self) -> Iterator[tuple[str, str, dict[str, str], str | None]]:
        """Method, path, headers and body of each."""
        end = time.monotonic() + self.seconds
        turns = 0
        while time.monotonic() < end if self.seconds else turns < 2:
            turns += 1
            for method, path, name, value, body in self.cases:
                yield method, path, {name: value} if name else {}, body or None
                self.count += 1


def with_requests(base: str, turns: Turns) -> None:
    import requests

    with requests.Session() as session:
        for method, path, headers, body in turns:
            session.request(method, base + path, headers=headers, data=body)


def with_urllib3(base: str, turns: Turns) -> None:
    import urllib3

    pool = urllib3.PoolManager()
    for method, path, headers, body in turns:
        pool.request(method, base + path, headers=headers, body=body)


def with_httpx(base: str, turns: Turns) -> None:
    import httpx

    with httpx.Client(base_url=base) as client:
        for method, path, headers, body in turns:
            client.request(method, path, headers=headers, content=body)


def with_aiohttp(base: str, turns: Turns) -> None:
    import aiohttp

    async def ask() -> None:
        async with aiohttp.ClientSession(base) as session:
            for method, path, headers, body in turns:
                async with session.request(method, path, headers=headers, data=body) as answer:
                    await answer.read()

    asyncio.run(ask())


def with_chunks(base: str, turns: Turns) -> None:
    """httpx with a body of unknown length, which it sends in chunks."""
    import httpx

    async def pieces(body: str) -> AsyncIterator[bytes]:
        yield body.encode()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=base) as client:
            for method, path, headers, body in turns:
                await client.request(method, path, headers=headers, content=pieces(body or ""))

    asyncio.run(ask())


CLIENTS = {
    "requests": with_requests,
    "urllib3": with_urllib3,
    "httpx": with_httpx,
    "httpx-chunked": with_chunks,
    "aiohttp": with_aiohttp,
}

if __name__ == "__main__":
    library, address, duration, *given = sys.argv[1:]
    asked = Turns(float(duration), [case.split("|") for case in given])
    CLIENTS[library](address, asked)
    print(asked.count)
