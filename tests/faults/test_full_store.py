"""The disk of a shared store is full, under the load of three nodes.

The engines exit, since they can't write their logs, and are restarted. The nodes answer 503,
determine the outcome of the last batch, and resume when there is space.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Fault
from tests.faults.nodes import Cluster, is_healthy
from tests.faults.server_variants import takes_a_lost_batch_for_made, variant
from tests.support.checker import WrongAnswer
from tests.support.disks import SmallDisk, fill
from tests.support.engines import Engine, Etcd, Postgresql, Redis
from tests.support.load import Load
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.processes]

STEPS: Final = 100

MEGABYTES: Final = {Postgresql: 128, Redis: 16, Etcd: 192}
"""Size of the disk: what the engine needs at its start, and a little more."""


@contextlib.contextmanager
def on(kind: type[Engine], small_disk: SmallDisk) -> Iterator[Engine]:
    """An engine whose files are on a small disk."""
    engine = kind()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, engine.folder, ignore_errors=True)
        stack.enter_context(small_disk(engine.folder, megabytes=MEGABYTES[kind], inodes=10_000))
        shutil.chown(engine.folder, engine.user)
        yield stack.enter_context(engine)


def need_room(engine: Engine) -> None:
    """Write new data: most steps overwrite existing data."""
    if isinstance(engine, Postgresql):
        # It may have exited.
        with contextlib.suppress(subprocess.CalledProcessError):
            engine.sql("SELECT pg_switch_wal()")
    elif isinstance(engine, Etcd):
        engine.ctl("put", "filler", "." * 100_000, check=False)


def has_ended(engine: Engine) -> bool:
    assert engine.process is not None
    return engine.process.poll() is not None


@pytest.mark.parametrize("kind", [Postgresql, Redis, Etcd], ids=lambda each: each.__name__.lower())
def test_a_store_whose_disk_is_full_loses_no_step(
    fault: Fault, kind: type[Engine], small_disk: SmallDisk, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(on(kind, small_disk))
        it = Cluster(engine, tmp_path, stack)

        def is_full() -> bool:
            need_room(engine)
            return not any(is_healthy(node.server.client) for node in it.nodes)

        def is_back() -> bool:
            if has_ended(engine):
                # Like systemd.
                engine.kill()
                engine.start()
            return all(is_healthy(node.server.client) for node in it.nodes)

        with Load(it.addresses, conditional=True) as load:
            load.wait_for_steps(STEPS)
            for _ in fault.tries(short=1, long=5, share=0.03):
                filler = fill(engine.folder)
                until(is_full, "all nodes say that the store is unavailable")
                filler.unlink()
                until(is_back, "all nodes serve")
                load.wait_for_steps(STEPS)
        fault.check(load, last=it.index)


def test_a_lost_batch_assumed_applied_would_lose_steps(
    fault: Fault, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """The control of the test above. It changes only the nodes, so one engine is enough."""
    with ExitStack() as stack:
        engine = stack.enter_context(on(Redis, small_disk))
        it = Cluster(engine, tmp_path, stack, variant(takes_a_lost_batch_for_made))
        with Load(it.addresses, conditional=True) as load:
            for _ in fault.tries(short=1, long=1, share=0):
                load.wait_for_steps(STEPS)
                filler = fill(engine.folder)
                until(lambda: has_ended(engine), "there is no room for a step")
                load.wait_for_errors()
        engine.kill()
        filler.unlink()
        engine.start()
        fault.saw(lost=load.lost(it.index))
        with pytest.raises(WrongAnswer):
            load.check(first=0, last=it.index)
