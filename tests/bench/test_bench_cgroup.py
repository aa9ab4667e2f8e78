"""The systemd scope around a server under measurement."""

from pathlib import Path

import pytest

from bench import cgroup
from bench.cgroup import MemoryLimit


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
    def test_the_limit_of_a_scope_is_read_from_the_right_group(
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
    @pytest.mark.parametrize("limit", ["", "echo 1048576"])
    def test_a_scope_without_the_limit_is_not_taken_for_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
    ) -> None:
        fake = tmp_path / "systemd-run"
        fake.write_text(f"#!/bin/sh\n{limit}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(cgroup, "SYSTEMD", tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        found = cgroup.find()
        assert found.how == "none"
        assert "a program in it has the limit" in found.reason

    def test_without_systemd_the_memory_is_not_limited_and_that_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cgroup, "SYSTEMD", tmp_path / "missing")
        assert str(cgroup.find()) == (
            "one core by taskset; memory is not limited: systemd does not run here"
        )

    @pytest.mark.processes
    def test_where_systemd_cant_be_asked_the_reason_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = tmp_path / "systemd-run"
        fake.write_text("#!/bin/sh\nprintf 'Failed to start:\\nno bus.\\n' >&2\nexit 1\n")
        fake.chmod(0o755)
        monkeypatch.setattr(cgroup, "SYSTEMD", tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert cgroup.find() == MemoryLimit(
            "none", reason="systemd scope: Failed to start: no bus."
        )

    @pytest.mark.processes
    def test_what_runs_in_a_scope_ends_with_the_benchmark(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does so however the benchmark ends."""
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

    def test_without_a_box_a_command_is_left_as_it_is(self) -> None:
        with cgroup.unlimited("no").around(["a", "b"]) as command:
            assert command == ["a", "b"]

    @pytest.mark.parametrize(
        ("limit", "text"),
        [
            (MemoryLimit("systemd scope"), "one core by taskset, 512 MB by systemd scope"),
            (MemoryLimit("none", "x"), "one core by taskset; memory is not limited: x"),
            (MemoryLimit("not ours", "as it is"), "as it is"),
        ],
    )
    def test_the_results_say_which_limit_it_was(self, limit: MemoryLimit, text: str) -> None:
        assert str(limit) == text
