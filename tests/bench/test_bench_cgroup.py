"""The systemd scope around a server under measurement."""

from pathlib import Path

import pytest

from bench import cgroup


class TestCgroup:
    @pytest.mark.parametrize(
        ("groups", "size"),
        [
            ("0::/user.slice/a.scope\n", 512 * 2**20),
            ("4:memory:/b\n0::/user.slice/a.scope\n", 512 * 2**20),
            ("0::/other\n", None),
            ("0::/free\n", None),
            ("4:memory:/user.slice/a.scope\n", None),
        ],
    )
    def test_the_limit_of_a_scope_is_read_from_its_own_cgroup(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, size: int | None
    ) -> None:
        monkeypatch.setattr(cgroup, "SCOPES", tmp_path)
        for name, text in (("user.slice/a.scope", f"{512 * 2**20}\n"), ("free", "max\n")):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "memory.max").write_text(text)
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "cgroup").write_text(groups)
        assert cgroup.scope_bytes(7, "memory.max", tmp_path) == size

    @pytest.mark.processes
    def test_processes_in_a_scope_end_with_the_benchmark(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = tmp_path / "told"
        fake = tmp_path / "systemctl"
        fake.write_text(f'#!/bin/sh\necho "$@" >{told}\nexit 1\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(KeyboardInterrupt), cgroup.scoped(["a", "b c"]) as command:
            raise KeyboardInterrupt
        assert command[-3:] == ["--", "a", "b c"]
        assert f"MemoryMax={512 * 2**20}" in command
        (unit,) = (option[7:] for option in command if option.startswith("--unit="))
        assert "kill --signal=KILL" in told.read_text()
        assert told.read_text().split()[-1] == unit
