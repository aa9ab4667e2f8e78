"""The documents: what they tell a user to type does what they say."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reference import fibonacci
from tests.support import unanswered
from tests.support.supervised import PATIENCE, ROOT, Supervised

pytestmark = pytest.mark.processes

README: Final = ROOT / "README.md"


def block(document: Path, language: str) -> str:
    """The one block of ``document`` in ``language``."""
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL
    )
    assert isinstance(found, str)
    return found


# Asking again, through ten kills that each take the answer and leave the step

KILLS: Final = 10
STEPS: Final = KILLS * unanswered.EVERY


@pytest.fixture
def appliance() -> Iterator[Supervised]:
    with Supervised(command=[sys.executable, unanswered.__file__]) as appliance:
        yield appliance


def kills(appliance: Supervised) -> int:
    return appliance.log("supervisord").text.count("terminated by SIGKILL")


def recipe(appliance: Supervised) -> dict[str, Any]:
    """What the README's Python has defined when it has been run, and made its one step."""
    code = block(README, "python").replace(":8080", f":{appliance.port}")
    found: dict[str, Any] = {}
    exec(code, found)
    return found


def test_the_python_that_asks_again_makes_each_step_once_through_ten_kills(
    appliance: Supervised,
) -> None:
    its = recipe(appliance)
    numbers, tag = [its["number"]], its["tag"]
    for _ in range(STEPS - 1):
        number, tag = its["step"](tag)
        numbers.append(number)
    assert numbers == [str(fibonacci(index)) for index in range(1, STEPS + 1)]
    assert appliance.index == STEPS
    assert kills(appliance) == KILLS


def test_without_if_match_a_lost_answer_would_be_a_second_step(appliance: Supervised) -> None:
    its = recipe(appliance)
    assert its["ask"]("next").text == str(fibonacci(3))
    assert kills(appliance) == 1


def test_several_clients_that_ask_again_never_get_an_index_twice(appliance: Supervised) -> None:
    numbers: list[str] = []

    def steps() -> None:
        its = recipe(appliance)
        tag = its["tag"]
        for _ in range(5):
            number, tag = its["step"](tag, alone=False)
            numbers.append(number)

    clients = [threading.Thread(target=steps, daemon=True) for _ in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE)
    assert len(numbers) == len(set(numbers)) == 5 * len(clients)
    assert kills(appliance) > 0


def test_the_shell_that_asks_again_makes_each_step_once_through_ten_kills(
    appliance: Supervised, tmp_path: Path
) -> None:
    first, _, one_step = block(README, "bash").rpartition("\n\n")
    script = f"{first}\nfor _ in {{1..{STEPS}}}; do\n{one_step}\necho\ndone\n"
    done = subprocess.run(
        ["bash", "-eu", "-c", script.replace(":8080", f":{appliance.port}")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    numbers = re.findall(r"\{\"(?:next|current)\": (\d+)\}", done.stdout)
    assert numbers == [str(fibonacci(index)) for index in range(1, STEPS + 1)]
    assert appliance.index == STEPS
    assert kills(appliance) == KILLS
