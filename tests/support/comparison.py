"""Compares the protocol with the plain application: both get the same bytes."""

from collections.abc import Iterable, Mapping

from hypothesis import event
from hypothesis import strategies as st

from tests.support.connections import Loop
from tests.support.corpus import SETTINGS, cuts, streams
from tests.support.differences import differences_of
from tests.support.exchange import NO_SETTINGS, START, Outcome, exchange
from tests.support.in_process import PLAIN_APPLICATION, PROTOCOL


def ours_to(
    loop: Loop,
    pieces: Iterable[bytes],
    *,
    patient: bool = False,
    settings: Mapping[str, object] = NO_SETTINGS,
) -> Outcome:
    """Send ``pieces`` to the protocol, and check that each step is answered with its own index."""
    outcome = exchange(loop, PROTOCOL, pieces, patient=patient, settings=settings)
    assert outcome.reached == list(range(START + 1, START + 1 + outcome.steps))
    return outcome


def compare(loop: Loop, drawn: st.DataObject, *, odd: bool) -> None:
    """Send a drawn stream to both, in the same pieces."""
    data = drawn.draw(streams(odd=odd))
    pieces, patient = drawn.draw(cuts(data)), drawn.draw(st.booleans())
    settings = drawn.draw(st.sampled_from(list(SETTINGS.values())))
    ours = ours_to(loop, pieces, patient=patient, settings=settings)
    assert ours.final == ours_to(loop, [data], settings=settings).final
    if is_comparable(pieces):
        theirs = exchange(loop, PLAIN_APPLICATION, pieces, patient=patient, settings=settings)
        assert ours.compared == theirs.compared


def is_comparable(pieces: list[bytes]) -> bool:
    """Whether no known difference concerns ``pieces``; Hypothesis counts those that do."""
    differences = differences_of(*pieces)
    event(", ".join(map(str, differences)) or "compared")
    return not differences
