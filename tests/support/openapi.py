"""The document that a server serves at ``/openapi.json``, and values that it describes."""

import json
from typing import Any

import jsonschema_rs

from tests.support.servers import Client


class Document:
    """Args: client: of the server, whose document it is."""

    def __init__(self, client: Client) -> None:
        self.whole: dict[str, Any] = json.loads(client.get("/openapi.json").body)
        self.paths: dict[str, dict[str, Any]] = self.whole["paths"]

    def resolved(self, found: Any) -> Any:
        """Return ``found``, or what it refers to."""
        if "$ref" in found:
            _, *keys = found["$ref"].split("/")
            found = self.whole
            for key in keys:
                found = found[key]
        return found

    def response(self, method: str, path: str, status: int | str) -> Any:
        return self.resolved(self.paths[path][method.lower()]["responses"][str(status)])

    def assert_matches(self, schema: Any, value: Any) -> None:
        """Assert that ``value`` matches a schema of the document."""
        known = {**schema, "components": self.whole["components"]}
        jsonschema_rs.Draft202012Validator(known).validate(value)

    def example(self, path: str, media: str = "application/json") -> Any:
        """Return the example of a 200 at this path."""
        content = self.response("get", path, 200)["content"][media]
        return content.get("example") or next(iter(content["examples"].values()))["value"]
