"""The loads, wrk and the recording generator, and the checks of every run."""

import contextlib
import re
import resource
import subprocess
import time
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import gmpy2

from bench import machine
from bench.load import generator, records
from bench.load.generator import Recorded
from bench.servers import Server
from tests.support.checker import (
    MODULUS,
    Endpoint,
    Operation,
    Residues,
    WrongAnswer,
    check,
    index_of,
    residue_of,
)

SAMPLES = 20  # steps whose answers are checked to the byte before and after each run of wrk
SETTLING = 0.05  # seconds without a step


@dataclass(slots=True)
class Run:
    """One run of one load against one server. Latencies are in microseconds."""

    section: str
    peer: str
    endpoint: str
    connections: int
    tool: str
    integers: str | None
    synchronous: str
    rate: float | None = None  # requests per second of each stream of an open loop
    round: int = 0
    nominal_index: int | None = None  # the index that the run represents
    first_index: int | None = None
    last_index: int | None = None
    requests: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    per_second: float = 0.0
    latency: dict[str, float] = field(default_factory=dict)
    checked: int = 0
    server_busy: float = 0.0  # of one core
    load_busy: float = 0.0
    others_busy: float = 0.0  # other programs, and unaccounted time of the kernel
    nodes: int = 1
    store_busy: float = 0.0  # of one core: the engine of a shared store
    messages: int = 0  # from all nodes to the engine
    batches: int = 0  # committed
    client: str = ""  # whose head was sent; empty: the plainest
    asked: str = ""  # kind of request, if the endpoint does not say it
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        section: str,
        server: Server,
        endpoint: str,
        connections: int,
        tool: str = "load.c",
        **more: Any,
    ) -> Self:
        """A run against ``server``; ``more``: other fields."""
        kind = server.integers, server.synchronous
        return cls(section, server.peer, endpoint, connections, tool, *kind, **more)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Meter:
    """The processor time of servers, of their load, and of all else, between two moments."""

    def __init__(self, *servers: Server) -> None:
        self._pids = [pid for server in servers for pid in server.pids()]
        self._begin = self._now()

    def _now(self) -> tuple[float, float, float]:
        values = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ticks = [int(value) / 100 for value in values[:8]]
        return time.monotonic(), machine.cpu_seconds(self._pids), sum(ticks) - ticks[3] - ticks[4]

    def stop(self, run: Run, load_seconds: float) -> None:
        """Store the shares in the run, each relative to one core."""
        elapsed, server, machine_busy = (
            after - before for before, after in zip(self._begin, self._now(), strict=True)
        )
        run.server_busy = server / elapsed
        run.load_busy = load_seconds / elapsed
        run.others_busy = max(machine_busy - server - load_seconds, 0) / elapsed


def where(server: Server) -> int:
    """The index of the server, from its ETag or, without one, from its number.

    Raises WrongAnswer if no index from the last known one on has that number.
    """
    assert server.integers is not None
    _, etag, body = server.get("/current")
    if etag is not None:
        server.index = index_of(etag)
        return server.index
    number = gmpy2.mpz(body[len(b'{"current": ') : -1]) % MODULUS[server.integers]
    server.index = Residues(server.integers, server.index).find(int(number))
    return server.index


def settled(server: Server) -> int:
    """The index once it no longer moves: the server may still process the end of a load."""
    before, now = -1, where(server)
    while now != before:
        time.sleep(SETTLING)
        before, now = now, where(server)
    return now


def sample(server: Server, steps: bool) -> tuple[int, list[str]]:
    """Check answers to the byte; return how many, and the problems."""
    assert server.integers is not None
    endpoints: list[Endpoint] = ["current", "previous", "previous", "current"]
    if steps:
        endpoints[2:2] = ["next"] * SAMPLES
    index = first = where(server)
    history = []
    try:
        for endpoint in endpoints:
            start = time.monotonic()
            status, tag, body = server.get(f"/{endpoint}")
            end = time.monotonic()
            if status != 200:
                raise WrongAnswer(f"/{endpoint}: status {status}")
            # Nobody else steps now, so the index of a server without ETags is known.
            index = index + (endpoint == "next") if tag is None else index_of(tag)
            number = residue_of(endpoint, body, server.integers)
            history.append(Operation(endpoint, start, end, index, number))
        check(history, first=first, last=where(server), integers=server.integers)
    except WrongAnswer as wrong:
        return len(endpoints), [str(wrong)]
    return len(endpoints), []


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def parse_wrk(text: str) -> tuple[int, float, dict[str, float], list[str]]:
    """Requests, seconds, latency percentiles (us) and problems, from the output of wrk."""
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)\b", text)
    if found is None:
        return 0, 0.0, {}, [f"wrk printed no result: {text[-200:]!r}"]
    seconds = float(found[2]) * {"ms": 0.001, "s": 1, "m": 60}[found[3]]
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
    lines = re.findall(r"\n +(50|90|99)% +([\d.]+)(us|ms|s|m)\b", text)
    latency = {percent: float(value) * scale[unit] for percent, value, unit in lines}
    problems = re.findall(r"Non-2xx or 3xx responses: \d+|Socket errors: .*[1-9].*", text)
    return int(found[1]), seconds, latency, problems


def wrk(
    run: Run,
    server: Server,
    seconds: int,
    others: Sequence[Server] = (),
    meanwhile: contextlib.AbstractContextManager[object] = contextlib.nullcontext(),  # noqa: B008
) -> Run:
    """A closed loop of `run.connections`, whose steps are counted by the index.

    Args:
        seconds: a whole number.
        others: more nodes of the same sequence, each with an equal share of the connections.
        meanwhile: a context around the load alone.
    """
    nodes = (server, *others)
    steps = run.endpoint == "next"
    if server.integers is not None:
        run.checked, run.problems = sample(server, steps)
        run.first_index = where(server)
    meter, before = Meter(*nodes), _child_seconds()
    each = run.connections // len(nodes)
    options = ("-t1", f"-c{each}", f"-d{seconds}s", "--latency", "--timeout", "30s")
    with meanwhile:
        processes = [
            subprocess.Popen(
                machine.pinned(
                    machine.LOAD_CORE,
                    [machine.tool("wrk"), *options, f"http://127.0.0.1:{node.port}/{run.endpoint}"],
                ),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in nodes
        ]
        printed = [process.communicate()[0] for process in processes]
    meter.stop(run, _child_seconds() - before)
    for text in printed:
        requests, run.seconds, latency, problems = parse_wrk(text)
        run.requests += requests
        run.per_second += requests / run.seconds if run.seconds else 0.0
        # Of the slowest node.
        run.latency = {
            percent: max(value, run.latency.get(percent, 0.0)) for percent, value in latency.items()
        }
        run.problems += problems
    if server.integers is not None:
        # When wrk stops, there is at most one uncounted step per connection.
        account(run, server, run.requests * steps, run.requests * steps + run.connections * steps)
        checked, problems = sample(server, steps)
        run.checked += checked
        run.problems += problems
    return run


def account(run: Run, server: Server, least: int, most: int) -> None:
    """Check that the index moved by at least the answered steps, and at most those sent."""
    assert run.first_index is not None
    try:
        run.last_index = settled(server)
    except WrongAnswer as wrong:
        run.problems.append(str(wrong))
        return
    if not least <= run.last_index - run.first_index <= most:
        run.problems.append(
            f"the index went from {run.first_index} to {run.last_index}, "
            f"for {least} answered steps of {most} sent"
        )


def summarize(
    run: Run,
    recorded: Recorded,
    *,
    may_lose: bool = False,
    may_fall_behind: bool = False,
    expected: Container[int] = (records.OK,),
) -> None:
    """Complete the run from the records, and check that all requests were answered.

    Args:
        may_lose: whether requests that a killed process had received may have no answer.
        may_fall_behind: whether requests may have no answer because the server is too slow.
        expected: the statuses of right answers.
    """
    answered = [record for record in recorded.records if record.status in expected]
    run.requests = len(answered)
    lost, unsent = recorded.counts["lost"], recorded.counts["unsent"]
    run.unanswered = lost + unsent
    failed = len(recorded.records) - len(answered) + unsent
    if failed - lost * (may_lose or may_fall_behind) - unsent * may_fall_behind:
        statuses = sorted({r.status for r in recorded.records if r.status not in expected})
        run.problems.append(
            f"{failed:,} requests without a right answer (statuses {statuses}; 0: no answer)"
        )
    if not answered:
        run.problems.append("no request was answered")
        return
    run.seconds = (max(r.done for r in answered) - min(r.due for r in answered)) / 1e9
    run.per_second = run.requests / run.seconds
    ordered = records.latencies(answered)
    run.latency = {str(percent): records.percentile(ordered, percent) / 1e3 for percent in (50, 99)}
    if len(recorded.streams) > 1:
        for kind, wanted in (("steps", True), ("reads", False)):
            apart = [r for r in answered if (recorded.streams[r.stream] == "next") is wanted]
            times = records.latencies(apart)
            for percent in (50, 99) if times else ():
                run.latency[f"{kind} {percent}"] = records.percentile(times, percent) / 1e3
    late = sorted(r.sent - r.due for r in answered)
    run.latency["sent late 99"] = records.percentile(late, 99) / 1e3


def check_records(run: Run, recorded: Recorded, server: Server) -> None:
    """Check the answers against the sequence, from the run's first index to the last."""
    assert run.first_index is not None
    assert server.integers is not None
    first, integers = run.first_index, server.integers
    try:
        run.last_index = settled(server)
        history = records.history(recorded.records, recorded.streams, first, integers)
        check(history, first=first, last=run.last_index, integers=integers)
    except WrongAnswer as wrong:
        run.problems.append(str(wrong))
        return
    right = (each for each in recorded.records if each.status == records.OK)
    run.checked = sum(each.residue != records.NONE for each in right)


def recorded_load(
    folder: Path,
    run: Run,
    server: Server,
    streams: Sequence[str],
    *,
    seconds: float,
    requests: int | None = None,
    check_every: int = 1,
    request: bytes | None = None,
    may_fall_behind: bool = False,
    expected: Container[int] = (records.OK,),
) -> Recorded:
    """Run the generator (a closed loop if `run.rate` is None), and check the answers."""
    if server.integers is not None:
        run.first_index = where(server)
    meter, before = Meter(server), _child_seconds()
    process = generator.start(
        folder,
        server,
        streams,
        connections=run.connections,
        seconds=seconds,
        rate=run.rate,
        requests=requests,
        check_every=check_every,
        requests_sent=dict.fromkeys(streams, request) if request is not None else None,
    )
    process.wait(300)
    meter.stop(run, _child_seconds() - before)  # before the records are read, which takes a while
    recorded = generator.finish(folder, server, streams, process)
    summarize(run, recorded, may_fall_behind=may_fall_behind, expected=expected)
    if server.integers is not None:
        check_records(run, recorded, server)
    return recorded
