"""The VM under test, as its user, its hypervisor and its clients see it."""

import contextlib
import http.client
import shlex
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.supervised import Answer, until

__all__ = ["CGROUP", "PORT", "STATE", "Address", "Machine"]

PORT: Final = 8080
STATE: Final = "/var/lib/fibcore/fibcore.db"
CGROUP: Final = "/sys/fs/cgroup/system.slice/fibcore.service"

VAGRANT_SECONDS: Final = 400.0
"""For a whole ``vagrant up``; under software emulation, on two busy cores."""

SSH_SECONDS: Final = 90.0
ANSWER_SECONDS: Final = 30.0


class Address(NamedTuple):
    """Where the appliance answers."""

    host: str
    port: int

    def request(self, method: str, path: str) -> Answer:
        """Ask on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def stands_at(self) -> int:
        """Where the sequence stands."""
        answer = self.request("HEAD", "/current")
        assert answer.status == 200, answer
        return int(answer.headers["ETag"].strip('"'))

    def is_healthy(self) -> bool:
        """Whether ``/health`` is answered so; a connection that fails is no."""
        try:
            return self.request("GET", "/health").status == 200
        except (OSError, http.client.HTTPException):
            return False


class Machine:
    """The VM of the project in ``lab``, a folder of the VM test."""

    forwarded: Final = Address("127.0.0.1", PORT)
    """The way of the user's commands: to the port that Vagrant forwards."""

    def __init__(self, lab: Path) -> None:
        self.project = lab / "project"
        self._ssh_config = lab / "ssh-config"

    def shell(self, command: str, seconds: float = VAGRANT_SECONDS) -> str:
        """What ``command`` prints on the host, typed in the project's folder; it must succeed."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def up(self) -> str:
        """``vagrant up``, and what it prints."""
        output = self.shell("vagrant up")
        self._ssh_config.write_text(self.shell("vagrant ssh-config"))
        return output

    def power_off(self) -> None:
        """Take the power from the VM: no process in it, nor its kernel, is told."""
        self.shell("virsh destroy project_default")

    def ssh(self, command: str) -> str:
        """What ``command`` prints in the VM, run by the vagrant user; it must succeed."""
        return self.shell(f"ssh -F {self._ssh_config} default {shlex.quote(command)}", SSH_SECONDS)

    @cached_property
    def direct(self) -> Address:
        """The way past the forwarded port, on which a refused connection is seen as one."""
        (host,) = (
            line.split()[1]
            for line in self._ssh_config.read_text().splitlines()
            if line.split()[:1] == ["HostName"]
        )
        return Address(host, PORT)

    def wait_until_healthy(self, seconds: float = 120.0) -> None:
        """Return when the forwarded port leads to a healthy server."""
        until(self.forwarded.is_healthy, "the forwarded port leads to a healthy server", seconds)

    def pids(self) -> list[int]:
        """supervisord's process id, and those of all that it runs."""
        return [int(pid) for pid in self.ssh(f"cat {CGROUP}/cgroup.procs").split()]

    def server(self) -> int:
        """The process that serves; it has written its id into the lock."""
        return int(self.ssh(f"sudo cat {STATE}.lock"))

    def memory(self) -> float:
        """MB that supervisord and all that it runs take, of shared pages each its share."""
        figures = self.ssh(
            f"for pid in $(cat {CGROUP}/cgroup.procs); do"
            " sudo grep ^Pss: /proc/$pid/smaps_rollup; done"
        )
        return sum(int(line.split()[1]) for line in figures.splitlines()) / 1024
