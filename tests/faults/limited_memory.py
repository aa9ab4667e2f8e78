"""The whole appliance in the memory that its unit gives it, and how much of that it takes.

A memory cgroup holds it to that, where one can be made. What it takes is also counted here, so
that nothing depends on it: the pages of all processes, what the kernel keeps of their
connections, and the objects that it has for each.
"""

import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from bench import cgroup, machine
from fibcore.stores import sqlite_file
from tests.support import requires
from tests.support.supervised import ROOT, Supervised

UNIT_LIMIT: Final = 2**20 * int(
    re.findall(
        r"^MemoryMax=(\d+)M$",
        (ROOT / "deploy" / "debian" / "fibcore.service").read_text(),
        re.MULTILINE,
    )[0]
)
"""Bytes that systemd gives to the unit, for all of its processes."""

CONNECTION_SIZE: Final = 5 * 1024
"""Bytes of the kernel's own for a connection, with nothing in its buffers: the socket, its inode,
its name, its file, and its place in an event loop (``/proc/slabinfo``)."""

SAMPLE_SECONDS: Final = 0.2


class LimitedAppliance:
    """The appliance, and the most memory that it has had at once; measured until ``__exit__``."""

    def __init__(self, appliance: Supervised, how: str) -> None:
        self.appliance = appliance
        self.how = how
        """What holds it to the memory."""
        self.most = 0
        self.of_the_kernel = 0
        """What of the most was the kernel's."""
        self._ending = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory")

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._sampler.join()

    def measure(self) -> None:
        """Look at the memory that it has now."""
        pids = machine.tree(self.appliance.pid)
        kernel = connections_bytes(self.appliance.port) + page_table_bytes(pids)
        total = machine.pss_bytes(pids) + kernel
        if total > self.most:
            self.most, self.of_the_kernel = total, kernel

    def _sample(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            self.measure()

    def __str__(self) -> str:
        return (
            f"{self.how}: {self.most / 2**20:.0f} MB at the most, "
            f"{self.of_the_kernel / 2**20:.0f} MB of it the kernel's"
        )


def connections_bytes(port: int) -> int:
    """What the kernel has for the connections of a listening port, and in their buffers."""
    shown = subprocess.run(
        [requires.program("ss"), "--no-header", "--oneline", "-tmn", f"sport = :{port}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    # Received, reserved, and written: see ss(8).
    buffers = re.findall(r"skmem:\(r(\d+),.*?,f(\d+),w(\d+),", shown)
    return sum(CONNECTION_SIZE + sum(map(int, each)) for each in buffers)


def page_table_bytes(pids: Sequence[int]) -> int:
    """What the kernel has to find the pages of these processes."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(1024 * int(size) for size in re.findall(r"VmPTE:\s+(\d+) kB", status))
    return total


@contextmanager
def limited_memory(
    index: int = 0, settings: Mapping[str, str] | None = None, command: Sequence[str] | None = None
) -> Iterator[LimitedAppliance]:
    """The appliance at ``index``, with all its processes running, under the limit of its unit.

    Args:
        settings, command: as those of ``Supervised``.
    """
    found = cgroup.find()
    with found.around([], UNIT_LIMIT) as inside:
        appliance = Supervised(settings, command=command, inside=inside)
        sqlite_file.create(appliance.database, index)
        with appliance:
            appliance.wait_until_all_run()
            assert appliance.standby
            how = "measured" if found.how == "none" else found.how
            with LimitedAppliance(appliance, how) as it:
                yield it
                it.measure()
