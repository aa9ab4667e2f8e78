"""The meaning of request headers: conditions, representation, prefetch.

Each field is bounded and parsed in linear time: no header costs the event loop milliseconds.
"""

import enum
import functools
import re
from collections.abc import Iterable
from typing import Final

MAX_FIELD: Final = 1024
"""Characters. A longer ``Accept`` is ignored; a longer list of tags is malformed."""

MAX_ITEMS: Final = 64
"""Items of a list and their parameters together, since parsing time grows with their number. A list
with more is treated like one with too many characters."""


class Representation(enum.Enum):
    """The forms in which a number is served."""

    JSON = b"application/json"
    TEXT = b"text/plain; charset=utf-8"


_OPAQUE: Final = r"[\x21\x23-\x7e\x80-\xff]*"
_TAG: Final = re.compile(f'(W/)?"({_OPAQUE})"')
_SEPARATOR: Final = re.compile(r"[ \t]*(?:,[ \t,]*|$)")
_INDEX: Final = re.compile(r"(0|[1-9]\d{0,18})(?:-uint64)?(?:-text)?", re.ASCII)
"""Our own tags, of whichever representation: see ``web.http.answers.Form``."""
_SINGLE: Final = re.compile(f'"({_INDEX.pattern}|{_OPAQUE})"', re.ASCII)


class EntityTags:
    """The entity tags of an ``If-Match`` or ``If-None-Match`` field: RFC 9110, 8.8.3 and 13.1."""

    __slots__ = ("any", "indexes", "malformed", "tags")

    def __init__(self, values: Iterable[str]) -> None:
        self.any = False
        self.malformed = False
        self.tags: set[str] = set()
        """The opaque parts of strong and weak tags."""
        self.indexes: set[int] = set()
        """The indexes that strong tags of ours name, of whichever representation."""
        field = ", ".join(values).strip(" \t")
        if len(field) > MAX_FIELD or field.count(",") >= MAX_ITEMS:
            self.malformed = True
            return
        single = _SINGLE.fullmatch(field)
        if single is not None:
            # The usual case: a single tag, ours or another server's.
            self.tags.add(single[1])
            if single[2]:
                self.indexes.add(int(single[2]))
            return
        if field == "*":
            self.any = True
            return
        at = len(field) - len(field.lstrip(", \t"))
        while at < len(field):
            tag = _TAG.match(field, at)
            end = _SEPARATOR.match(field, tag.end()) if tag else None
            if tag is None or end is None:
                self.malformed = True
                return
            weak, opaque = tag.groups()
            self.tags.add(opaque)
            index = _INDEX.fullmatch(opaque)
            if index is not None and not weak:
                self.indexes.add(int(index[1]))
            at = end.end()

    def name(self, index: int) -> bool:
        """Whether these tags match ``index``, for ``If-Match``.

        Strong comparison. The tag of any representation matches: the client means the index.
        """
        return not self.malformed and (self.any or index in self.indexes)

    def hold(self, tag: str) -> bool:
        """Whether ``tag`` is one of these, for ``If-None-Match``. Weak comparison."""
        return not self.malformed and (self.any or tag in self.tags)


def list_of(lines: Iterable[str]) -> str:
    """A list field, its lines joined; empty if it exceeds the bounds."""
    field = ",".join(lines)
    items = field.count(",") + field.count(";")
    return "" if len(field) > MAX_FIELD or items >= MAX_ITEMS else field


@functools.lru_cache(maxsize=256)
def preferred(accept: str) -> Representation:
    """Choose the representation for an ``Accept`` field of ``list_of``: RFC 9110, 12.5.1.

    JSON is the default, for a tie and if neither is acceptable. Cached, since a client repeats the
    field while the rest of its head varies.
    """
    qualities = {
        Representation.JSON: 0.0,
        Representation.TEXT: 0.0,
    }
    precedence = {Representation.JSON: -1, Representation.TEXT: -1}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = _quality(parameters)
        for representation, kind, exact in (
            (Representation.JSON, "application/*", "application/json"),
            (Representation.TEXT, "text/*", "text/plain"),
        ):
            specificity = {
                "*/*": 0,
                kind: 1,
                exact: 2,
            }.get(name, -1)
            if specificity > precedence[representation]:
                precedence[representation] = specificity
                qualities[representation] = quality
    text_wins = qualities[Representation.TEXT] > qualities[Representation.JSON]
    return Representation.TEXT if text_wins else Representation.JSON


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if re.fullmatch(r"q=(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", parameter):
            return float(parameter[2:])
    return 1.0


def is_prefetch(purposes: Iterable[str]) -> bool:
    """Whether a ``Sec-Purpose`` field or one of its predecessors marks a prefetch.

    See https://fetch.spec.whatwg.org/#sec-purpose-header. ``preview`` is what Safari sends for the
    thumbnails of its start page.
    """
    return any(_PREFETCH.search(purpose.lower()) for purpose in purposes)


_PREFETCH: Final = re.compile(r"(?<![^,; \t])(?:prefetch|preview)(?![^,; \t])")
