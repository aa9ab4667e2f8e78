"""The whole appliance within the memory limit of its unit, and its memory usage.

A memory cgroup enforces the limit, where one can be created. The memory is also measured here, so
that no test depends on the cgroup: the pages of all processes, the socket buffers, and the kernel's
objects for each connection.
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
"""The unit's limit in bytes, for all of its processes."""

CONNECTION_SIZE: Final = 5 * 1024
"""Bytes of kernel objects for a connection with empty buffers: socket, inode, name, file, epoll
entry (``/proc/slabinfo``)."""

SAMPLE_SECONDS: Final = 0.2


class LimitedAppliance:
    """The appliance, and its peak memory until ``__exit__``."""

    def __init__(self, appliance: Supervised, how: str) -> None:
        self.appliance = appliance
        self.how = how
        """What enforces the limit."""
        self.most = 0
        self.of_the_kernel = 0
        """The kernel's share of the peak."""
        self._ending = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory")

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._sampler.join()

    def measure(self) -> None:
        """Measure the present memory."""
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
    """Kernel memory of the connections of a listening port, buffers included."""
    shown = subprocess.run(
        [requires.program("ss"), "--no-header", "--oneline", "-tmn", f"sport = :{port}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    # Received, allocated, and queued: see ss(8).
    buffers = re.findall(r"skmem:\(r(\d+),.*?,f(\d+),w(\d+),", shown)
    return sum(CONNECTION_SIZE + sum(map(int, each)) for each in buffers)


def page_table_bytes(pids: Sequence[int]) -> int:
    """Bytes of the page tables of these processes."""
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
    """The appliance at ``index``, all its processes running, under the limit of its unit.

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
