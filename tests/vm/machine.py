"""The VM under test, as its user, its hypervisor and its clients see it."""

import http.client
import shlex
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Final

from tests.support.servers import Client
from tests.support.waiting import until

PORT: Final = 8080
DATABASE: Final = "/var/lib/fibcore/fibcore.db"
CGROUP: Final = "/sys/fs/cgroup/system.slice/fibcore.service"

COMMAND_SECONDS: Final = 400.0
"""Time limit of each command: of ``vagrant up``, under emulation, on two busy cores."""


class Machine:
    """The VM of the project in ``lab``, the folder of the VM test."""

    forwarded: Final = Client(f"http://127.0.0.1:{PORT}")
    """Sends requests like a user, to the port that Vagrant forwards."""

    def __init__(self, lab: Path) -> None:
        self.project = lab / "project"
        self._ssh_config = lab / "ssh-config"

    def shell(self, command: str) -> str:
        """The output of ``command`` on the host, in the project's folder; it must succeed."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def up(self) -> None:
        """``vagrant up``."""
        self.shell("vagrant up")
        self._ssh_config.write_text(self.shell("vagrant ssh-config"))

    def power_off(self) -> None:
        """Cut the power of the VM: neither its processes nor its kernel are notified."""
        self.shell("virsh destroy project_default")

    def ssh(self, command: str) -> str:
        """The output of ``command`` in the VM, run by the vagrant user; it must succeed."""
        return self.shell(f"ssh -F {self._ssh_config} default {shlex.quote(command)}")

    @cached_property
    def direct(self) -> Client:
        """Sends requests past the forwarded port, which hides refused connections."""
        (host,) = (
            line.split()[1]
            for line in self._ssh_config.read_text().splitlines()
            if line.split()[:1] == ["HostName"]
        )
        return Client(f"http://{host}:{PORT}")

    def wait_until_healthy(self) -> None:
        """Return when the forwarded port leads to a healthy server."""

        def is_healthy() -> bool:
            try:
                return self.forwarded.get("/health").status == 200
            except (OSError, http.client.HTTPException):
                return False

        until(is_healthy, "the forwarded port leads to a healthy server", 120)

    def pids(self) -> list[int]:
        """The process ids of supervisord and of everything that it runs."""
        return [int(pid) for pid in self.ssh(f"cat {CGROUP}/cgroup.procs").split()]

    def server(self) -> int:
        """The server, whose id is in the lock file."""
        return int(self.ssh(f"sudo cat {DATABASE}.lock"))

    def memory(self) -> float:
        """Memory of supervisord and all that it runs, in MB, with its share of shared pages."""
        figures = self.ssh(
            f"for pid in $(cat {CGROUP}/cgroup.procs); do"
            " sudo grep ^Pss: /proc/$pid/smaps_rollup; done"
        )
        return sum(int(line.split()[1]) for line in figures.splitlines()) / 1024
