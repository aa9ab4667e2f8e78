"""A booted Debian in a folder, with systemd and its own network: systemd-nspawn."""

import os
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.support import requires
from tests.support.programs import ROOT
from tests.support.waiting import until

__all__ = ["ADDRESS", "Container", "made_tree"]

PACKAGES: Final = "systemd-sysv,dbus,python3,curl,iproute2,procps"
HOST, ADDRESS = "169.254.87.1", "169.254.87.2"
"""The addresses of the two ends of the virtual cable to the container."""

COMMAND_SECONDS: Final = 150.0
"""Time limit of each command in the container."""


def made_tree() -> Path:
    """The files of the Debian, in a tar file that is created once, in a minute."""
    tree = ROOT / "build" / f"debian-{PACKAGES.replace(',', '-')}.tar"
    if not tree.exists():
        requires.program("mmdebstrap")
        new = tree.with_suffix(".new.tar")
        new.parent.mkdir(exist_ok=True)
        subprocess.run(
            [ROOT / "tests/support/debian-tree", new, PACKAGES], check=True, timeout=1200
        )
        new.replace(tree)
    return tree


class Container:
    """The container, from ``boot`` (or ``__enter__``) on.

    Args:
        folder: of its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = f"fib-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        subprocess.run(
            ["tar", "-xf", made_tree(), "-C", folder, "--exclude=./dev/*"],
            check=True,
            timeout=COMMAND_SECONDS,
        )
        # A sync of each file would take longer than everything else.
        (folder / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()

    def boot(self) -> None:
        """Return when it has booted, and can be reached at ``ADDRESS``."""
        command = (
            *(requires.program("systemd-nspawn"), "--boot", "--quiet", "--console=pipe"),
            *("--directory", self.folder, "--machine", self._name, "--network-veth"),
            *("--register=no", "--keep-unit"),  # this machine may have no systemd
        )
        with self.folder.with_suffix(".boot").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._first() is not None, "its first process runs")
        until(lambda: self.tries("test -S /run/dbus/system_bus_socket"), "it has a bus")
        self.run("systemctl is-system-running --wait")
        ip = requires.program("ip")
        subprocess.run([ip, "addr", "add", f"{HOST}/30", "dev", f"ve-{self._name}"], check=True)
        subprocess.run([ip, "link", "set", f"ve-{self._name}", "up"], check=True)
        self.run(f"ip addr add {ADDRESS}/30 dev host0 && ip link set host0 up")

    def power_off(self) -> None:
        """Shut it down; return when it has ended."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()

    def _first(self) -> int | None:
        assert self._process is not None
        assert self._process.poll() is None, self.folder.with_suffix(".boot").read_text()
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None

    def tries(self, command: str) -> bool:
        """Whether ``command`` succeeds."""
        return self._done(command).returncode == 0

    def run(self, command: str) -> str:
        """The output of ``command``, run by root; it must succeed."""
        done = self._done(command)
        assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def fails(self, command: str) -> str:
        """The output of ``command``; it must fail."""
        done = self._done(command)
        assert done.returncode != 0, f"{command}\n{done.stdout}"
        return done.stdout

    def _done(self, command: str) -> subprocess.CompletedProcess[str]:
        first = self._first()
        shell = ("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c")
        return subprocess.run(
            ["nsenter", f"--target={first}", "-m", "-u", "-i", "-n", "-p", *shell, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
