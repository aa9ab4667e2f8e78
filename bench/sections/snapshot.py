"""The cost of a batch and of a read in PostgreSQL while another program keeps a snapshot open.

    python -m bench.sections.snapshot          a minute; starts its own PostgreSQL

PostgreSQL keeps every version of a row that the snapshot may still need, and a batch makes two.
It prints the processor time of the PostgreSQL server, in microseconds.
"""

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg

from fibcore.stores.link import Batch
from fibcore.stores.postgresql import PostgresqlLink, PostgresqlOpener
from tests.support.engines import Postgresql

SECONDS: Final = 60.0
BATCHES: Final = 40_000
BETWEEN: Final = 9_900
TIMED: Final = 100


def main() -> None:
    """Print a line after every BETWEEN batches, and one after the end of the snapshot."""
    # Nothing needs to be durable here.
    with Postgresql(fsync="off", autovacuum_naptime="1s") as server:
        engine = PostgresqlOpener(server.url, "fibonacci")
        engine.create(0)
        with contextlib.closing(engine.connect(uuid.uuid4(), None)) as link:
            link.make(uuid.uuid4(), ())
            numbers = itertools.count(1)

            def step() -> None:
                link.commit(Batch(next(numbers), 1, None, None))

            def line(when: str) -> None:
                _print(when, *(f"{_cost(link, each):.0f}" for each in (step, link.read)))

            with psycopg.connect(server.url) as other:
                other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                other.execute("SELECT 1 FROM fibcore_sequence")
                end = time.monotonic() + SECONDS
                _print("batches so far", "us per batch", "us per read")
                line("0")
                while link.read() < BATCHES and time.monotonic() < end:
                    for _ in range(BETWEEN):
                        step()
                    line(f"{link.read():,}")
            vacuums = "SELECT count(*) FROM pg_stat_user_tables WHERE n_dead_tup > 1000"
            while server.sql(vacuums) != "0":
                time.sleep(0.1)
            line("snapshot closed")


def _cost(link: PostgresqlLink, ask: Callable[[], object]) -> float:
    used = Path(f"/proc/{link._connection.info.backend_pid}/schedstat")
    before = int(used.read_text().split()[0])
    for _ in range(TIMED):
        ask()
    return (int(used.read_text().split()[0]) - before) / TIMED / 1000


def _print(*cells: str) -> None:
    print("".join(f"{each:>20}" for each in cells), flush=True)


if __name__ == "__main__":
    main()
