"""What the endpoints do: read a number, step to the next, say whether the store can be used."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from fibcore import MAX_INDEX, Snapshot
from fibcore.admission import UNCOUNTED_DIGITS, OverloadedError
from fibcore.problems import IndexPastLimitError, explain
from fibcore.stepper import Condition, Failure, Outcome, Repeated
from web.endpoints.number import give
from web.http import answers
from web.http.answers import JSON, Answer, Header, Latest, Number, NumberAnswer
from web.http.negotiation import idempotency_key
from web.http.request import Reply, Request
from web.service import Service

Responder: TypeAlias = Callable[[Service, Request, Reply], None]
"""Answers a request that its endpoint takes, now or later, once."""

CURRENT: Final = Number(b"current", answers.NO_CACHE)
PREVIOUS: Final = Number(b"previous", answers.NO_CACHE)
NEXT: Final = Number(b"next", answers.NO_STORE)


def read(number: Number, digits_of: Callable[[Snapshot], bytes]) -> Responder:
    """What answers ``number``, whose digits are those that ``digits_of`` takes from a snapshot."""
    json, text = number.json, number.text

    def respond(service: Service, request: Request, reply: Reply) -> None:
        sequence = service.sequence
        if sequence is not None:
            snapshot = sequence.snapshot
            latest = request.latest
            if latest is not None and latest.snapshot is snapshot:
                reply(latest.answer)
            else:
                answer(service, request, reply, snapshot)
        else:
            service.look(partial(answer, service, request, reply))

    def answer(service: Service, request: Request, reply: Reply, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            reply(answers.unavailable(service.complaint or "", cache_control=number.cache_control))
            return
        index = snapshot.index
        form = number.form(index, request.representation, service.wraps)
        if request.conditional:
            if request.if_match is not None and not request.if_match.name(index):
                reply(_precondition_failed(request, index, number.cache_control))
                return
            if request.if_none_match is not None and request.if_none_match.hold(form.tag(index)):
                reply(form.not_modified(index))
                return
        kept_as = json if request.representation is JSON else text
        latest = service.latest.get(kept_as)
        if latest is None or latest.snapshot is not snapshot:
            digits = digits_of(snapshot)
            try:
                service.admission.admit_answer(digits)
            except OverloadedError as error:
                shed = _shed(error, index, number.cache_control)
                service.admission.pace.submit(lambda: reply(shed))
                return
            made = NumberAnswer(form, index, digits)
            if len(digits) >= UNCOUNTED_DIGITS:
                reply(made)
                return
            if latest is None:
                latest = service.latest[kept_as] = Latest()
            # Until the sequence has moved on, and with it what the answer is rendered to.
            latest.snapshot, latest.answer = snapshot, made
        if not request.conditional:
            request.latest = latest
        reply(latest.answer)

    return respond


def step(service: Service, request: Request, reply: Reply) -> None:
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
                "A prefetch is a request that nobody has asked for yet, so it does not step.",
                index=_index(service),
            )
        )
        return

    key = None
    if request.key is not None:
        key = idempotency_key(request.key)
        if key is None:
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
        shed = _shed(error, _index(service), NEXT.cache_control)
        service.admission.pace.submit(lambda: reply(shed))


def _deliver(snapshot: Snapshot, outcome: Outcome, caller: tuple[Service, Request, Reply]) -> None:
    """Answer a step that was committed, now or before for the same key, or that was not made."""
    service, request, reply = caller
    if outcome is None:
        index = snapshot.index
        form = NEXT.form(index, request.representation, service.wraps)
        reply(NumberAnswer(form, index, snapshot.current))
    elif isinstance(outcome, Repeated):
        form = NEXT.form(outcome.index, request.representation, service.wraps)
        give(service, form, outcome.index, reply, REPEATED % outcome.index)
    elif outcome is Failure.EXHAUSTED:
        reply(_exhausted(snapshot.index))
    elif outcome is Failure.UNAVAILABLE:
        reply(_unavailable(service))
    elif outcome is Failure.PRECONDITION:
        reply(_not_stepped(service, request, snapshot.index))
    elif outcome is Failure.KEYS_UNAVAILABLE:
        assert service.stepper is not None
        assert service.stepper.keys_trouble is not None
        reply(answers.unavailable(explain(service.stepper.keys_trouble)))
    else:
        reply(_key_conflict(outcome, snapshot.index))


REPEATED: Final = "The step for this key was made, at index %d, and its number can't be given now"

KEY_CONFLICTS: Final[dict[Failure, tuple[str, str, tuple[Header, ...]]]] = {
    Failure.OUTSTANDING: (
        "outstanding",
        "A request with the same Idempotency-Key is under way. Ask again with it for its answer.",
        (answers.RETRY,),
    ),
    Failure.KEY_DROPPED: (
        "dropped",
        "Whether a step was made for this Idempotency-Key is not known any more (FIB_MAX_KEYS).",
        (),
    ),
    Failure.KEY_AHEAD: (
        "ahead",
        "The sequence has not reached the index in this Idempotency-Key: it is of another one.",
        (),
    ),
}
"""What is wrong with a key, for programs and for people, and more headers."""


def _key_conflict(failure: Failure, index: int) -> Answer:
    """409: the key is not answered, and not taken for new."""
    name, why, headers = KEY_CONFLICTS[failure]
    where = f"Nothing has stepped. The sequence is at index {index}."
    return answers.problem(409, f"{why} {where}", *headers, index=index, key=name)


def _malformed_key(index: int | None) -> Answer:
    return answers.problem(
        400,
        "Idempotency-Key must be a string in double quotes, of the form INDEX:RANDOM: the index "
        "that the client has last seen, and 16 to 64 random letters, digits, - or _. Nothing has "
        "stepped.",
        index=index,
        key="malformed",
    )


def _unavailable(service: Service) -> Answer:
    """The answer to a step that can't be made now."""
    trouble = service.trouble
    if isinstance(trouble, IndexPastLimitError):
        return _exhausted(trouble.index, "past the largest")
    return answers.unavailable(service.complaint or "")


def _index(service: Service) -> int | None:
    """What an answer may say where the sequence is that has not asked for it."""
    snapshot = service.snapshot
    return None if snapshot is None else snapshot.index


def _condition(service: Service, request: Request) -> Condition:
    """Whether the request's conditions hold at an index."""

    def holds(index: int) -> bool:
        if request.if_match is not None and not request.if_match.name(index):
            return False
        return request.if_none_match is None or not request.if_none_match.hold(
            NEXT.form(index, request.representation, service.wraps).tag(index)
        )

    return holds


def _not_stepped(service: Service, request: Request, index: int) -> Answer:
    """The answer to a step whose condition did not hold at ``index``."""
    failed = request.if_match is not None and not request.if_match.name(index)
    if failed or request.method != "GET":
        return _precondition_failed(request, index, NEXT.cache_control)
    # RFC 9110, 13.1.2: to a GET, a false If-None-Match says that the client has it already.
    return NEXT.form(index, request.representation, service.wraps).not_modified(index)


def _shed(error: OverloadedError, index: int | None, cache_control: bytes) -> Answer:
    why = f"The server has reached a bound: {error}."
    return answers.unavailable(why, index=index, cache_control=cache_control)


def _not_meant(index: int | None) -> Answer:
    return answers.problem(
        403,
        "A browser says that a page of another origin has asked for this step, so its user need "
        "not have meant it. Nothing has stepped. Open /next itself, or list the origin in "
        "FIB_ALLOWED_ORIGINS if its pages may step.",
        index=index,
    )


def _exhausted(index: int, which: str = "the largest") -> Answer:
    way = (
        "It ends here: no larger index is supported."
        if index >= MAX_INDEX
        else "To step on, raise FIB_MAX_INDEX."
    )
    return answers.problem(
        409,
        f"The sequence stands at index {index}, {which} that this server is configured for. "
        f"Nothing has stepped. {way}",
        index=index,
    )


def _precondition_failed(request: Request, index: int, cache_control: bytes) -> Answer:
    if request.if_match is None or request.if_match.name(index):
        why = f"The sequence stands at index {index}, which If-None-Match names"
    elif request.if_match.malformed:
        why = "If-Match is not a list of entity tags, which stand in double quotes"
    else:
        why = f"The sequence stands at index {index}, which If-Match does not name"
    return _unmet(why, index, cache_control)


# Until the sequence has moved on it is the same to all, and rendered once.
@functools.lru_cache(maxsize=8)
def _unmet(why: str, index: int, cache_control: bytes) -> Answer:
    return answers.problem(
        412,
        f"{why}. Nothing has stepped. The ETag of this answer is where the sequence stands now.",
        index=index,
        cache_control=cache_control,
    )


def health(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer whether the store can be used."""
    complaint = service.complaint
    if complaint is None:
        warnings = service.warnings
        reply(answers.healthy(warnings) if warnings else HEALTHY)
    else:
        reply(answers.unavailable(complaint, cache_control=answers.NO_CACHE))


HEALTHY: Final = answers.healthy()
"""One object, so that it is rendered once."""
