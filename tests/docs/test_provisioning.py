"""The part of provisioning that needs no VM; tests/vm has the rest."""

import re
from pathlib import Path

import pytest

from tests.support.implementations import serving

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]


def test_the_vm_answers_only_for_its_addresses_and_its_name(tmp_path: Path) -> None:
    drop_in = (ROOT / "deploy" / "vagrant" / "vm.conf").read_text()
    # %H is the host's name, as systemd.unit(5) has it.
    lines = re.findall(r"^Environment=(\w+)=(.*)$", drop_in, re.MULTILINE)
    settings = {name: value.replace("%H", "Bookworm") for name, value in lines}
    assert settings.keys() == {"FIB_HOST", "FIB_ALLOWED_HOSTS"}
    with serving(tmp_path, 7, **settings) as client:
        reached = ("127.0.0.1:8080", "localhost:8080", "[::1]:8080", "10.0.2.15", "bookworm:8080")
        for host in reached:
            assert client.get("/current", {"Host": host}).status == 200
        for host in ("fib.example.com", "bookworm.example.com:8080"):
            assert client.get("/next", {"Host": host}).status == 421
        assert client.index == 7
