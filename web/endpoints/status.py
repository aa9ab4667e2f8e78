"""``/status``: the record of ``web.endpoints.record`` as JSON, for a page that polls it."""

import json
from typing import Final

from web.endpoints.record import Status, gather
from web.endpoints.schemas import example_of, schema_of
from web.http import answers
from web.http.answers import Answer
from web.http.origins import CORS
from web.http.request import Reply, Request
from web.http.routing import Content, Description, Endpoint
from web.service import Service


def _status(service: Service, request: Request, reply: Reply) -> None:  # noqa: ARG001
    """Answer the record, at most a quarter of a second old."""

    def make() -> Answer:
        return answers.ok(b"application/json", json.dumps(gather(service), default=vars).encode())

    reply(service.renderings.answer("status", make))


STATUS: Final = Endpoint(
    "/status",
    ("GET", "HEAD"),
    _status,
    answers.NO_CACHE,
    CORS,
    description=Description(
        "status",
        "Current status of the appliance.",
        "The status, at most a quarter of a second old.",
        {"application/json": Content(schema_of(Status), example_of(Status))},
    ),
)
