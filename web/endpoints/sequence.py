"""What the endpoints of the sequence share: the read, and the 412 and 503 answers."""

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from fibcore import Snapshot
from fibcore.admission import UNCOUNTED_DIGITS, OverloadedError
from web.endpoints.schemas import INTEGER, NATURAL, structure
from web.http import answers
from web.http.answers import JSON, Answer, Latest, Number, NumberAnswer
from web.http.origins import CORS
from web.http.request import CONDITIONS, REPRESENTATION, Reply, Request
from web.http.routing import Content, Description, Endpoint, Problem, Responder
from web.service import Service


def content_of(key: str, example: int) -> Mapping[str, Content]:
    """A number in JSON (under ``key``) and as text, for ``/openapi.json``."""
    return {
        "application/json": Content(structure({key: INTEGER}), {key: example}),
        "text/plain": Content({"type": "string", "pattern": NATURAL}, str(example)),
    }


def reading(
    name: str, summary: str, content: str, example: int, digits_of: Callable[[Snapshot], bytes]
) -> Endpoint:
    """The row ``/name``, which reads a number of the sequence.

    Args:
        name: also the number's name in JSON.
        summary, content, example: for ``/openapi.json``.
        digits_of: takes the number's digits from a snapshot.
    """
    number = Number(name.encode(), answers.NO_CACHE)
    return Endpoint(
        f"/{name}",
        ("GET", "HEAD"),
        read(number, digits_of),
        number.cache_control,
        REPRESENTATION | CONDITIONS | CORS,
        has_index=True,
        description=Description(
            name, summary, content, content_of(name, example), CONDITION_FAILED
        ),
    )


def read(number: Number, digits_of: Callable[[Snapshot], bytes]) -> Responder:
    """The responder that reads ``number``; ``digits_of`` takes its digits from a snapshot."""
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
            service.read(partial(answer, service, request, reply))

    def answer(service: Service, request: Request, reply: Reply, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            reply(answers.unavailable(service.reason or "", cache_control=number.cache_control))
            return
        index = snapshot.index
        form = number.form(index, request.representation, service.wraps)
        if request.conditional:
            if request.if_match is not None and not request.if_match.name(index):
                reply(precondition_failed(request, index, number.cache_control))
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
                control = number.cache_control
                shed(service, reply, at_bound(error, index=index, cache_control=control))
                return
            made = NumberAnswer(form, index, digits)
            if len(digits) >= UNCOUNTED_DIGITS:
                reply(made)
                return
            if latest is None:
                latest = service.latest[kept_as] = Latest()
            # Kept, with what it renders to, until the sequence moves.
            latest.snapshot, latest.answer = snapshot, made
        if not request.conditional:
            request.latest = latest
        reply(latest.answer)

    return respond


def at_bound(
    error: OverloadedError, *, index: int | None = None, cache_control: bytes = answers.NO_STORE
) -> Answer:
    """503: a bound rejects the request."""
    reason = f"The server has reached a limit: {error}."
    return answers.unavailable(
        reason, is_lasting=error.is_lasting, index=index, cache_control=cache_control
    )


def shed(service: Service, reply: Reply, answer: Answer) -> None:
    """Send a 503, at the limited pace of such answers."""
    service.admission.pace.submit(lambda: reply(answer))


def precondition_failed(request: Request, index: int, cache_control: bytes) -> Answer:
    """412: a condition of ``request`` does not hold at ``index``."""
    if request.if_match is None or request.if_match.name(index):
        why = f"The sequence is at index {index}, which If-None-Match names"
    elif request.if_match.malformed:
        why = "If-Match is not a list of entity tags in double quotes"
    else:
        why = f"The sequence is at index {index}, which If-Match does not name"
    return _unmet(why, index, cache_control)


# Until the sequence moves it is the same for all, and rendered once.
@functools.lru_cache(maxsize=8)
def _unmet(why: str, index: int, cache_control: bytes) -> Answer:
    return answers.problem(
        412,
        f"{why}. Nothing has stepped. The ETag of this answer is the current index.",
        index=index,
        cache_control=cache_control,
    )


CONDITION_FAILED: Final = {
    412: Problem(
        "If-Match does not name the current index, or If-None-Match names it.",
        (_unmet("The sequence is at index 5, which If-Match does not name", 5, answers.NO_CACHE),),
    )
}
