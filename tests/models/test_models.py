"""The rules of the shared batch, of keys and of the takeover, as models: SPIN tries every order.

    spin -a -DSCRIPT tests/models/batch.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan

With ``-DWITHOUT_...`` as well, ``spin -t -p`` with the same macros then shows how it goes wrong.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.requires import program

pytestmark = pytest.mark.processes

MODELS: Final = Path(__file__).parent

RULES: Final = {
    "batch": (
        "WITHOUT_ASKING",
        "WITHOUT_CONDITIONS",
        "WITHOUT_GIVING_A_NAME_UP",
        "WITHOUT_MAKING_THE_RECORD_ONCE",
        "WITHOUT_ONE_NUMBER",
        "WITHOUT_SILENCE_IN_DOUBT",
        "WITHOUT_THE_INDEX_IN_THE_RECORD",
    ),
    "batch SCRIPT": ("WITHOUT_A_RECORD_NO_BATCH", "WITHOUT_NUMBERS"),
    "batch STATEMENT": ("WITHOUT_A_RECORD_NO_BATCH", "WITHOUT_NUMBERS"),
    "batch REVISIONS": ("WITHOUT_DOUBT_ABOUT_ERRORS", "WITHOUT_THE_REVISION_OF_THE_INDEX"),
    "keys": (
        "WITHOUT_KEEPING_IT_IN_THE_COMMIT",
        "WITHOUT_NOTING_WHAT_IS_DROPPED",
        "WITHOUT_REJECTING_WHAT_IS_AHEAD",
        "WITHOUT_REJECTING_WHAT_IS_DROPPED",
    ),
    "keys SCRIPT": ("WITHOUT_LOOKING_IT_UP",),
    "keys STATEMENT": ("WITHOUT_A_UNIQUE_KEY",),
    "keys REVISIONS": (
        "WITHOUT_LOOKING_IT_UP",
        "WITHOUT_READING_THE_KEYS_OF_OTHERS",
        "WITHOUT_THE_REVISION_OF_DROPPED",
        "WITHOUT_THE_REVISION_OF_THE_INDEX",
    ),
    "takeover": (
        "WITHOUT_FAIL_STOP",
        "WITHOUT_NAMING_THE_INDEX",
        "WITHOUT_SYNCS",
        "WITHOUT_THE_LOCK",
        "WITHOUT_THE_MARK",
        "WITHOUT_WRITING_AGAIN",
        "WITH_THE_ANSWER_FIRST",
        "WITH_THE_MARK_FIRST",
    ),
    # Where the lock is deleted a commit must name its index.
    "takeover WITH_A_DELETED_LOCK": ("WITHOUT_NAMING_THE_INDEX",),
}
"""The parts of the rules of each model; those of a batch and of keys hold for each engine's rule,
which has parts of its own."""

MODELLED: Final = [each for each in RULES if each not in ("batch", "keys")]
"""Each model, with the macros of its variant."""


def parts_of(model: str) -> list[str]:
    """All parts of the rules of a model and its variant."""
    name, _, variant = model.partition(" ")
    of_all = () if variant and name == "takeover" else RULES[name]
    return [*of_all, *(RULES[model] if variant else ())]


def violations(folder: Path, model: str, *macros: str) -> int:
    """How many assertions fail in ``model``: 1 at the most, as the search ends there."""
    source = MODELS / f"{model}.pml"
    defined = [f"-D{macro}" for macro in macros]
    run([program("spin"), "-a", *defined, str(source)], folder)
    # Where there is something to find it is found at once, and to compile it takes longer.
    optimized = "-O0" if any(macro.startswith("WITHOUT") for macro in macros) else "-O2"
    run([program("gcc"), optimized, "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], folder)
    found = run(["./pan", "-m100000"], folder)
    errors = int(re.findall(r"errors: (\d+)", found)[0])
    assert errors == found.count("assertion violated"), found
    assert errors or "Search not completed" not in found, found
    assert "max search depth too small" not in found
    return errors


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.proves(
    "2", "the rules of the batch, of keys and of the takeover, in every order of steps and faults"
)
@pytest.mark.long
@pytest.mark.parametrize("model", MODELLED)
def test_the_rules_keep_the_promises_in_every_order(tmp_path: Path, model: str) -> None:
    """Whatever is lost, late, killed, removed or dropped, and whatever the disk does."""
    assert violations(tmp_path, *model.split()) == 0


@pytest.mark.proves(
    "2", "the rules of the batch, of keys…", control="each part of these rules taken away"
)
@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "without"), [(model, each) for model in MODELLED for each in parts_of(model)]
)
def test_each_part_of_the_rules_is_needed(tmp_path: Path, model: str, without: str) -> None:
    assert violations(tmp_path, *model.split(), without) == 1


@pytest.mark.parametrize("model", ["batch", "keys", "takeover"])
def test_every_macro_of_a_model_is_tried(model: str) -> None:
    named = set(re.findall(r"\bWITH(?:OUT)?_[A-Z_]+\b", (MODELS / f"{model}.pml").read_text()))
    words = (
        word
        for key, parts in RULES.items()
        if key.startswith(model)
        for word in (*key.split(), *parts)
    )
    assert named - {"WITHOUT_", "WITH_"} == {each for each in words if each.startswith("WITH")}
