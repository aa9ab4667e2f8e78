"""The servers now running in a folder, per ``/proc``: a file with their ids might be outdated."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fibcore.appliance.heartbeat import serves
from fibcore.appliance.settings import Settings, gather
from fibcore.problems import SettingsError

RUNS_WEB: Final = b"\0-m\0web\0"


class Server(NamedTuple):
    """A process that serves or stands by."""

    pid: int
    environment: dict[str, str]
    settings: Settings


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with.

    Raises:
        OSError: it has exited, or belongs to another user.
    """
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(each).partition("=") for each in words)
    return {name: value for name, equals, value in pairs if equals}


def settings_of(pid: int, folder: Path) -> Settings:
    """The settings of a process that was started in ``folder``.

    Raises:
        OSError: it has exited, or belongs to another user.
        SettingsError: it was started with invalid settings.
    """
    return Settings.of(gather(environment_of(pid), folder=folder, cwd=folder))


def servers_of(folder: Path) -> Iterator[Server]:
    """The servers that run in ``folder``, as far as this user may see them."""
    for process in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError, SettingsError):
            if process.joinpath("cwd").samefile(folder) and (
                RUNS_WEB in process.joinpath("cmdline").read_bytes()
            ):
                pid = int(process.name)
                yield Server(pid, environment_of(pid), settings_of(pid, folder))


def another_serves(settings: Settings) -> bool:
    """Whether another process of this folder serves the same store, as far as this user may see."""
    return any(
        each.pid != os.getpid() and serves(each.pid) and each.settings.has_same_store(settings)
        for each in servers_of(Path.cwd())
    )
