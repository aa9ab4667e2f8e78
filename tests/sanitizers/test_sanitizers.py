"""The core is clean under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

Two forms are tested: the extension, with its own tests, and its additions and transitions in C
(core.c). A defect for each sanitizer is planted, and must be found. Leaks are not checked: CPython
does not free all of its memory at the end.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support import requires

pytestmark = pytest.mark.processes

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
CORE: Final = ROOT / "fibcore"

ADDRESS: Final = "address,undefined"
THREAD: Final = "thread"

FLAGS: Final = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-pthread")


def compile_with(sanitizer: str, *arguments: str | Path) -> None:
    compiler = requires.program("gcc")
    subprocess.run([compiler, f"-fsanitize={sanitizer}", *FLAGS, *arguments], check=True)


class Found(NamedTuple):
    """The outcome of a program under a sanitizer."""

    status: int
    reports: str


def run(folder: Path, *command: str | Path, **environment: str) -> Found:
    """Run a program that was built with a sanitizer; its reports go to files in ``folder``."""
    where = f"log_path={folder}/report"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ
        | {
            "ASAN_OPTIONS": f"{where}:detect_leaks=0",
            "UBSAN_OPTIONS": f"{where}:print_stacktrace=1",
            "TSAN_OPTIONS": where,
        }
        | environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    # UndefinedBehaviorSanitizer ignores its file when it is combined with another one.
    reports = [path.read_text() for path in folder.glob("report.*")]
    return Found(done.returncode, "".join([*reports, done.stderr]))


CLEAN: Final = Found(0, "")


# In C


def run_in_c(sanitizer: str, folder: Path, *definitions: str) -> Found:
    program = folder / "core"
    compile_with(sanitizer, *definitions, f"-I{CORE}", HERE / "core.c", "-o", program)
    return run(folder, program)


@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD])
def test_additions_and_transitions_in_c_are_clean(tmp_path: Path, sanitizer: str) -> None:
    """The buffers of the additions are exact, and many threads make the transitions."""
    assert run_in_c(sanitizer, tmp_path) == CLEAN


@pytest.mark.parametrize(
    ("sanitizer", "planted", "report"),
    [
        (ADDRESS, "-DSHORT_BUFFER", "heap-buffer-overflow"),
        (ADDRESS, "-DUNDEFINED", "shift exponent"),
        (THREAD, "-DWITHOUT_LOCK", "data race"),
    ],
)
def test_a_defect_planted_in_c_is_found(
    tmp_path: Path, sanitizer: str, planted: str, report: str
) -> None:
    found = run_in_c(sanitizer, tmp_path, planted)
    assert found.status != 0
    assert report in found.reports


# The extension


def run_extension(sanitizer: str, folder: Path, tests: str, planted: str = "") -> Found:
    """Build the extension separately and run its tests with it.

    Args:
        sanitizer: for the compiler.
        folder: for all created files.
        tests: of tests/core/test_sequence.py, for pytest's ``-k``.
        planted: a statement at the start of the addition.
    """
    header = CORE.joinpath("_digits.h").read_text()
    addition = "const unsigned char *b, ptrdiff_t b_size) {\n#if"
    assert header.count(addition) == 1
    header = header.replace(addition, addition.replace("#if", f"{planted}\n#if"))
    package = folder / "fibcore"
    package.mkdir()
    for name in ("__init__.py", "doubling.py"):
        package.joinpath(name).symlink_to(CORE / name)
    folder.joinpath("_digits.h").write_text(header)
    source = folder / "_sequence.c"
    cython = Path(sys.executable).with_name("cython")
    subprocess.run([cython, CORE / "_sequence.pyx", "-o", source], check=True)
    include = f"-I{sysconfig.get_path('include')}"
    target = package / "_sequence.so"
    compile_with(sanitizer, "-shared", "-fPIC", include, source, "-o", target)
    libraries = {ADDRESS: ("libasan.so", "libubsan.so"), THREAD: ("libtsan.so",)}[sanitizer]
    preload = " ".join(
        subprocess.run(
            [requires.program("gcc"), f"-print-file-name={name}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        for name in libraries
    )
    pytest_command = [sys.executable, "-P", "-m", "pytest", "--quiet", "--import-mode=append"]
    return run(
        folder,
        *pytest_command,
        *(
            "-p",
            "no:cacheprovider",
            "-x",
            "-k",
            tests,
            ROOT / "tests" / "core" / "test_sequence.py",
        ),
        LD_PRELOAD=preload,
        # Each object is a separate allocation, as a sanitizer does not know Python's allocator.
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(folder),
        HYPOTHESIS_PROFILE="traced",
    )


# A sanitizer reserves more addresses than RLIMIT_AS allows.
ALL = "not test_a_step_without_enough_memory_raises"

THREADS = "threads"


@pytest.mark.parametrize(("sanitizer", "tests"), [(ADDRESS, ALL), (THREAD, THREADS)])
def test_the_extension_is_clean(tmp_path: Path, sanitizer: str, tests: str) -> None:
    assert run_extension(sanitizer, tmp_path, tests) == CLEAN


@pytest.mark.parametrize(
    ("sanitizer", "planted", "report"),
    [
        # A byte past the one that CPython keeps after the last.
        (ADDRESS, "to[a_size + 1] = '0';", "heap-buffer-overflow"),
        (THREAD, "static int additions; additions++;", "data race"),
    ],
    ids=["overflow", "race"],
)
def test_a_defect_planted_in_the_extension_is_found(
    tmp_path: Path, sanitizer: str, planted: str, report: str
) -> None:
    found = run_extension(sanitizer, tmp_path, THREADS, planted)
    assert found.status != 0
    assert report in found.reports
