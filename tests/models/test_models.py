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

OF_A_BATCH: Final = (
    "WITHOUT_ASKING",
    "WITHOUT_CONDITIONS",
    "WITHOUT_GIVING_A_NAME_UP",
    "WITHOUT_MAKING_THE_RECORD_ONCE",
    "WITHOUT_ONE_NUMBER",
    "WITHOUT_SILENCE_IN_DOUBT",
    "WITHOUT_THE_INDEX_IN_THE_RECORD",
)
OF_A_BATCH_ALONE: Final = {
    "SCRIPT": ("WITHOUT_A_RECORD_NO_BATCH", "WITHOUT_NUMBERS"),
    "STATEMENT": ("WITHOUT_A_RECORD_NO_BATCH", "WITHOUT_NUMBERS"),
    "REVISIONS": ("WITHOUT_DOUBT_ABOUT_ERRORS", "WITHOUT_THE_REVISION_OF_THE_INDEX"),
}
"""The engines' rules, and the parts that each has besides."""

OF_KEYS: Final = (
    "WITHOUT_KEEPING_IT_IN_THE_COMMIT",
    "WITHOUT_NOTING_WHAT_IS_DROPPED",
    "WITHOUT_REJECTING_WHAT_IS_AHEAD",
    "WITHOUT_REJECTING_WHAT_IS_DROPPED",
)
OF_KEYS_ALONE: Final = {
    "SCRIPT": ("WITHOUT_LOOKING_IT_UP",),
    "STATEMENT": ("WITHOUT_A_UNIQUE_KEY",),
    "REVISIONS": (
        "WITHOUT_LOOKING_IT_UP",
        "WITHOUT_READING_THE_KEYS_OF_OTHERS",
        "WITHOUT_THE_REVISION_OF_DROPPED",
        "WITHOUT_THE_REVISION_OF_THE_INDEX",
    ),
}

OF_A_TAKEOVER: Final = (
    "WITHOUT_FAIL_STOP",
    "WITHOUT_NAMING_THE_INDEX",
    "WITHOUT_SYNCS",
    "WITHOUT_THE_LOCK",
    "WITHOUT_THE_MARK",
    "WITHOUT_WRITING_AGAIN",
    "WITH_THE_ANSWER_FIRST",
    "WITH_THE_MARK_FIRST",
)


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
@pytest.mark.parametrize("engine", OF_A_BATCH_ALONE)
def test_a_batch_happens_once_and_what_is_said_of_it_is_true(tmp_path: Path, engine: str) -> None:
    """Whatever is lost, late, killed or removed, in every order."""
    assert violations(tmp_path, "batch", engine) == 0


@pytest.mark.proves(
    "2", "the rules of the batch, of keys…", control="each part of these rules taken away"
)
@pytest.mark.parametrize(
    ("engine", "without"),
    [
        (engine, each)
        for engine, alone in OF_A_BATCH_ALONE.items()
        for each in (*OF_A_BATCH, *alone)
    ],
)
def test_each_part_of_the_rule_of_the_batch_is_needed(
    tmp_path: Path, engine: str, without: str
) -> None:
    assert violations(tmp_path, "batch", engine, without) == 1


@pytest.mark.proves("2", "the rules of the batch, of keys…")
@pytest.mark.long
@pytest.mark.parametrize("engine", OF_KEYS_ALONE)
def test_a_key_makes_one_step_whoever_is_asked_and_however_late(
    tmp_path: Path, engine: str
) -> None:
    """On two nodes, while keys are dropped, in every order."""
    assert violations(tmp_path, "keys", engine) == 0


@pytest.mark.proves(
    "2", "the rules of the batch, of keys…", control="each part of these rules taken away"
)
@pytest.mark.parametrize(
    ("engine", "without"),
    [(engine, each) for engine, alone in OF_KEYS_ALONE.items() for each in (*OF_KEYS, *alone)],
)
def test_each_part_of_the_rule_of_keys_is_needed(tmp_path: Path, engine: str, without: str) -> None:
    assert violations(tmp_path, "keys", engine, without) == 1


@pytest.mark.proves("2", "the rules of the batch, of keys…")
@pytest.mark.long
@pytest.mark.parametrize("fault", [(), ("WITH_A_DELETED_LOCK",)], ids=["a lock", "a deleted lock"])
def test_the_index_never_falls_in_any_takeover(tmp_path: Path, fault: tuple[str, ...]) -> None:
    """Whoever is killed, whatever the disk does, in every order."""
    assert violations(tmp_path, "takeover", *fault) == 0


@pytest.mark.proves(
    "2", "the rules of the batch, of keys…", control="each part of these rules taken away"
)
@pytest.mark.parametrize("without", OF_A_TAKEOVER)
def test_each_part_of_the_rule_of_the_takeover_is_needed(tmp_path: Path, without: str) -> None:
    assert violations(tmp_path, "takeover", without) == 1


@pytest.mark.proves(
    "2", "the rules of the batch, of keys…", control="each part of these rules taken away"
)
def test_where_the_lock_is_deleted_a_commit_must_name_its_index(tmp_path: Path) -> None:
    macros = ("WITH_A_DELETED_LOCK", "WITHOUT_NAMING_THE_INDEX")
    assert violations(tmp_path, "takeover", *macros) == 1


@pytest.mark.parametrize("model", ["batch", "keys", "takeover"])
def test_every_macro_of_a_model_is_tried(model: str) -> None:
    named = set(re.findall(r"\bWITH(?:OUT)?_[A-Z_]+\b", (MODELS / f"{model}.pml").read_text()))
    tried = {
        "batch": {*OF_A_BATCH, *(each for alone in OF_A_BATCH_ALONE.values() for each in alone)},
        "keys": {*OF_KEYS, *(each for alone in OF_KEYS_ALONE.values() for each in alone)},
        "takeover": {*OF_A_TAKEOVER, "WITH_A_DELETED_LOCK"},
    }
    assert named - {"WITHOUT_", "WITH_"} == tried[model]
