"""The simulated world: time, threads, event loop and network."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.simulation.network import ClientSocket, Listener, Network
from tests.simulation.process import Process, Queue
from tests.simulation.world import Violation, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World(1)
    yield made
    made.close()


def test_a_thread_that_blocks_is_resumed_at_its_time(world: World) -> None:
    process, seen = Process(world, "a"), []

    def run() -> None:
        process.sleep(5)
        seen.append(world.now)

    process.spawn(run)
    world.run(4.9)
    assert seen == []
    world.run(6)
    assert seen == [pytest.approx(5, abs=0.01)]


def test_a_killed_process_does_nothing_more(world: World) -> None:
    process, seen = Process(world, "a"), []

    def run() -> None:
        try:
            process.sleep(5)
        finally:
            seen.append(world.closing)

    process.spawn(run)
    world.after(1, None, process.kill)
    world.run(9)
    assert seen == []
    world.close()
    assert seen == [True]


def test_a_stopped_process_continues_when_it_is_resumed(world: World) -> None:
    process, seen = Process(world, "a"), []

    async def main() -> None:
        await asyncio.sleep(2)
        seen.append(world.now)

    process.run(main())
    world.after(1, None, process.stop)
    world.after(7, None, process.resume)
    world.run(9)
    assert seen == [pytest.approx(7, abs=0.01)]


def test_an_unhandled_error_is_a_violation(world: World) -> None:
    process = Process(world, "a")

    async def main() -> None:
        process.loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    process.run(main())
    with pytest.raises(Violation, match="ZeroDivisionError"):
        world.run(9)


def test_a_queue_is_first_in_first_out_and_a_wait_for_it_times_out(world: World) -> None:
    process, seen = Process(world, "a"), []
    queue = Queue(world)

    def take() -> None:
        seen.append(queue.get())
        seen.append(queue.get())
        with pytest.raises(TimeoutError):
            queue.get(3)
        seen.append(round(world.now))

    process.spawn(take)
    world.after(1, None, queue.put, "a")
    world.after(2, None, queue.put, "b")
    world.run(9)
    assert seen == ["a", "b", 5]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


@pytest.mark.parametrize("way", [("b", "a"), ("a", "b")])
def test_data_sent_into_a_cut_arrives_after_it_heals(world: World, way: tuple[str, str]) -> None:
    network, server, client = Network(world), Process(world, "a"), Process(world, "b")
    listener, seen = Listener(network, "a"), []

    async def main() -> None:
        listener.serve(server.loop, Echo)
        await asyncio.sleep(100)

    def ask() -> None:
        there = ClientSocket(client, listener)
        there.send(b"hello")
        seen.append((there.receive(60), round(world.now, -1)))

    server.run(main())
    network.cut(*way)
    client.spawn(ask)
    world.after(18, None, network.heal, *way)
    world.run(99)
    assert seen == [(b"HELLO", 20)]


def test_the_end_of_a_process_resets_its_connections(world: World) -> None:
    network, server, client = Network(world), Process(world, "a"), Process(world, "b")
    listener, seen = Listener(network, "a"), []

    async def main() -> None:
        listener.serve(server.loop, Echo)
        await asyncio.sleep(100)

    def ask() -> None:
        there = ClientSocket(client, listener)
        with pytest.raises(ConnectionResetError):
            there.receive(60)
        seen.append(round(world.now))

    server.run(main())
    client.spawn(ask)
    world.after(5, None, server.kill)
    world.run(99)
    assert seen == [5]
