"""Models of the rules of the shared batch, of keys and of the takeover; SPIN tries every order.

    spin -a -DSCRIPT tests/models/batch.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan

After a failure, for example with ``-DWITHOUT_...``, ``spin -t -p`` with the same macros prints the
steps that lead to it.
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
        "WITHOUT_ASKING_AGAIN",
        "WITHOUT_CONDITIONS",
        "WITHOUT_ABANDONING_A_NAME",
        "WITHOUT_CREATING_THE_RECORD_ONCE",
        "WITHOUT_SILENCE_IN_DOUBT",
        "WITHOUT_THE_INDEX_IN_THE_RECORD",
        "WITHOUT_USING_THE_NUMBER_UP",
    ),
    "batch SCRIPT": (
        "WITHOUT_REQUIRING_THE_RECORD",
        "WITHOUT_COMPARING_NUMBERS",
        "WITHOUT_NUMBERS_OF_SETTLEMENTS",
    ),
    "batch STATEMENT": (
        "WITHOUT_REQUIRING_THE_RECORD",
        "WITHOUT_COMPARING_NUMBERS",
        "WITHOUT_NUMBERS_OF_SETTLEMENTS",
    ),
    "batch REVISIONS": ("WITHOUT_DOUBTING_ERRORS", "WITHOUT_THE_REVISION_OF_THE_INDEX"),
    "keys": (
        "WITHOUT_STORING_THE_KEY_IN_THE_COMMIT",
        "WITHOUT_RECORDING_DROPPED",
        "WITHOUT_REJECTING_KEYS_AHEAD",
        "WITHOUT_REJECTING_DROPPED_KEYS",
    ),
    "keys SCRIPT": ("WITHOUT_KEY_LOOKUP",),
    "keys STATEMENT": ("WITHOUT_A_UNIQUE_KEY",),
    "keys REVISIONS": (
        "WITHOUT_KEY_LOOKUP",
        "WITHOUT_READING_KEYS_OF_OTHERS",
        "WITHOUT_THE_REVISION_OF_DROPPED",
        "WITHOUT_THE_REVISION_OF_THE_INDEX",
    ),
    "takeover": (
        "WITHOUT_FAIL_STOP",
        "WITHOUT_EXPECTING_THE_INDEX",
        "WITHOUT_SYNCS",
        "WITHOUT_THE_LOCK",
        "WITHOUT_THE_MARK",
        "WITHOUT_REWRITING",
        "WITH_THE_ANSWER_FIRST",
        "WITH_THE_MARK_FIRST",
    ),
    # Without the lock a commit must still name its index.
    "takeover WITH_A_DELETED_LOCK": ("WITHOUT_EXPECTING_THE_INDEX",),
}
"""The parts of each model's rule. The parts of ``batch`` and ``keys`` belong to every variant."""

MODELLED: Final = [each for each in RULES if each not in ("batch", "keys")]
"""Each model with its variant's macro."""


def parts_of(model: str) -> list[str]:
    """Return all parts of the rule of a model and its variant."""
    name, _, variant = model.partition(" ")
    of_all = () if variant and name == "takeover" else RULES[name]
    return [*of_all, *(RULES[model] if variant else ())]


def violations(folder: Path, model: str, *macros: str) -> int:
    """Return how many assertions fail in ``model``: 0 or 1, as the search stops at the first."""
    source = MODELS / f"{model}.pml"
    defined = [f"-D{macro}" for macro in macros]
    run([program("spin"), "-a", *defined, str(source)], folder)
    # A violation is found quickly: optimizing would take longer than the search.
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
    "2", "the rules of batches, keys and takeovers, in every order of steps and faults"
)
@pytest.mark.long
@pytest.mark.parametrize("model", MODELLED)
def test_the_rules_keep_the_promises_in_every_order(tmp_path: Path, model: str) -> None:
    assert violations(tmp_path, *model.split()) == 0


@pytest.mark.proves(
    "2",
    "the rules of batches…",
    control="without any one part of a rule, an assertion fails",
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
