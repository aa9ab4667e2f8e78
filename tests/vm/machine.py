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
"""Time limit of any command: a ``vagrant up``, under software emulation, on two busy cores."""


class Machine:
    """The VM of the project in ``lab``, the folder of the VM test."""

    forwarded: Final = Client(f"http://127.0.0.1:{PORT}")
    """Asks as the user does, at the port that Vagrant forwards."""

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
        """Asks past the forwarded port: there a refused connection is seen as one."""
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
        """supervisord's process id, and those of all that it runs."""
        return [int(pid) for pid in self.ssh(f"cat {CGROUP}/cgroup.procs").split()]

    def server(self) -> int:
        """The process that serves; it has written its id into the lock."""
        return int(self.ssh(f"sudo cat {DATABASE}.lock"))

    def memory(self) -> float:
        """MB that supervisord and all that it runs take, of shared pages each its share."""
        figures = self.ssh(
            f"for pid in $(cat {CGROUP}/cgroup.procs); do"
            " sudo grep ^Pss: /proc/$pid/smaps_rollup; done"
        )
        return sum(int(line.split()[1]) for line in figures.splitlines()) / 1024
