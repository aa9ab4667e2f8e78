"""Sends requests with a Python client: python python_client.py LIBRARY BASE CASE...

A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
cases are sent twice.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence

Requests = Sequence[tuple[str, str, dict[str, str], str | None]]
"""Method, path, headers and body of each request."""


def with_requests(base: str, requested: Requests) -> None:
    import requests

    with requests.Session() as session:
        for method, path, headers, body in requested:
            session.request(method, base + path, headers=headers, data=body)


def with_urllib3(base: str, requested: Requests) -> None:
    import urllib3

    pool = urllib3.PoolManager()
    for method, path, headers, body in requested:
        pool.request(method, base + path, headers=headers, body=body)


def with_httpx(base: str, requested: Requests) -> None:
    import httpx

    with httpx.Client(base_url=base) as client:
        for method, path, headers, body in requested:
            client.request(method, path, headers=headers, content=body)


def with_aiohttp(base: str, requested: Requests) -> None:
    import aiohttp

    async def ask() -> None:
        async with aiohttp.ClientSession(base) as session:
            for method, path, headers, body in requested:
                async with session.request(method, path, headers=headers, data=body) as answer:
                    await answer.read()

    asyncio.run(ask())


def with_chunks(base: str, requested: Requests) -> None:
    """httpx with a body of unknown length, which it sends in chunks."""
    import httpx

    async def pieces(body: str) -> AsyncIterator[bytes]:
        yield body.encode()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=base) as client:
            for method, path, headers, body in requested:
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
    library, address, *given = sys.argv[1:]
    cases = [case.split("|") for case in (*given, *given)]
    CLIENTS[library](
        address,
        [
            (method, path, {name: value} if name else {}, body or None)
            for method, path, name, value, body in cases
        ],
    )
