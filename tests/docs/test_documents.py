"""The documents: their commands print what is shown, and the names in them exist."""

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import requires
from tests.support.checkout import checkout, environment, running
from tests.support.documents import DOCUMENTS, README, block, blocks
from tests.support.proxy import Proxy
from tests.support.reference import fibonacci
from tests.support.servers import ServerProcess, listening_socket
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.processes

STEPS: Final = 4


# Commands that a user types in the checkout


def typed_and_seen(document: Path) -> Iterator[tuple[str, str]]:
    """The commands of ``document`` in order, each with its output where that is shown."""
    for language, text in re.findall(
        r"(?ms)^```(console|bash|python)\n(.*?)^```$", document.read_text()
    ):
        if language == "console":
            for piece in re.split(r"(?m)^\$ ", text)[1:]:
                command, _, output = piece.partition("\n")
                yield command, output
        else:
            yield text if language == "bash" else f".venv/bin/python -c {shlex.quote(text)}", "..."


def matches(output: str, wanted: str) -> bool:
    """Whether ``output`` matches ``wanted``: dots match anything, and lines may be wrapped."""
    pieces = " ".join(wanted.split()).split("...")
    pattern = ".*".join(map(re.escape, pieces))
    return re.fullmatch(pattern, " ".join(output.split())) is not None


@pytest.mark.parametrize("document", [README, ROOT / "docs" / "recovery.md"], ids=lambda p: p.name)
def test_the_commands_of_a_document_print_the_output_shown(
    document: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    requires.program("curl")
    home = checkout(tmp_path_factory.mktemp("typed"))
    home.joinpath(".curlrc").write_text("silent\n")
    with running(home) as port:
        for command, wanted in typed_and_seen(document):
            here = command.replace(":8080", f":{port}")
            # The tests' own environment is already installed.
            here = re.sub(r"^make ", "make -o .venv/.run ", here)
            output = subprocess.run(
                ["bash", "-c", here],
                cwd=home,
                env=environment({"CURL_HOME": str(home)}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
                check=False,
            ).stdout.replace(f"{sys.prefix}/bin/", ".venv/bin/")
            assert matches(output, wanted), f"$ {command}\n{output}"


def test_the_python_of_the_readme_prints_the_output_shown() -> None:
    (example,) = blocks(README, "pycon")
    test = doctest.DocTestParser().get_doctest(example, {}, "README", None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


# Names in the documents

SETTING: Final = re.compile(r"\bFIB_[A-Z_]+\b")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_every_named_make_target_exists(document: Path) -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", ROOT.joinpath("Makefile").read_text())
    typed = r"(?m)(?:`|^ {4}|^\$ |&& )(?:sudo )?make ([a-z-]+)"
    named = re.findall(typed, document.read_text())
    assert set(named) <= set(targets)


def test_every_named_setting_exists(document: Path) -> None:
    existing = SETTING.findall(ROOT.joinpath("fibcore.conf").read_text())
    assert set(SETTING.findall(document.read_text())) <= set(existing)


def test_every_link_has_a_target(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        path, _, heading = target.partition("#")
        if path.startswith("http"):
            continue
        there = document.parent / path if path else document
        assert there.exists(), target
        headings = re.findall(r"(?m)^#+ (.*)$", there.read_text()) if heading else []
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not heading or heading in anchors, target


# Retrying, through lost answers


def test_the_shell_recipe_steps_once_however_many_answers_are_lost(tmp_path: Path) -> None:
    requires.program("curl")
    first, _, one_step = block(README, "bash").rpartition("\n\n")
    script = f"{first}\nfor _ in {{1..{STEPS}}}; do\n{one_step}\necho\ndone\n"
    with (
        listening_socket() as listener,
        ServerProcess(tmp_path / "fibcore.db", listener) as server,
        Proxy(server.client.port) as proxy,
    ):
        server.wait_until_it_serves()
        proxy.lose_each(2)
        done = subprocess.run(
            ["bash", "-eu", "-c", script.replace(":8080", f":{proxy.port}")],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            timeout=2 * PATIENCE,
            check=True,
        )
        assert server.client.index == STEPS
        assert proxy.lost.acquire(timeout=PATIENCE)
    numbers = re.findall(r"\{\"next\": (\d+)\}", done.stdout)
    assert numbers == [str(fibonacci(index)) for index in range(1, STEPS + 1)]
