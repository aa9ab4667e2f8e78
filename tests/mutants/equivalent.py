"""Mutants that no test can kill, and why: to whoever uses the program they are the same program.

Each is named by its file's name, the line as it is, and the line as the mutant has it, without
what surrounds them.
"""

from typing import Final

__all__ = ["EQUIVALENT"]

TUNING: Final = "a figure that was chosen: one more or less does as well"

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {
    (
        "sqlite.py",
        "raise StoreBusyError(self._path)",
        "pass",
    ): "of an index moved meanwhile: the high-water mark is not set back either, and the commit "
    "that follows fails; where the WAL is held, the tests see it",
    (
        "stepper.py",
        "self._conditional = False",
        "pass",
    ): "the batches to come are looked at one by one, which takes longer and gives the same",
    (
        "admission.py",
        "UNCOUNTED_DIGITS: Final = 4096",
        "UNCOUNTED_DIGITS: Final = 4097",
    ): TUNING,
    (
        "admission.py",
        "UNCOUNTED_DIGITS: Final = 4096",
        "UNCOUNTED_DIGITS: Final = 4095",
    ): TUNING,
}
