"""Self-describing records: JSON Schema and an example, generated from a dataclass's members."""

from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

Schema: TypeAlias = dict[str, Any]

INTEGER: Final[Schema] = {"type": "integer", "minimum": 0}
NATURAL: Final = "^(0|[1-9][0-9]*)$"
"""The pattern of an index as text: JavaScript's numbers are exact only up to 2^53."""

_PLAIN: Final[Mapping[object, Schema]] = {
    bool: {"type": "boolean"},
    int: INTEGER,
    float: {"type": "number", "minimum": 0},
    str: {"type": "string"},
}


def member(
    description: str,
    example: object = MISSING,
    *,
    metric: str | None = None,
    name: str | None = None,
    labels: tuple[str, ...] = (),
    **schema: object,
) -> Any:
    """A member of a record, which is a dataclass.

    Args:
        description: for people; also the help text of its metric.
        example: an example value; a member that is a record needs none.
        metric: the type of its metric, if it has one: counter, gauge, histogram or info.
        name: of that metric, without its prefix; by default the member's.
        labels: of that metric: the keys of the value, by level, or else a member beside it.
        schema: keywords that its JSON Schema has besides those of its type.
    """
    common = {"description": description, "example": example, "schema": schema}
    return field(metadata={**common, "metric": metric, "name": name, "labels": labels})


gauge: Final = partial(member, metric="gauge")
counter: Final = partial(member, metric="counter")
histogram: Final = partial(member, metric="histogram")


def schema_of(kind: Any) -> Schema:
    """The JSON Schema of a record or of a member's type."""
    options = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return _or_null(schema_of(next(each for each in options if each is not NoneType)))
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(options)}
    if get_origin(kind) in (list, tuple):
        return {"type": "array", "items": schema_of(options[0])}
    if get_origin(kind) is dict:
        keys, value = schema_of(options[0]), schema_of(options[1])
        if "enum" in keys:
            return structure(dict.fromkeys(keys["enum"], value))
        return {"type": "object", "additionalProperties": value}
    if not is_dataclass(kind):
        return _PLAIN[kind]
    hints = get_type_hints(kind)
    members = {
        each.name: {
            **schema_of(hints[each.name]),
            **each.metadata["schema"],
            "description": each.metadata["description"],
        }
        for each in fields(kind)
    }
    return structure(members, text=kind.__doc__ or "")


def example_of(kind: Any) -> Any:
    """An example of a record, made of its members' examples."""
    hints = get_type_hints(kind)
    return {
        each.name: example_of(_record(hints[each.name])) if shown is MISSING else shown
        for each in fields(kind)
        for shown in [each.metadata["example"]]
    }


def structure(
    members: Mapping[str, Schema], *, optional: Mapping[str, Schema] | None = None, text: str = ""
) -> Schema:
    """An object with all of ``members``, any of ``optional``, and no others."""
    return {
        "type": "object",
        **({"description": text} if text else {}),
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if "enum" in schema:
        schema = {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def _record(kind: Any) -> Any:
    return next((each for each in get_args(kind) if is_dataclass(each)), kind)
