"""``/previous``: the number before it."""

from typing import Final

from web.endpoints.sequence import CONDITION_FAILED, content_of, read
from web.http import answers
from web.http.answers import Number
from web.http.origins import CORS
from web.http.request import CONDITIONS, REPRESENTATION
from web.http.routing import Description, Endpoint

_NUMBER: Final = Number(b"previous", answers.NO_CACHE)

PREVIOUS: Final = Endpoint(
    "/previous",
    ("GET", "HEAD"),
    read(_NUMBER, lambda snapshot: snapshot.previous),
    _NUMBER.cache_control,
    REPRESENTATION | CONDITIONS | CORS,
    has_index=True,
    description=Description(
        "previous",
        "Read the number before the current one.",
        "F(n - 1); 0 at n = 0.",
        content_of("previous", 3),
        CONDITION_FAILED,
    ),
)
