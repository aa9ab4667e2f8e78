"""``/current``: the number that the sequence is at."""

from typing import Final

from web.endpoints.sequence import CONDITION_FAILED, content_of, read
from web.http import answers
from web.http.answers import Number
from web.http.origins import CORS
from web.http.request import CONDITIONS, REPRESENTATION
from web.http.routing import Description, Endpoint

_NUMBER: Final = Number(b"current", answers.NO_CACHE)

CURRENT: Final = Endpoint(
    "/current",
    ("GET", "HEAD"),
    read(_NUMBER, lambda snapshot: snapshot.current),
    _NUMBER.cache_control,
    REPRESENTATION | CONDITIONS | CORS,
    has_index=True,
    description=Description(
        "current",
        "Read the current number.",
        "F(n).",
        content_of("current", 5),
        CONDITION_FAILED,
    ),
)
