"""The protocol answers as the plain application does: the same bytes go to both.

The plain application is the Starlette one under uvicorn's own protocol. Where HTTP requires
something else, the difference has a name: see ``tests.support.differences``.
"""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import every
from tests.support.comparison import compare, ours_to
from tests.support.connections import Loop
from tests.support.corpus import CASES, RECORDED, SETTINGS, request
from tests.support.differences import DIFFERENCES, differences_of
from tests.support.exchange import exchange
from tests.support.in_process import PLAIN_APPLICATION
from web.endpoints.table import TABLE
from web.http.heads import Heads, MalformedError
from web.http.parser import MAX_HEAD, Parser

ALL = CASES | RECORDED | {f"difference: {each}": each.shown_by for each in DIFFERENCES}


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.processes
@every("name", ALL)
def test_requests_without_a_known_difference_are_answered_alike(loop: Loop, name: str) -> None:
    data = ALL[name]
    differences = differences_of(data)
    differ = False
    for settings in SETTINGS.values():
        ours, theirs = (
            ours_to(loop, [data], settings=settings),
            exchange(loop, PLAIN_APPLICATION, [data], settings=settings),
        )
        if not differences:
            assert ours.compared == theirs.compared
        differ |= ours != theirs
    assert differ or not differences, differences


@every("name", ALL)
def test_the_answers_are_the_same_however_the_bytes_are_split(loop: Loop, name: str) -> None:
    data = ALL[name]
    whole = ours_to(loop, [data]).final
    sizes = (1, 1_000) if len(data) < 2_000 else (1_000, 20_000)
    for size in filter(len(data).__gt__, sizes):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert ours_to(loop, pieces).final == whole
    half = len(data) // 2
    assert ours_to(loop, [data[:half], data[half:]], patient=True).final == whole


@given(st.data())
def test_valid_requests_split_anywhere_are_answered_alike(loop: Loop, drawn: st.DataObject) -> None:
    compare(loop, drawn, odd=False)


@given(st.data())
def test_any_bytes_split_anywhere_are_answered_alike(loop: Loop, drawn: st.DataObject) -> None:
    compare(loop, drawn, odd=True)


@pytest.mark.parametrize("size", [20_000, 1_000_000])
def test_a_head_past_its_bound_is_rejected_without_being_kept(size: int) -> None:
    parser = Parser(Heads(TABLE, defaultdict(list)))
    with pytest.raises(MalformedError, match="its head has more than 16384 bytes"):
        parser.feed(request("GET /next", "X: " + "y" * size))
    assert len(parser.raw) == MAX_HEAD
