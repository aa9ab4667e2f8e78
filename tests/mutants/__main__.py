"""Tests the tests: each small change of the code (a mutant) must make one of them fail.

    make mutants                              all parts; see ``parts``
    make mutants MUTANTS_ARGS="stepper"       one part; MUTANTS_SECONDS=600 limits the time
    make mutants MUTANTS_ARGS="--list"        the survivors so far, without running anything
    make mutants MUTANTS_ARGS="--seeds stepper"   a sample, against seeds of the simulation only

Each part works in its own copy of the project, in build/mutants, so that several can run at once.
A run can be interrupted: outcomes are kept there until the module changes. Survivors are tried
again by the next run, as there may be a new test. The exit status is 1 if fewer than 95 % of the
mutants that are not ``equivalent`` were killed. cosmic-ray makes the mutants.
"""

import argparse
import contextlib
import difflib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple, Self, TextIO

from cosmic_ray import mutating, plugins
from cosmic_ray.commands.init import init
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

from tests.mutants import forked
from tests.mutants.equivalent import Equivalent
from tests.mutants.operators import Provider
from tests.mutants.parts import OPERATORS, PARTS, SEEDS, Part

ROOT: Final = Path(__file__).parents[2]
BUILD: Final = ROOT / "build" / "mutants"
DIFF_HEADERS: Final = ("---", "+++", "@@ ")
"""Prefixes of lines in a diff that are not changes."""

MIN_KILLED: Final = 0.95
"""Share of the mutants that must be killed."""

SAMPLE: Final = 6
"""One mutant in so many is tried with ``--seeds``, which takes longer than tests."""


def locked(folder: Path) -> TextIO:
    """Lock the folder until the returned file is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"Another make mutants uses {folder}. Wait for it, or stop it.")
    return lock


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Provide a folder for files and mounts of tests; clean up what killed tests leave behind."""
    folder = tempfile.mkdtemp(prefix="fibcore-mutants-")
    Path(folder).chmod(0o1777)  # like /tmp: some tests switch to another user
    try:
        yield folder
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in mounts:
            if mount.startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(folder)


def copy_project(copy: Path) -> None:
    """Copy the project: the files that git does not ignore, and the compiled core."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    shutil.rmtree(copy, ignore_errors=True)
    for name in [
        *listed,
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("fibcore/_sequence*.so")),
    ]:
        if (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def seconds_of(command: str) -> float:
    """Return the seconds that the tests take without a mutant; they must pass.

    The first run leaves bytecode files, which runs with mutants don't write.
    """
    forked.run_tests(command, 600, compiled=True)
    began = time.monotonic()
    outcome, output = forked.run_tests(command, 600)
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"The tests fail without any mutant:\n{output}")
    return time.monotonic() - began


class Tried(NamedTuple):
    """A mutant with its outcome."""

    file: str
    line: int
    before: str
    after: str
    killed: bool


class Session:
    """The mutants of one module; ``folder`` keeps their outcomes.

    One mutant in ``share`` is tried.
    """

    def __init__(self, module: Path, share: int, folder: Path) -> None:
        self._module = module
        self._share = share
        self._equivalent = Equivalent(module.read_text())
        digest = hashlib.sha256(module.read_bytes() + repr(OPERATORS).encode()).hexdigest()
        name = "-".join(module.parts)
        self._path = folder / f"{name}-{digest[:12]}.sqlite"
        if not self._path.exists():
            for stale in folder.glob(f"{name}-*.sqlite"):
                stale.unlink()

    def __enter__(self) -> Self:
        exists = self._path.exists()
        self._database = WorkDB(str(self._path), WorkDB.Mode.create)
        if not exists:
            init([self._module], self._database, {})
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def run(self, command: str, timeout: float, end: float) -> None:
        """Try the mutants that have not been killed, until the time ``end``."""
        known = {job for job, tried in self._results() if tried.killed}
        for item in self._chosen:
            if item.job_id in known:
                continue
            if time.monotonic() > end:
                return
            try:
                diff = self._diff(item)
            except AttributeError:  # cosmic-ray can't change a dotted name in a tuple.
                diff = ""
            if not diff:
                result = WorkResult(WorkerOutcome.EXCEPTION, "", TestOutcome.INCOMPETENT)
            else:
                result = mutating.mutate_and_test(item.mutations, command, timeout)
            self._database.set_result(item.job_id, result)
            print("." if result.test_outcome == TestOutcome.KILLED else "S", end="", flush=True)

    def _is_equivalent(self, item: WorkItem) -> bool:
        (mutation,) = item.mutations
        return self._equivalent.has(mutation.start_pos[0], mutation.operator_name)

    def _diff(self, item: WorkItem) -> str:
        (mutation,) = item.mutations
        operator = plugins.get_operator(mutation.operator_name)()
        source = self._module.read_text()
        mutated = mutating.mutate_code(source, operator, mutation.occurrence)
        lines = difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="")
        return "\n".join(lines)

    @property
    def left(self) -> int:
        """The number of mutants that remain to be tried."""
        done = {job for job, _ in self._database.results}
        return sum(item.job_id not in done for item in self._chosen)

    @property
    def _chosen(self) -> list[WorkItem]:
        """The mutants to try, chosen by their position, so that each run has the same ones."""
        return [
            item
            for item in self._database.work_items
            if place_of(item) % self._share == 0 and not self._is_equivalent(item)
        ]

    @property
    def equivalent(self) -> int:
        """The number of mutants marked as equivalent."""
        return sum(map(self._is_equivalent, self._database.work_items))

    @property
    def tried(self) -> list[Tried]:
        return [tried for _, tried in self._results()]

    def _results(self) -> Iterator[tuple[str, Tried]]:
        lines = {item.job_id: item.mutations[0].start_pos[0] for item in self._chosen}
        for job, result in self._database.results:
            outcome = result.test_outcome
            if job in lines and outcome in (TestOutcome.KILLED, TestOutcome.SURVIVED):
                killed = outcome == TestOutcome.KILLED
                yield job, Tried(str(self._module), lines[job], *sides_of(result.diff), killed)


def sides_of(diff: str) -> tuple[str, str]:
    """Return the changed code before and after."""
    changed = [line for line in diff.splitlines() if line[:3] not in DIFF_HEADERS]
    before, after = (
        " ".join(line[1:].strip() for line in changed if line[:1] == sign).strip() for sign in "-+"
    )
    return before, after


def place_of(item: WorkItem) -> int:
    """Return a number derived from the change and its place."""
    (mutation,) = item.mutations
    place = f"{mutation.operator_name} {mutation.start_pos} {mutation.occurrence}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:4])


def report(tried: list[Tried], left: int, equivalent: int) -> bool:
    """Print the outcomes of the mutants; return whether enough were killed.

    Args:
        tried: the mutants with an outcome.
        left: how many remain to be tried.
        equivalent: how many are not tried because they are equivalent.
    """
    survived = [each for each in tried if not each.killed]
    for each in survived:
        print(f"{each.file}:{each.line}: SURVIVED\n    - {each.before}\n    + {each.after}")
    killed = len(tried) - len(survived)
    share = killed / (len(tried) or 1)
    print(
        f"{killed} killed, {len(survived)} survived: {share:.1%}; "
        f"{left} not tried, {equivalent} equivalent"
    )
    return share >= MIN_KILLED


def try_part(part: Part, name: str, end: float, list_only: bool) -> bool:
    """Try the mutants of a part unless ``list_only``; report; return whether enough were killed."""
    print(f"---- {name}", flush=True)
    folder = BUILD / name
    with locked(folder):
        copy = folder / "copy"
        copy_project(copy)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        command = shlex.join(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "xdist.plugin", *part.tests]
        )
        timeout = 0.0 if list_only else 10 + 2 * seconds_of(command)
        tried: list[Tried] = []
        left = equivalent = 0
        for module in sorted({path for pattern in part.modules for path in Path().glob(pattern)}):
            with Session(module, part.share, folder) as session:
                if not list_only:
                    session.run(command, timeout, end)
                tried += session.tried
                left += session.left
                equivalent += session.equivalent
    print()
    return report(tried, left, equivalent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument(
        "--list", action="store_true", help="list survivors without running anything"
    )
    parser.add_argument(
        "--seeds", action="store_true", help="try a sample against seeds of the simulation only"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    end = time.monotonic() + float(os.environ.get("MUTANTS_SECONDS", "inf"))

    plugins.OPERATOR_PROVIDERS["fibcore"] = Provider()
    plugins.operator_names = lambda: OPERATORS
    mutating.run_tests = forked.run_tests
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that ``scratch`` cleans up
    with scratch() as folder:
        os.environ |= {
            "FAULTS_SECONDS": "1",
            "HYPOTHESIS_PROFILE": "mutants",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # loading them takes longer than the tests
            "TESTS_PATIENCE": "8",
            "TMPDIR": folder,
        }
        enough = []
        for name in options.parts or PARTS:
            part, folder = PARTS[name], name
            if options.seeds:
                part, folder = replace(part, tests=SEEDS, share=SAMPLE), f"{name}-seeds"
            enough.append(try_part(part, folder, end, options.list))
    return 0 if all(enough) or options.seeds else 1


if __name__ == "__main__":
    sys.exit(main())
