"""What all tests share, and their marks.

``processes``: the test starts processes, so ``make check`` leaves it out. The fixture ``processes``
marks a test, too.

``long``: it is left out of ``make test``, and runs with ``make test-faults``.

``root``: a test with this fixture needs root. Without it the test is skipped, or fails if
REQUIRE_ALL is set, as in .ci/run.
"""

import gc
import os
import signal
import socket
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol, TypeVar

import hypothesis
import pytest

from tests.support import requires
from tests.support.disks import SmallDisk, memory_with_room, mounted
from tests.support.engines import ENGINES, Engine
from tests.support.servers import listening_socket

LONG: Final = float(os.environ.get("FAULTS_SECONDS", "0")) > 0
"""Whether to run tests that take too long for ``make test``."""

hypothesis.settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=25,
)
# For make test-faults.
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("default"), max_examples=100
)
# For the second run of the core, with an extension that traces every line.
hypothesis.settings.register_profile(
    "traced", hypothesis.settings.get_profile("default"), max_examples=5
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# The folders of tests are in memory, where a sync is fast; a test that needs a disk creates one.
if (_memory := memory_with_room()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_memory))

# Background jobs of a shell ignore it, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same for nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--base-url",
        metavar="URL",
        help="run the contract tests against the server there, such as http://127.0.0.1:8080; "
        "it is stepped, and nobody else may step it meanwhile",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for need in ("processes", "root"):
            if need in getattr(item, "fixturenames", ()):
                item.add_marker(need)
    left_out = set()
    if config.getoption("--base-url") is not None:
        left_out = {item for item in items if item.get_closest_marker("own_server")}
    if not LONG:
        left_out |= {item for item in items if item.get_closest_marker("long")}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # Thousands of tests stay until the end: the collector need not scan them repeatedly.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two per core, or four with tests of processes, which mostly wait."""
    cores = len(os.sched_getaffinity(0))
    return (2 if "not processes" in config.option.markexpr else 4) * cores


@pytest.fixture(scope="session")
def processes() -> None:
    """Marks the tests that use it."""


@pytest.fixture(scope="session")
def root() -> None:
    """Root's privileges, for mounting and for switching users."""
    requires.root()


@pytest.fixture(scope="session")
def small_disk(root: None, processes: None) -> SmallDisk:  # noqa: ARG001
    """``with small_disk(folder) as disk:`` mounts a file system that a test can fill."""
    return mounted


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A path for a database, where nothing exists yet."""
    return tmp_path / "fibcore.db"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket, as supervisord holds it."""
    with listening_socket() as listener:
        yield listener


def pytest_sessionstart(session: pytest.Session) -> None:
    """Exit before the first test if all tests are required and something is missing."""
    if os.environ.get("REQUIRE_ALL") and not hasattr(session.config, "workerinput"):
        missing = requires.all_missing()
        if missing:
            packages = " ".join(missing)
            pytest.exit(f"REQUIRE_ALL is set: first, apt-get install {packages}", returncode=1)


Kind = TypeVar("Kind", bound=Engine)


class Engines(Protocol):
    """Each requested engine, once for all tests."""

    def __call__(self, kind: type[Kind]) -> Kind: ...


@pytest.fixture(scope="session")
def engines(processes: None) -> Iterator[Engines]:  # noqa: ARG001
    """``engines(Postgresql)`` is shared by all tests, each with its own sequence."""
    with ExitStack() as stack:
        made: dict[type[Engine], Engine] = {}

        def one(kind: type[Kind]) -> Kind:
            if kind not in made:
                made[kind] = stack.enter_context(kind())
            found = made[kind]
            assert isinstance(found, kind)
            return found

        yield one


@pytest.fixture(scope="session", params=ENGINES, ids=lambda kind: kind.__name__.lower())
def engine(engines: Engines, request: pytest.FixtureRequest) -> Engine:
    """Each of the engines."""
    kind: type[Engine] = request.param
    return engines(kind)
