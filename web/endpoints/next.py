"""``/next``: the one endpoint that moves the sequence."""

from functools import partial
from typing import Final

from fibcore import MAX_INDEX, Snapshot
from fibcore.admission import OverloadedError
from fibcore.problems import IndexPastLimitError
from fibcore.stepper import Condition, Failure, Outcome, Repeated
from web.endpoints.number import give
from web.endpoints.sequence import (
    CONDITION_FAILED,
    at_bound,
    content_of,
    precondition_failed,
    shed,
)
from web.http import answers
from web.http.answers import Answer, Header, Number, NumberAnswer
from web.http.origins import CORS
from web.http.request import CONDITIONS, KEY, MEANT, REPRESENTATION, Reply, Request
from web.http.routing import Description, Endpoint, Problem
from web.service import Service

_NUMBER: Final = Number(b"next", answers.NO_STORE)


def _step(service: Service, request: Request, reply: Reply) -> None:
    """Commit n + 1, then answer F(n + 1)."""
    stepper = service.stepper
    if stepper is None:
        reply(_unavailable(service))
        return
    if request.cross_origin and request.origin not in service.settings.allowed_origins:
        reply(_not_meant(_index(service)))
        return
    if request.prefetch:
        reply(
            answers.unavailable(
                "This request is a prefetch, which must not step.",
                index=_index(service),
            )
        )
        return

    key = request.key
    if key is None and request.keyed:
        reply(_malformed_key(_index(service)))
        return

    try:
        stepper.submit(
            _deliver,
            _condition(service, request) if request.conditional else None,
            (service, request, reply),
            key,
        )
    except OverloadedError as error:
        shed(service, reply, at_bound(error, index=_index(service)))


def _deliver(snapshot: Snapshot, outcome: Outcome, caller: tuple[Service, Request, Reply]) -> None:
    """Answer a step: committed now, committed earlier for the same key, or not made."""
    service, request, reply = caller
    if outcome is None:
        index = snapshot.index
        form = _NUMBER.form(index, request.representation, service.wraps)
        reply(NumberAnswer(form, index, snapshot.current))
    elif isinstance(outcome, Repeated):
        form = _NUMBER.form(outcome.index, request.representation, service.wraps)
        give(service, form, outcome.index, reply, partial(_unsent, outcome.index))
    elif outcome is Failure.EXHAUSTED:
        reply(_exhausted(snapshot.index))
    elif outcome is Failure.UNAVAILABLE:
        reply(_unavailable(service))
    elif outcome is Failure.PRECONDITION:
        reply(_not_stepped(service, request, snapshot.index))
    elif outcome is Failure.KEYS_UNAVAILABLE:
        assert service.stepper is not None
        assert service.stepper.keys_problem is not None
        reply(answers.unavailable(service.stepper.keys_problem.public))
    else:
        reply(_key_conflict(outcome, snapshot.index))


def _unsent(made: int, error: OverloadedError) -> Answer:
    """503: a bound rejects the answer to a step that was made earlier for the same key."""
    use = "" if error.is_lasting else " Use the same key again."
    return answers.unavailable(
        f"The step for this Idempotency-Key was made earlier and led to index {made}, but its "
        f"number can't be sent: {error}.",
        state=f"No other step was made.{use}",
        is_lasting=error.is_lasting,
    )


_KEY_CONFLICTS: Final[dict[Failure, tuple[str, str, tuple[Header, ...]]]] = {
    Failure.OUTSTANDING: (
        "outstanding",
        "A request with the same Idempotency-Key is under way. Retry with the same key.",
        (answers.RETRY,),
    ),
    Failure.KEY_DROPPED: (
        "dropped",
        "This Idempotency-Key is no longer kept (FIB_MAX_KEYS): a step may have been made for it.",
        (),
    ),
    Failure.KEY_AHEAD: (
        "ahead",
        "The index in this Idempotency-Key is ahead of this sequence: it is a key of another.",
        (),
    ),
}
"""The problem with a key: its code, its text, and more headers."""


def _key_conflict(failure: Failure, index: int) -> Answer:
    """409: the key's answer is unknown, and it must not count as new."""
    name, reason, headers = _KEY_CONFLICTS[failure]
    where = f"This request has not stepped. The sequence is at index {index}."
    return answers.problem(409, f"{reason} {where}", *headers, index=index, key=name)


def _malformed_key(index: int | None) -> Answer:
    return answers.problem(
        400,
        "Idempotency-Key must be a string in double quotes of the form INDEX:RANDOM: the index "
        "that the client saw last, and 16 to 64 random letters, digits, - or _. Nothing has "
        "stepped.",
        index=index,
        key="malformed",
    )


def _unavailable(service: Service) -> Answer:
    """The answer to a step while the store is unavailable."""
    problem = service.problem
    if isinstance(problem, IndexPastLimitError):
        return _exhausted(problem.index, "past the largest")
    return answers.unavailable(service.reason or "")


def _index(service: Service) -> int | None:
    """The index for an answer that does not query the store; None if unknown."""
    snapshot = service.snapshot
    return None if snapshot is None else snapshot.index


def _condition(service: Service, request: Request) -> Condition:
    """A function that tells whether the request's conditions hold at an index."""

    def holds(index: int) -> bool:
        if request.if_match is not None and not request.if_match.name(index):
            return False
        return request.if_none_match is None or not request.if_none_match.hold(
            _NUMBER.form(index, request.representation, service.wraps).tag(index)
        )

    return holds


def _not_stepped(service: Service, request: Request, index: int) -> Answer:
    """The answer to a step whose condition did not hold at ``index``."""
    failed = request.if_match is not None and not request.if_match.name(index)
    if failed or request.method != "GET":
        return precondition_failed(request, index, _NUMBER.cache_control)
    # RFC 9110, 13.1.2: for a GET, a false If-None-Match means that the client has it already.
    return _NUMBER.form(index, request.representation, service.wraps).not_modified(index)


def _not_meant(index: int | None) -> Answer:
    return answers.problem(
        403,
        "The browser reports that a page of another origin made this request, so its user may not "
        "have intended a step. Nothing has stepped. Open /next directly, or list the origin in "
        "FIB_ALLOWED_ORIGINS if its pages may step.",
        index=index,
    )


def _exhausted(index: int, which: str = "the largest") -> Answer:
    way = (
        "No larger index is supported."
        if index >= MAX_INDEX
        else "Raise FIB_MAX_INDEX to continue."
    )
    return answers.problem(
        409,
        f"The sequence is at index {index}, {which} that this server is configured for. "
        f"Nothing has stepped. {way}",
        index=index,
    )


NEXT: Final = Endpoint(
    "/next",
    ("GET", "POST"),
    _step,
    _NUMBER.cache_control,
    REPRESENTATION | CONDITIONS | KEY | MEANT | CORS,
    has_index=True,
    steps=True,
    description=Description(
        "next",
        "Commit n + 1, then answer F(n + 1).",
        "F(n + 1); the step is committed.",
        content_of("next", 8),
        {
            **CONDITION_FAILED,
            403: Problem(
                "A page of another origin made the request.", (_not_meant(5), _not_meant(None))
            ),
            400: Problem(
                "The request is malformed (RFC 9112), or its Idempotency-Key is.",
                (answers.bad_request("it has no Host"), _malformed_key(5)),
            ),
            409: Problem(
                "The sequence is at the largest index, or a request with the Idempotency-Key is "
                "under way, or the key is no longer kept or for another sequence.",
                (
                    _exhausted(10_000_000),
                    *(_key_conflict(failure, 5) for failure in _KEY_CONFLICTS),
                ),
            ),
            503: Problem(
                "The store is unavailable, a bound is reached, or the request is a prefetch.",
                (
                    at_bound(OverloadedError("too many steps wait"), index=5),
                    _unsent(5, OverloadedError("too many numbers wait to be computed")),
                ),
            ),
        },
    ),
)
