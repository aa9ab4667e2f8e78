"""What all tests share."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "default", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# For the second run of the core, with the extension that traces every line.
hypothesis.settings.register_profile(
    "traced", hypothesis.settings.get_profile("default"), max_examples=5
)
# For make test-faults, and for a search by hand.
hypothesis.settings.register_profile(
    "long", hypothesis.settings.get_profile("default"), max_examples=10_000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--base-url",
        metavar="URL",
        help="run the contract tests against the server there, such as http://127.0.0.1:8080; "
        "it is stepped, and nobody else may step it meanwhile",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--base-url") is None:
        return
    own = [item for item in items if item.get_closest_marker("own_server")]
    items[:] = [item for item in items if item not in own]
    config.hook.pytest_deselected(items=own)
