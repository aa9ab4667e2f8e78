"""Random requests, to both implementations: /openapi.json says the answers."""

from pathlib import Path

import pytest

from tests.faults.conftest import Fault
from tests.support.implementations import IMPLEMENTATIONS, serving
from tests.support.openapi import LARGEST, OPERATIONS, SETTINGS, assert_is_described

pytestmark = [pytest.mark.processes, pytest.mark.long]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_whatever_is_asked_the_answer_is_as_described(
    fault: Fault, tmp_path: Path, implementation: str
) -> None:
    with serving(tmp_path, LARGEST - 5, implementation, **SETTINGS) as client:
        # The seed is in the message of what fails.
        for seed in fault.tries(short=1, long=1_000, share=0.02):
            for method, path in OPERATIONS:
                assert_is_described(client, method, path, examples=20, seed=seed)
