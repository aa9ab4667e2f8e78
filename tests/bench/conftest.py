"""Made-up records and runs of benchmarks."""

from bench.load.loads import Run
from bench.load.records import NONE, OK, Record


def record(
    stream: int = 0,
    sent: int = 0,
    done: int = 1,
    index: int = NONE,
    residue: int = NONE,
    status: int = OK,
    due: int | None = None,
) -> Record:
    return Record(sent if due is None else due, sent, done, index, residue, stream, status)


def run(peer: str, per_second: float, number: int = 0, **fields: object) -> Run:
    made = Run("small", peer, "current", 100, "wrk", "exact", "full", round=number)
    made.per_second, made.server_busy = per_second, 0.95
    made.first_index = made.last_index = 90
    made.checked = 24
    for name, value in fields.items():
        setattr(made, name, value)
    return made
