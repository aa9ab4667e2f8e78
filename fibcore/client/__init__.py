"""A client that gets each number exactly once, whatever is lost on the way.

    from fibcore import Client

    with Client("http://127.0.0.1:8080") as client:
        number = client.next()  # number.index, number.digits, int(number)

``fibcore.AsyncClient`` is the same for asyncio. ``fibcore.client.calls`` has the logic of both.
"""

from fibcore.client.blocking import Client
from fibcore.client.errors import (
    ClientError,
    KeyAheadError,
    KeyForgottenError,
    LargestIndexError,
    NoAnswerError,
    RejectedError,
    StepInDoubtError,
    UnavailableError,
    UnexpectedReplyError,
)
from fibcore.client.number import Number

__all__ = [
    "Client",
    "ClientError",
    "KeyAheadError",
    "KeyForgottenError",
    "LargestIndexError",
    "NoAnswerError",
    "Number",
    "RejectedError",
    "StepInDoubtError",
    "UnavailableError",
    "UnexpectedReplyError",
]
