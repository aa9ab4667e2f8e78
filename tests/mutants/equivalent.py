"""Mutants that no test can kill, and why: to whoever uses the program they are the same program.

``EQUIVALENT`` names each by its file's name, the line as it is, and the line as the mutant has it,
without what surrounds them. ``FIGURES`` names lines with a figure that was chosen, of which one
more or less does as well.
"""

import re
from typing import Final

__all__ = ["EQUIVALENT", "FIGURES", "is_equivalent"]


def is_equivalent(file: str, before: str, after: str) -> bool:
    """Whether the mutant is known to be the same program; ``file`` is a name without its folder."""
    if (file, before, after) in EQUIVALENT:
        return True
    figure = re.compile(r"-?\s*\b[\d_]+(?:\.\d+)?\b")
    return (
        (file, before) in FIGURES
        and len(figure.findall(before)) == 1
        and figure.sub("#", after).replace(" ", "") == figure.sub("#", before).replace(" ", "")
    )


FIGURES: Final = {
    ("admission.py", "UNCOUNTED_DIGITS: Final = 4096"),
    ("admission.py", "SHED_AT_ONCE: Final = 50"),
    ("negotiation.py", "MAX_FIELD: Final = 1024"),
    ("negotiation.py", "@functools.lru_cache(maxsize=256)"),
}

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {
    (
        "sqlite.py",
        "raise StoreBusyError(self._path)",
        "pass",
    ): "of an index that was moved meanwhile: the high-water mark is not set back either, and the "
    "commit that follows fails; where the WAL is held, the tests see it",
    (
        "stepper.py",
        "self._conditional = False",
        "pass",
    ): "the batches to come are looked at one by one, which takes longer and gives the same",
    (
        "negotiation.py",
        "@functools.lru_cache(maxsize=256)",
        "",
    ): "what is kept is what would be found again",
    (
        "negotiation.py",
        "qualities = {Representation.JSON: 0.0, Representation.TEXT: 0.0}",
        "qualities = {Representation.JSON: 0.0, Representation.TEXT: -1.0}",
    ): "text that is not named is not above the least that JSON may be, 0",
    (
        "negotiation.py",
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, -1)',
        'specificity = {"*/*": 0, kind: 1, exact: 3}.get(name, -1)',
    ): "their order counts",
    (
        "negotiation.py",
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, -1)',
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, - 2)',
    ): "their order counts",
    (
        "settings.py",
        "number = -1.0",
        "number = - 2.0",
    ): "either is below every bound",
    (
        "settings.py",
        "_whole(1, MAX_INDEX),",
        "_whole( 2, MAX_INDEX),",
    ): "this setting is read by its kind of integer, and that of the table by nobody",
    (
        "settings.py",
        "_whole(1, MAX_INDEX),",
        "_whole( 0, MAX_INDEX),",
    ): "this setting is read by its kind of integer, and that of the table by nobody",
    (
        "settings.py",
        "@dataclass(frozen=True, kw_only=True)",
        "@dataclass(frozen=True, kw_only=False)",
    ): "whoever makes one names each",
}
