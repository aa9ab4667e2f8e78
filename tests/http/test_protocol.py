"""The protocol answers as the plain application does: the same bytes go to both.

The plain application is Starlette's under uvicorn's own protocol. Where HTTP wants what that does
not do, the difference has a name: see ``tests.support.differences``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.cases import every
from tests.support.connections import Loop
from tests.support.corpus import CASES, RECORDED, SETTINGS, cuts, request, streams
from tests.support.differences import DIFFERENCES, differences_of
from tests.support.exchange import NO_SETTINGS, START, Outcome, exchange
from tests.support.in_process import PLAIN_APPLICATION, PROTOCOL
from web.endpoints.table import TABLE
from web.http.heads import Heads, MalformedError
from web.http.parser import MAX_HEAD, Parser

ALL = CASES | RECORDED | {f"difference: {each}": each.shown_by for each in DIFFERENCES}


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def ours_to(
    loop: Loop,
    pieces: Iterable[bytes],
    *,
    patient: bool = False,
    settings: Mapping[str, object] = NO_SETTINGS,
) -> Outcome:
    """What the protocol makes of ``pieces``: each step is answered, with an index of its own."""
    outcome = exchange(loop, PROTOCOL, pieces, patient=patient, settings=settings)
    assert outcome.reached == list(range(START + 1, START + 1 + outcome.steps))
    return outcome


@pytest.mark.proves(
    "clients",
    "send any bytes, cut anywhere and piped",
    "what the plain application under uvicorn's own protocol answers; where HTTP wants another "
    "answer the difference has a name and a section of its RFC, and there are no others",
)
@pytest.mark.processes
@every("name", ALL)
def test_what_no_difference_concerns_is_answered_alike(loop: Loop, name: str) -> None:
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


@pytest.mark.proves("clients", "send any bytes, cut anywhere…")
@every("name", ALL)
def test_it_is_the_same_however_it_is_cut(loop: Loop, name: str) -> None:
    data = ALL[name]
    whole = ours_to(loop, [data]).final
    sizes = (1, 7, 1_000) if len(data) < 2_000 else (1_000, 20_000)
    for size in filter(len(data).__gt__, sizes):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert ours_to(loop, pieces).final == whole
    half = len(data) // 2
    assert ours_to(loop, [data[:half], data[half:]], patient=True).final == whole


@given(st.data())
def test_valid_requests_cut_anywhere_are_answered_alike(loop: Loop, drawn: st.DataObject) -> None:
    compare(loop, drawn, odd=False)


@pytest.mark.proves("clients", "send any bytes, cut anywhere…")
@given(st.data())
def test_any_bytes_cut_anywhere_are_answered_alike(loop: Loop, drawn: st.DataObject) -> None:
    compare(loop, drawn, odd=True)


def compare(loop: Loop, drawn: st.DataObject, *, odd: bool) -> None:
    """Send a stream to both, in the same pieces."""
    data = drawn.draw(streams(odd=odd))
    pieces, patient = drawn.draw(cuts(data)), drawn.draw(st.booleans())
    settings = drawn.draw(st.sampled_from(list(SETTINGS.values())))
    ours = ours_to(loop, pieces, patient=patient, settings=settings)
    assert ours.final == ours_to(loop, [data], settings=settings).final
    if is_comparable(pieces):
        theirs = exchange(loop, PLAIN_APPLICATION, pieces, patient=patient, settings=settings)
        assert ours.compared == theirs.compared


def is_comparable(pieces: list[bytes]) -> bool:
    """Whether no difference concerns them; Hypothesis counts how often one does."""
    differences = differences_of(*pieces)
    event(", ".join(map(str, differences)) or "compared")
    return not differences


@pytest.mark.parametrize("size", [20_000, 1_000_000])
def test_a_head_past_its_bound_is_rejected_without_being_kept(size: int) -> None:
    parser = Parser(Heads(TABLE, defaultdict(list)))
    with pytest.raises(MalformedError, match="its head takes more than 16384 bytes"):
        parser.feed(request("GET /next", "X: " + "y" * size))
    assert len(parser.raw) == MAX_HEAD
