"""The cgroup around a server under measurement: made with its limit, removed whatever happens."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import cgroup
from bench.cgroup import MemoryLimit


class TestCgroup:
    """Groups are plain folders here, which stand for the kernel's."""

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

    def test_no_group_is_made_in_a_folder_that_is_none(self, tmp_path: Path) -> None:
        found = cgroup.find(tmp_path)
        assert found.reason == f"{tmp_path} is not a memory cgroup of version 1"
        assert not list(tmp_path.iterdir())

    @pytest.fixture
    def parent(self, tmp_path: Path) -> Path:
        (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        return tmp_path

    @pytest.fixture
    def removed(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The groups removed so far: a plain folder doesn't go while it holds files."""
        groups: list[Path] = []
        monkeypatch.setattr(cgroup, "remove", groups.append)
        return groups

    def test_a_group_gets_the_limit_before_anything_runs_in_it(
        self, parent: Path, removed: list[Path]
    ) -> None:
        with cgroup.made(parent) as group:
            assert (group / "memory.limit_in_bytes").read_text() == str(512 * 2**20)
            assert not removed
        assert removed == [group]

    @pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_a_group_is_removed_however_the_benchmark_ends(
        self, parent: Path, removed: list[Path], ending: type[BaseException]
    ) -> None:
        with pytest.raises(ending), cgroup.made(parent) as group:
            raise ending
        assert removed == [group]

    def test_a_group_whose_limit_cant_be_set_is_removed(
        self, parent: Path, removed: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "write_text", self.denied)
        with pytest.raises(PermissionError), cgroup.made(parent):
            pytest.fail("there is no cgroup")
        assert len(removed) == 1

    @staticmethod
    def denied(*_: object) -> None:
        raise PermissionError("not yours")

    @pytest.mark.processes
    def test_what_still_runs_in_a_group_ends_before_it_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        (tmp_path / "cgroup.procs").write_text(f"{left.pid}\n")

        def rmdir(_: Path) -> None:  # as the kernel's: a group in use stays
            if left.poll() is None:
                raise OSError("in use")

        monkeypatch.setattr(Path, "rmdir", rmdir)
        with left:
            cgroup.remove(tmp_path, seconds=30)
            assert left.returncode == -9

    def test_a_group_that_stays_in_use_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.procs").touch()
        with pytest.raises(OSError, match="not empty"):
            cgroup.remove(tmp_path, seconds=0)

    @pytest.mark.processes
    def test_the_command_joins_before_it_starts_and_keeps_its_pid(self, tmp_path: Path) -> None:
        program = "import os, sys; print(os.getpid(), open(sys.argv[1]).read(), sys.argv[2])"
        command = [sys.executable, "-c", program, str(tmp_path / "cgroup.procs"), "a 'b' $c"]
        with subprocess.Popen(
            cgroup.joining(tmp_path, command), stdout=subprocess.PIPE, text=True
        ) as process:
            output = process.communicate(timeout=30)[0]
        assert output.split() == [str(process.pid), str(process.pid), "a", "'b'", "$c"]

    @pytest.mark.processes
    def test_a_command_that_cant_join_does_not_run(self, tmp_path: Path) -> None:
        ran = tmp_path / "ran"
        command = cgroup.joining(tmp_path / "missing", ["touch", str(ran)])
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
        assert not ran.exists()

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

    def test_without_systemd_no_group_is_made_unless_one_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cgroup, "SYSTEMD", tmp_path / "missing")
        assert str(cgroup.find()) == (
            "one core by taskset; memory is not limited: systemd does not run here, and "
            "--cgroup names no group to use instead"
        )

    def test_the_peak_of_a_group_is_told_of_its_processes_alone(
        self, parent: Path, removed: list[Path]
    ) -> None:
        made = MemoryLimit("cgroup v1", parent)
        with cgroup.made(parent) as group:
            (group / "cgroup.procs").write_text("7\n8\n")
            (group / "memory.max_usage_in_bytes").write_text("4096\n")
            assert made.peak_bytes(8) == 4096
            assert made.peak_bytes(9) is None
        assert cgroup.unlimited("no").peak_bytes(8) is None
        assert removed

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

    def test_the_results_say_which_limit_it_was(self, tmp_path: Path) -> None:
        limits = [
            (
                MemoryLimit("cgroup v1", tmp_path),
                "one core by taskset, 512 MB by cgroup v1",
                512 * 2**20,
            ),
            (
                MemoryLimit("none", reason="x"),
                "one core by taskset; memory is not limited: x",
                None,
            ),
            (MemoryLimit("not ours", reason="as it is"), "as it is", None),
        ]
        for each, text, limit in limits:
            assert str(each) == text
            assert each.as_json()["limit bytes"] == limit
            assert each.as_json()["memory"] == each.how
