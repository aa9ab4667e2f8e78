"""What the headers of a request ask for: conditions, a representation, a prefetch."""

import enum
import re
from collections.abc import Iterable
from typing import Final

__all__ = ["EntityTags", "Representation", "is_prefetch", "preferred"]


class Representation(enum.Enum):
    """The forms in which a number is served."""

    JSON = b"application/json"
    TEXT = b"text/plain; charset=utf-8"


_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_SEPARATOR: Final = re.compile(r"[ \t]*(?:,[ \t,]*|$)")


class EntityTags:
    """The entity tags of an ``If-Match`` or ``If-None-Match`` field: RFC 9110, 8.8.3 and 13.1.

    Our own tags are strong and hold the index in decimal.
    """

    __slots__ = ("any", "malformed", "strong", "weak")

    def __init__(self, values: Iterable[str]) -> None:
        self.any = False
        self.malformed = False
        self.strong: set[str] = set()
        self.weak: set[str] = set()
        field = ", ".join(values).strip(" \t")
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
            (self.weak if tag[1] else self.strong).add(tag[2])
            at = end.end()

    def match_strongly(self, index: int) -> bool:
        """Tell whether the state at ``index`` is one of these, for ``If-Match``."""
        return not self.malformed and (self.any or str(index) in self.strong)

    def match_weakly(self, index: int) -> bool:
        """Tell whether the state at ``index`` is one of these, for ``If-None-Match``."""
        tag = str(index)
        return not self.malformed and (self.any or tag in self.strong or tag in self.weak)


def preferred(accept: Iterable[str]) -> Representation:
    """Choose the representation for an ``Accept`` field: RFC 9110, 12.5.1.

    JSON is the default: it is given on a tie, and where neither is acceptable.
    """
    qualities = {Representation.JSON: 0.0, Representation.TEXT: 0.0}
    precedence = {Representation.JSON: -1, Representation.TEXT: -1}
    for item in ",".join(accept).split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = _quality(parameters)
        for representation, kind, exact in (
            (Representation.JSON, "application/*", "application/json"),
            (Representation.TEXT, "text/*", "text/plain"),
        ):
            specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, -1)
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
    """Tell whether a ``Sec-Purpose`` or ``Purpose`` field marks a request nobody asked for yet.

    See https://fetch.spec.whatwg.org/#sec-purpose-header.
    """
    return any("prefetch" in re.split(r"[,; \t]+", purpose.lower()) for purpose in purposes)
