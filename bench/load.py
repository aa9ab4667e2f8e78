"""Runs load.c, and reads its records: rates, latencies, gaps, and the history to check."""

import json
import resource
import shutil
import subprocess
import time
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Final, cast

from bench import machine
from bench.heads import Request
from bench.servers import Server
from tests.support.checker import Endpoint, Operation, WrongAnswer, check

NONE: Final = 2**64 - 1
"""No ETag, or a residue that was not computed."""
OK: Final = 200
_FIELDS: Final = 6
"""Fields of a record, of 64 bits each, as ``struct record`` in load.c lays them out."""


@dataclass(slots=True)
class Record:
    """One request; times in ns. ``stream``: the number of its path; status 0: no answer."""

    due: int
    sent: int
    done: int
    index: int
    residue: int
    stream: int
    status: int


def read(path: Path) -> list[Record]:
    """All records in a file from load.c, in the order of the answers."""
    words = array("Q")
    words.frombytes(path.read_bytes())
    columns = (words[i::_FIELDS] for i in range(_FIELDS))
    return [
        Record(due, sent, done, index, residue, last & 0xFFFFFFFF, last >> 32)
        for due, sent, done, index, residue, last in zip(*columns, strict=True)
    ]


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The nearest-rank percentile of values in ascending order."""
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]


def longest_gap(records: Sequence[Record], begin: int, end: int) -> int:
    """The longest time between two answers that overlaps the span from ``begin`` to ``end``."""
    times = sorted(each.done for each in records if each.status == OK)
    return max((b - a for a, b in pairwise(times) if b > begin and a < end), default=end - begin)


def history(records: Sequence[Record], streams: Sequence[str]) -> list[Operation]:
    """The history for the checker. A request without an answer, or with a 500, may have stepped."""
    found = []
    for each in records:
        endpoint = cast(Endpoint, streams[each.stream])
        if each.status == OK:
            number = None if each.residue == NONE else each.residue
            found.append(Operation(endpoint, each.sent, each.done, each.index, number))
        elif each.status < 100 or each.status == 500:
            found.append(Operation(endpoint, each.sent))
    return found


@dataclass(frozen=True, slots=True)
class Run:
    """What one load against one server measured, its answers checked."""

    per_second: float
    p50: float
    """Microseconds from when a request was due to its answer."""
    p99: float
    cpu: float
    """Microseconds of the server's processor time for each answer."""
    others: float = 0.0
    """The share of a core that neither the server nor the load used."""


@cache
def program(folder: Path) -> Path:
    """Compile load.c."""
    made = folder / "load"
    source = Path(__file__).with_name("load.c")
    compiler = shutil.which("cc") or "cc"
    subprocess.run([compiler, "-O2", "-Wall", "-o", made, source], check=True)
    return made


class Load:
    """One run of load.c, from its start.

    Args:
        folder: for its program and its records.
        streams: the requests by path, such as "next"; None is the plainest one.
        rate: requests per second of each stream; None for a closed loop.
        requests: at most so many, in all.
        check_every: compute one number in so many.
        sleeps: whether it may sleep while it waits, as it must beside an engine on its core.
    """

    def __init__(
        self,
        folder: Path,
        server: Server,
        streams: Mapping[str, Request | None],
        *,
        connections: int,
        seconds: float,
        rate: float | None = None,
        requests: int | None = None,
        check_every: int = 1,
        sleeps: bool = False,
    ) -> None:
        self.server, self.streams = server, tuple(streams)
        self._records = folder / f"records-{server.port}"
        self.first = server.index() if server.integers else 0
        command: list[str | Path] = [
            program(folder),
            *("--port", str(server.port), "--connections", str(connections)),
            *("--seconds", str(seconds), "--check-every", str(check_every)),
            *("--records", self._records),
        ]
        for stream, request in streams.items():
            command += ["--stream", f"/{stream}" + (f":{rate}" if rate is not None else "")]
            if request is not None:
                sent = folder / f"request-{server.port}-{stream}"
                sent.write_bytes(request.raw)
                command += ["--request", sent]
        command += [] if requests is None else ["--requests", str(requests)]
        command += ["--uint64"] if server.integers == "uint64" else []
        command += ["--sleep"] if sleeps else []
        self.process = subprocess.Popen(
            machine.pinned(machine.LOAD_CORE, *command), stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> dict[str, int]:
        """Wait for its end; return its own counts."""
        output, _ = self.process.communicate(timeout=300)
        if self.process.returncode:
            raise RuntimeError(f"the load generator exited with {self.process.returncode}")
        counts: dict[str, int] = json.loads(output)
        return counts

    def finish(
        self,
        counts: Mapping[str, int],
        *,
        may_lose: bool = False,
        expected: Collection[int] = (OK,),
    ) -> list[Record]:
        """Check all answers after its end; return its records.

        Args:
            counts: what ``wait`` returned.
            may_lose: whether requests that a killed process had received may have no answer.
            expected: the statuses of right answers.

        Raises:
            WrongAnswer: an answer is wrong, or all of them together are.
        """
        records = read(self._records)
        self._records.unlink()
        allowed = {*expected, *([0] if may_lose else [])}
        wrong = sorted({each.status for each in records} - allowed)
        if wrong or counts["unsent"] or not records:
            raise WrongAnswer(f"statuses {wrong} (0: no answer), {counts['unsent']} not sent")
        if self.server.integers is not None:
            check(
                history(records, self.streams),
                first=self.first,
                last=self.server.index(),
                integers=self.server.integers,
            )
        return records


def run(
    folder: Path,
    server: Server,
    path: str,
    request: Request | None = None,
    *,
    connections: int = 100,
    seconds: float = 1.0,
    requests: int | None = None,
    check_every: int = 4,
    sleeps: bool = False,
    expected: Collection[int] = (OK,),
) -> Run:
    """A closed loop on one path; see ``Load``."""
    pids = machine.tree(server.pid)
    load = Load(
        folder,
        server,
        {path: request},
        connections=connections,
        seconds=seconds,
        requests=requests,
        check_every=check_every,
        sleeps=sleeps,
    )
    before = _now(pids)
    counts = load.wait()
    elapsed, used, own, busy = (b - a for a, b in zip(before, _now(pids), strict=True))
    answers = [each for each in load.finish(counts, expected=expected) if each.status in expected]
    ordered = sorted(each.done - each.due for each in answers)
    span = max(each.done for each in answers) - min(each.due for each in answers)
    return Run(
        per_second=len(answers) / span * 1e9,
        p50=percentile(ordered, 50) / 1e3,
        p99=percentile(ordered, 99) / 1e3,
        cpu=used / len(answers) * 1e6,
        others=max(busy - used - own, 0) / elapsed,
    )


def _now(pids: Sequence[int]) -> tuple[float, float, float, float]:
    """The time, and the processor time of a server, of all loads that have ended, and of all."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = usage.ru_utime + usage.ru_stime
    return time.monotonic(), machine.cpu_seconds(pids), own, machine.busy_seconds()
