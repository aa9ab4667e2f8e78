"""A crowd requests numbers of 1 MB and reads none: all processes stay within the unit's memory."""

from collections import Counter
from contextlib import ExitStack
from typing import Final

import pytest

from tests.faults.conftest import SECONDS, Fault
from tests.faults.limited_memory import UNIT_LIMIT, limited_memory
from tests.faults.readers import INDEX, crowd
from tests.faults.server_variants import (
    counts_no_bytes_in_flight,
    variant,
)
from tests.support.reference import digits_of
from tests.support.servers import Client
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("descriptors")]


READERS: Final = 1000 if SECONDS else 50

IN_FLIGHT: Final[dict[str, str]] = {} if SECONDS else {"FIB_MAX_ANSWER_BYTES": str(8 * 2**20)}
"""In the short form the bound is lower, so that few readers reach it."""


def test_a_crowd_that_reads_nothing_does_not_fill_memory(fault: Fault) -> None:
    with limited_memory(INDEX, IN_FLIGHT) as it:
        appliance = it.appliance
        client = Client(f"http://127.0.0.1:{appliance.port}")
        pid = appliance.server
        with ExitStack() as connections:
            readers = crowd(client, connections, READERS)
            assert client.get("/health").status == 200
            heads = [(reader, reader.head()) for reader in readers]
            outcomes = Counter((reader.path, head[9:12]) for reader, head in heads)
            stepped = outcomes["next", b"200"]
            # A step past the bound was not made, and its client may retry.
            assert outcomes["next", b"503"] > 0
            assert {status for _, status in outcomes} <= {b"200", b"503"}
            assert all(b"\r\nretry-after: 1" in head for _, head in heads if head[9:12] == b"503")
            assert client.index == INDEX + stepped
            assert client.get("/health").status == 200
            it.measure()
            # Some continue to read, slowly: they get their whole answer, if they are in time.
            served = [reader for reader, head in heads if head[9:12] == b"200"]
            taken = list(filter(None, (reader.take() for reader in served[:: len(served) // 4])))
            assert taken == [(index, digits_of(index)) for index, _ in taken]
        until(lambda: client.get("/next").status == 200, "there is room for a step")
        assert client.index == INDEX + stepped + 1
        assert appliance.server == pid
    fault.tried += 1
    fault.saw(
        lost=0,
        note=f"{it}; {READERS} readers, {stepped} steps made, {outcomes['next', b'503']} shed",
    )
    assert it.most < UNIT_LIMIT


@pytest.mark.long
def test_without_a_bound_on_bytes_in_flight_it_would_fill_memory() -> None:
    with (
        limited_memory(INDEX, command=variant(counts_no_bytes_in_flight)) as it,
        ExitStack() as connections,
    ):
        client = Client(f"http://127.0.0.1:{it.appliance.port}")
        crowd(client, connections, READERS)
        until(
            lambda: (
                it.most > UNIT_LIMIT
                or bool(it.appliance.log("supervisord").find("terminated by SIGKILL"))
            ),
            "the memory is full",
        )
