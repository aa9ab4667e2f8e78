"""``/numbers/{index}``: the number at any index, which never changes."""

import re
from collections.abc import Callable
from typing import Final

from fibcore import Sequence
from fibcore.admission import OverloadedError
from fibcore.numbers.outline import outline
from web.endpoints.schemas import INTEGER
from web.endpoints.sequence import content_of, shed
from web.http import answers
from web.http.answers import Answer, Form, Number, NumberAnswer, PlainAnswer
from web.http.origins import CORS
from web.http.request import CONDITIONS, REPRESENTATION, Reply, Request, client_of
from web.http.routing import Content, Description, Endpoint, Problem
from web.service import Service

_NUMBER: Final = Number(b"number", answers.FOR_EVER)

INDEX: Final = re.compile("0|[1-9][0-9]*")
"""One spelling per index, so that a cache keeps each number once."""

MOST_DIGITS: Final = 19
"""Digits of an index: 2^63 - 1 has 19."""

_NO_INDEX: Final = answers.problem(
    400,
    "The path segment after /numbers/ must be a non-negative decimal integer without leading "
    "zeros. Nothing has stepped.",
)
_UNMATCHED: Final = answers.problem(412, "If-Match does not name this number. Nothing has stepped.")


def _past(largest: int) -> Answer:
    return answers.problem(
        404, f"The largest index here is {largest} (FIB_MAX_INDEX). Nothing has stepped."
    )


def _look_up(service: Service, request: Request, reply: Reply) -> None:
    """Answer the number at the index in the path, from 0 to ``FIB_MAX_INDEX``."""
    text, largest = request.parameters["index"], service.settings.max_index
    if INDEX.fullmatch(text) is None:
        reply(_NO_INDEX)
        return
    index = int(text) if len(text) <= MOST_DIGITS else largest + 1
    if index > largest:
        reply(_past(largest))
        return
    form = _NUMBER.form(index, request.representation, service.wraps)
    if request.if_match is not None and not request.if_match.name(index):
        reply(_UNMATCHED)
    elif request.if_none_match is not None and request.if_none_match.hold(form.tag(index)):
        reply(form.not_modified(index))
    elif request.method == "HEAD" and not service.wraps:
        reply(PlainAnswer(200, form.headers_of(index, outline(index).digits)))
    else:
        give(service, form, index, reply)


def _unavailable(error: OverloadedError) -> Answer:
    reason = f"The number is unavailable: {error}."
    return answers.unavailable(reason, is_lasting=error.is_lasting)


def give(
    service: Service,
    form: Form,
    index: int,
    reply: Reply,
    explain: Callable[[OverloadedError], Answer] = _unavailable,
) -> None:
    """Answer the number at ``index`` in this form, now or later; ``explain`` makes a 503."""
    if service.wraps:
        reply(NumberAnswer(form, index, Sequence(index, integers="uint64").current))
        return

    def deliver(found: bytes | OverloadedError) -> None:
        try:
            if isinstance(found, OverloadedError):
                raise found
            service.admission.admit_answer(found)
        except OverloadedError as error:
            shed(service, reply, explain(error))
        else:
            reply(NumberAnswer(form, index, found))

    try:
        service.lookup.find(index, deliver, client_of(reply))
    except OverloadedError as error:
        shed(service, reply, explain(error))


NUMBER: Final = Endpoint(
    "/numbers/{index}",
    ("GET", "HEAD"),
    _look_up,
    answers.NO_STORE,
    REPRESENTATION | CONDITIONS | CORS,
    description=Description(
        "number",
        "Read the number at an index, which never changes.",
        "F(index), which may be cached forever.",
        content_of("number", 55),
        {
            400: Problem(
                "The request is malformed (RFC 9112), or the index is.",
                (_NO_INDEX, answers.bad_request("it has no Host")),
            ),
            404: Problem("The index is past FIB_MAX_INDEX.", (_past(10_000_000),)),
            412: Problem("If-Match does not name this number.", (_UNMATCHED,)),
        },
        {"index": ("From 0 to FIB_MAX_INDEX.", Content(INTEGER, 10))},
        _NUMBER.cache_control,
    ),
)
