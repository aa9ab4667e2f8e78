"""The one table of what each path does; the application and the fast path both read it."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from fibcore import State
from fibcore.stepper import OverloadedError, Refusal
from web import answers
from web.answers import Answer, Number
from web.negotiation import EntityTags, Representation
from web.service import Service

__all__ = [
    "CURRENT",
    "ENDPOINTS",
    "NEXT",
    "PREVIOUS",
    "Endpoint",
    "Reply",
    "Request",
    "exhausted",
    "overloaded",
]

Reply: TypeAlias = Callable[[Answer], None]
"""Takes the answer, once."""


class Request(NamedTuple):
    """What matters of a request that an endpoint takes."""

    representation: Representation = Representation.JSON
    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    prefetch: bool = False


class Endpoint(NamedTuple):
    """A path: the methods that it takes, and what it does with them."""

    path: str
    methods: tuple[str, ...]
    number: Number | None
    respond: Callable[[Service, Request, Reply], None]

    @property
    def cache_control(self) -> bytes:
        """How every answer of this path may be cached."""
        return self.number.cache_control if self.number else answers.NO_CACHE


CURRENT: Final = Number(b"current", answers.NO_CACHE)
PREVIOUS: Final = Number(b"previous", answers.NO_CACHE)
NEXT: Final = Number(b"next", answers.NO_STORE)


def read_current(service: Service, request: Request, reply: Reply) -> None:
    """Answer F(n)."""
    _read(service, request, reply, CURRENT, lambda state: state.current)


def read_previous(service: Service, request: Request, reply: Reply) -> None:
    """Answer F(n - 1)."""
    _read(service, request, reply, PREVIOUS, lambda state: state.previous)


def _read(
    service: Service,
    request: Request,
    reply: Reply,
    kind: Number,
    digits_of: Callable[[State], bytes],
) -> None:
    state = service.state
    if state is None:
        reply(answers.unavailable(service.complaint or "", cache_control=kind.cache_control))
        return
    if request.if_match is not None and not request.if_match.match_strongly(state.index):
        reply(_precondition_failed(request.if_match, state.index, kind))
        return
    if request.if_none_match is not None and request.if_none_match.match_weakly(state.index):
        reply(answers.not_modified(kind, state.index))
        return
    digits = digits_of(state)
    if not service.budget.fits_shared(digits):
        reply(
            answers.unavailable(
                "The answers that are being sent take up all the memory they may.",
                index=state.index,
                cache_control=kind.cache_control,
            )
        )
        return
    reply(answers.number(kind, state.index, digits, request.representation))


def step(service: Service, request: Request, reply: Reply) -> None:
    """Commit n + 1, then answer F(n + 1)."""
    if service.stepper is None:
        reply(answers.unavailable(service.complaint or ""))
        return
    sequence = service.stepper.sequence
    if request.prefetch:
        reply(
            answers.unavailable(
                "A prefetch is a request that nobody has asked for yet, so it does not step.",
                index=sequence.index,
            )
        )
        return
    condition = request.if_match

    def deliver(state: State, refusal: Refusal | None) -> None:
        if refusal is None:
            reply(answers.number(NEXT, state.index, state.current, request.representation))
        elif refusal is Refusal.EXHAUSTED:
            reply(exhausted(state.index))
        else:
            assert condition is not None
            reply(_precondition_failed(condition, state.index, NEXT))

    try:
        service.stepper.submit(deliver, condition.match_strongly if condition else None)
    except OverloadedError as error:
        reason = str(error)
        service.refusals.submit(lambda: reply(overloaded(reason, sequence.index)))


def overloaded(reason: str, index: int) -> Answer:
    """503: a bound is reached."""
    return answers.unavailable(f"The server has reached a bound: {reason}.", index=index)


def exhausted(index: int) -> Answer:
    """409: the largest index is reached."""
    return answers.problem(
        409,
        f"The sequence stands at index {index}, the largest that this server is configured for. "
        f"Nothing has stepped, and nothing will until FIB_MAX_INDEX is raised.",
        index=index,
    )


def _precondition_failed(condition: EntityTags, index: int, kind: Number) -> Answer:
    if condition.malformed:
        what = "If-Match is not a list of entity tags, which stand in double quotes"
    else:
        what = f"The sequence stands at index {index}, which If-Match does not name"
    return answers.problem(
        412,
        f"{what}. Nothing has stepped. The ETag of this answer is where the sequence stands now.",
        index=index,
        cache_control=kind.cache_control,
    )


def health(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer whether the store can be used."""
    complaint = service.complaint
    if complaint is None:
        reply(answers.healthy())
    else:
        reply(answers.unavailable(complaint, cache_control=answers.NO_CACHE))


ENDPOINTS: Final = (
    Endpoint("/current", ("GET", "HEAD"), CURRENT, read_current),
    Endpoint("/next", ("GET", "POST"), NEXT, step),
    Endpoint("/previous", ("GET", "HEAD"), PREVIOUS, read_previous),
    Endpoint("/health", ("GET", "HEAD"), None, health),
)
