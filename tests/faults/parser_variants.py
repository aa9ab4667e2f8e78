"""Variants of the server whose parser is another: see ``server_variants``."""

import sys

from web import server
from web.http import protocol
from web.http.answers import Header
from web.http.heads import Heads, RequestLine
from web.http.parser import Parser


def steps_before_the_request_has_arrived() -> None:
    """A head is enough: what follows it may be malformed, or never come."""

    class Hasty(Parser):
        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.whole = True

    protocol.Parser = Hasty  # type: ignore[attr-defined]


def takes_an_offer_of_an_upgrade_for_the_end() -> None:
    """What httptools says of a request with one is believed."""

    class Credulous(Parser):
        def _decline_upgrade(self) -> None:
            pass

    protocol.Parser = Credulous  # type: ignore[attr-defined]


def takes_trailers_for_headers() -> None:
    """What stands behind a body counts as what stands before it."""

    class Merging(Parser):
        def __init__(self, heads: Heads) -> None:
            self.heads = heads
            super().__init__(heads)

        def begin(self) -> None:
            super().begin()
            self.fields: list[Header] = []

        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value)
            self.fields.append((name.lower(), value))
            if self.head is not None:
                said = RequestLine(self.head.method, self.head.target, self.head.version)
                self.head = self.heads.read(
                    repr(said).encode() + b" HTTP/1.1",
                    self.fields,
                    self.head.keep_alive,
                    lambda: said,
                )

    protocol.Parser = Merging  # type: ignore[attr-defined]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    server.main()
