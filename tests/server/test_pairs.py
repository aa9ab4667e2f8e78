"""Two things at once that are each tested alone.

``tests/http/test_bounds.py`` has the pairs of bounds.
"""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.support.implementations import serving

pytestmark = pytest.mark.processes


# A representation, and a condition

INDEX: Final = 100
"""Past F(93), so that exact and uint64 answers have different entity tags."""

ACCEPTS: Final = {"json": "*/*", "text": "text/plain"}

OPAQUE: Final = {
    ("exact", "json"): "{}",
    ("exact", "text"): "{}-text",
    ("uint64", "json"): "{}-uint64",
    ("uint64", "text"): "{}-uint64-text",
}

FIELDS: Final = (
    '"{}"',
    '"{}-text"',
    '"{}-uint64"',
    '"{}-uint64-text"',
    'W/"{}"',
    'W/"{}-text"',
    '"x", "{}-text"',
    "*",
    '"9"',
    '"{}x"',
    "{}",
)
"""Values of the condition, each with the index in it."""


def opaque_tags(field: str) -> list[str]:
    """The opaque parts, between the quotes, of a list of tags."""
    parts = field.split('"')
    return parts[1::2]


def expected(
    method: str, path: str, name: str, field: str, tag: str, index: int
) -> tuple[int, bool]:
    """The status by RFC 9110, 13.1, and whether it steps."""
    steps = path == "/next"
    tags = opaque_tags(field)
    if name == "If-Match":
        # A strong comparison, with any representation of the index.
        named = {each.format(index) for each in OPAQUE.values()}
        holds = field == "*" or (not field.startswith("W/") and bool(named & set(tags)))
        return (200, steps) if holds else (412, False)
    # A weak comparison, only with the representation that would be sent.
    if field != "*" and tag not in tags:
        return 200, steps
    return (412 if method == "POST" else 304), False


@pytest.mark.parametrize("integers", ["exact", "uint64"])
def test_a_condition_is_judged_by_the_representation_to_be_sent(
    integers: str, tmp_path: Path
) -> None:
    with (
        serving(tmp_path, INDEX, FIB_INTEGERS=integers) as client,
        closing(client.connect()) as connection,
    ):
        index = INDEX
        for (representation, accept), form, name, (method, path) in itertools.product(
            ACCEPTS.items(),
            FIELDS,
            ("If-Match", "If-None-Match"),
            (("GET", "/current"), ("HEAD", "/previous"), ("GET", "/next"), ("POST", "/next")),
        ):
            field = form.format(index)
            tag = OPAQUE[integers, representation].format(index)
            status, steps = expected(method, path, name, field, tag, index)
            answer = client.request_on(connection, method, path, {"Accept": accept, name: field})
            said = f"{method} {path}, {accept}, {name}: {field}"
            assert answer.status == status, said
            index += steps
            assert answer.index == index, said
            if status in (200, 304):
                own = OPAQUE[integers, representation].format(index)
                assert answer.headers["etag"] == f'"{own}"', said
                assert answer.headers["vary"] == "accept", said
