"""What the answers that are no numbers look like, as JSON Schema has it: for ``/openapi.json``.

What each member of ``/status`` is stands here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

INTEGER: Final[Schema] = {"type": "integer", "minimum": 0}
POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1}
NUMBER: Final[Schema] = {"type": "number", "minimum": 0}
TEXT: Final[Schema] = {"type": "string"}
INDEX: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
YES: Final[Schema] = {"type": "boolean"}


def structure(
    members: Mapping[str, Schema], *, optional: Mapping[str, Schema] | None = None, text: str = ""
) -> Schema:
    """An object that has all of ``members``, perhaps those that are ``optional``, and no other."""
    return {
        "type": "object",
        **({"description": text} if text else {}),
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def one_of(*values: str) -> Schema:
    """One of these strings."""
    return {"type": "string", "enum": list(values)}


def _or_null(schema: Schema) -> Schema:
    if "enum" in schema:
        return {**schema, "type": ["string", "null"], "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def _said(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


def _many(items: Schema, text: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": text} if text else {})}


def _histogram(text: str) -> Schema:
    return structure(
        {
            "bounds": _many(NUMBER, "The upper bounds of the buckets."),
            "counts": _many(INTEGER, "How many fell into each, and one more past the last."),
            "sum": NUMBER,
        },
        text=text,
    )


PROBLEM: Final = structure(
    {
        "type": {"const": "about:blank"},
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _said(TEXT, "What happened, what it means for the sequence, what to do."),
    },
    optional={
        "index": _said(INTEGER, "Where the sequence stands."),
        "key": _said(
            one_of("malformed", "outstanding", "dropped", "ahead"),
            "What is wrong with Idempotency-Key, if it is that.",
        ),
    },
    text="RFC 9457. A request that gets one has not stepped, unless it is a 500, which says so.",
)

HEALTHY: Final = structure(
    {"status": {"const": "healthy"}},
    optional={"warnings": _many(TEXT, "What a shared store may lose of what was answered.")},
)

SHED: Final = ("waiting", "in_flight", "connections", "pages", "numbers")

STATUS: Final = structure(
    {
        "now": _said(NUMBER, "When this was said."),
        "version": _said(TEXT, "Of the appliance."),
        "healthy": _said(YES, "Whether the store can be used."),
        "complaint": _said(_or_null(TEXT), "Why it can't, a sentence."),
        "index": _said(
            _or_null(INDEX),
            "Where the sequence stands; null before the store was opened. A string, as the numbers "
            "of JavaScript end at 2^53.",
        ),
        "digits": _said(_or_null(POSITIVE), "How many the current number has."),
        "first": _said(_or_null(TEXT), "Up to 60 of them, from the beginning."),
        "last": _said(_or_null(TEXT), "Up to 60 of those behind these, from the end."),
        "max_index": _said(INDEX, "The largest index that a step may lead to."),
        "steps": _said(INTEGER, "How many were committed by this process."),
        "reads": _said(
            INTEGER, "How many times /current, /previous and /numbers were answered well."
        ),
        "rejected": _said(INTEGER, "How many requests were answered 4xx."),
        "unavailable": _said(INTEGER, "How many requests were answered 503."),
        "shed": structure(
            dict.fromkeys(SHED, INTEGER), text="Of the latter, by the bound that was reached."
        ),
        "batches": _or_null(_histogram("Of the steps of each commit.")),
        "commit": _or_null(_histogram("Of how long each commit took.")),
        "latency": _or_null(
            _histogram("Of how long the first step of each batch waited for its answer.")
        ),
        "waiting": structure(
            {"steps": INTEGER, "limit": POSITIVE}, text="Steps that wait for their commit now."
        ),
        "keys": structure(
            {"kept": _or_null(INTEGER), "limit": POSITIVE, "repeated": INTEGER},
            text="Idempotency keys: how many are kept, where that is known; of how many steps the "
            "last ones are kept; and answers that were given again for one.",
        ),
        "lookups": structure(
            {"numbers": INTEGER, "limit": POSITIVE},
            text="Numbers that wait to be worked out for /numbers.",
        ),
        "in_flight": structure(
            {"bytes": INTEGER, "limit": POSITIVE}, text="Of answers not yet sent."
        ),
        "connections": structure(
            {"open": INTEGER, "accepted": INTEGER, "limit": POSITIVE},
            text="Open now, and accepted so far.",
        ),
        "memory": structure({"bytes": POSITIVE}, text="Resident, of this process."),
        "process": structure(
            {"pid": POSITIVE, "began": NUMBER, "uptime": NUMBER},
            text="What serves: since when, and for how long.",
        ),
        "takeovers": structure(
            {
                "number": _said(INTEGER, "Since the database was made."),
                "at": _said(_or_null(NUMBER), "When the last one was."),
                "after": _said(
                    _or_null(one_of("stopped", "failed", "hung", "killed")),
                    "The server before was told to stop, ended because a commit failed, was ended "
                    "by the watchdog, or was killed or has crashed.",
                ),
                "seconds": _said(
                    _or_null(NUMBER),
                    "From the last answer of the server before, as far as that is known.",
                ),
            }
        ),
        "backup_copy": _or_null(structure({"at": NUMBER}, text="When it was last made.")),
        "store": structure(
            {
                "kind": _said(TEXT, "Such as sqlite."),
                "sequence": _said(_or_null(TEXT), "Its name, in a store that is shared."),
                "synchronous": _said(_or_null(TEXT), "The durability of a store that is a file."),
                "integers": one_of("exact", "uint64"),
                "warnings": _many(TEXT, "What a shared one may lose of what was answered."),
            }
        ),
        "standby": _said(
            {"type": ["boolean", "null"]},
            "Whether a process stands by; null where that can't be known.",
        ),
    },
    text="Times are in seconds, moments in seconds since 1970. What only grows counts from when "
    "this process began.",
)

STATUS_EXAMPLE: Final[Mapping[str, Any]] = {
    "now": 1795569849.7,
    "version": "1.0.0",
    "healthy": True,
    "complaint": None,
    "index": "8",
    "digits": 2,
    "first": "21",
    "last": "",
    "max_index": "10000000",
    "steps": 1,
    "reads": 3,
    "rejected": 0,
    "unavailable": 0,
    "shed": dict.fromkeys(SHED, 0),
    "batches": {"bounds": [1.0, 2.0], "counts": [1, 0, 0], "sum": 1.0},
    "commit": {"bounds": [0.0005, 0.001], "counts": [1, 0, 0], "sum": 0.00046},
    "latency": {"bounds": [0.001, 0.0025], "counts": [0, 1, 0], "sum": 0.0018},
    "waiting": {"steps": 0, "limit": 1500},
    "keys": {"kept": 12, "limit": 10000, "repeated": 1},
    "lookups": {"numbers": 0, "limit": 64},
    "in_flight": {"bytes": 0, "limit": 67108864},
    "connections": {"open": 1, "accepted": 4, "limit": 2000},
    "memory": {"bytes": 40165376},
    "process": {"pid": 4711, "began": 1795569789.7, "uptime": 60.0},
    "takeovers": {"number": 1, "at": 1795569789.7, "after": "killed", "seconds": 0.012},
    "backup_copy": {"at": 1795569846.2},
    "store": {
        "kind": "sqlite",
        "sequence": None,
        "synchronous": "full",
        "integers": "exact",
        "warnings": [],
    },
    "standby": True,
}
