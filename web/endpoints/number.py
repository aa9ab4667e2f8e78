"""``/numbers/{index}``: the number at any index, which is the same for ever."""

import re
from typing import Final

from fibcore import Sequence
from fibcore.admission import OverloadedError
from fibcore.numbers.outline import outline
from web.http import answers
from web.http.answers import Form, Number, NumberAnswer, PlainAnswer
from web.http.request import Reply, Request, client_of
from web.service import Service

NUMBER: Final = Number(b"number", answers.FOR_EVER)

INDEX: Final = re.compile("0|[1-9][0-9]*")
"""As it is written in one way only, so that a cache keeps each number once."""

MOST_DIGITS: Final = 19
"""Of an index: 2^63 - 1 has so many."""

UNMOVED: Final = "Nothing has stepped."
NO_INDEX: Final = (
    "What stands behind /numbers/ is no index: that is a whole number from 0 on, in digits alone, "
    f"without zeros before it. {UNMOVED}"
)


def look_up(service: Service, request: Request, reply: Reply) -> None:
    """Answer the number at the index in the path, from 0 to ``FIB_MAX_INDEX``."""
    text, largest = request.parameters["index"], service.settings.max_index
    if INDEX.fullmatch(text) is None:
        reply(answers.problem(400, NO_INDEX))
        return
    index = int(text) if len(text) <= MOST_DIGITS else largest + 1
    if index > largest:
        why = f"The largest index here is {largest} (FIB_MAX_INDEX). {UNMOVED}"
        reply(answers.problem(404, why))
        return
    form = NUMBER.form(index, request.representation, service.wraps)
    if request.if_match is not None and not request.if_match.name(index):
        reply(answers.problem(412, f"If-Match does not name this number. {UNMOVED}"))
    elif request.if_none_match is not None and request.if_none_match.hold(form.tag(index)):
        reply(form.not_modified(index))
    elif request.method == "HEAD" and not service.wraps:
        reply(PlainAnswer(200, form.headers_of(index, outline(index).digits)))
    else:
        give(service, form, index, reply)


def give(
    service: Service,
    form: Form,
    index: int,
    reply: Reply,
    failed: str = "The server has reached a bound",
) -> None:
    """Answer the number at ``index`` in this form, now or later; ``failed`` is said with a 503."""
    if service.wraps:
        reply(NumberAnswer(form, index, Sequence(index, integers="uint64").current))
        return

    def deliver(found: bytes | OverloadedError) -> None:
        try:
            if isinstance(found, OverloadedError):
                raise found
            service.admission.admit_answer(found)
        except OverloadedError as error:
            shed(error)
        else:
            reply(NumberAnswer(form, index, found))

    def shed(error: OverloadedError) -> None:
        answer = answers.unavailable(f"{failed}: {error}.")
        service.admission.pace.submit(lambda: reply(answer))

    try:
        service.lookup.find(index, deliver, client_of(reply))
    except OverloadedError as error:
        shed(error)
