"""The load generator, load.c, against servers that answer from a script."""

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import NONE, OK, Record, program, read
from tests.support.checker import MODULUS, Integers


@pytest.fixture(scope="module", name="program")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("load"))


class TestGenerator:
    """load.c, against a server that answers one connection at a time from a script."""

    @pytest.fixture
    def listener(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(30)
            yield listening

    @staticmethod
    def run(
        program: Path, listener: socket.socket, folder: Path, *options: str
    ) -> tuple[dict[str, int], list[Record]]:
        port, path = listener.getsockname()[1], folder / "records"
        done = subprocess.run(
            [program, "--port", str(port), "--records", path, *options],
            capture_output=True,
            check=True,
            timeout=60,
        )
        return json.loads(done.stdout), read(path)

    @staticmethod
    def answer(
        listener: socket.socket, bodies: list[bytes], stall: float = 0, cut: int = 0
    ) -> None:
        """Sends each body in turn, the first after `stall` seconds, in pieces of `cut` bytes."""
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            for i, body in enumerate(bodies):
                connection.recv(4096)
                time.sleep(stall * (i == 0))
                head = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%d"\r\n\r\n'
                data = head % (len(body), i) + body
                for at in range(0, len(data), cut or len(data)):
                    connection.sendall(data[at : at + (cut or len(data))])

    @pytest.mark.processes
    @pytest.mark.parametrize("integers", ["exact", "uint64"])
    @pytest.mark.parametrize("cut", [0, 7])
    def test_the_residue_of_numbers_of_every_length_is_recorded(
        self, program: Path, listener: socket.socket, tmp_path: Path, integers: Integers, cut: int
    ) -> None:
        numbers = [int("9876543210" * 5) // 10**digits for digits in range(49)]
        bodies = [b'{"current": %d}' % number for number in numbers]
        threading.Thread(target=self.answer, args=(listener, bodies, 0, cut), daemon=True).start()
        options = ["--stream", "/current", "--requests", str(len(bodies)), "--seconds", "20"]
        if integers == "uint64":
            options.append("--uint64")
        counts, found = self.run(program, listener, tmp_path, *options)
        assert [r.residue for r in found] == [number % MODULUS[integers] for number in numbers]
        assert [r.index for r in found] == list(range(len(bodies)))
        assert (counts["issued"], counts["lost"], counts["unsent"]) == (len(bodies), 0, 0)

    @pytest.mark.processes
    @pytest.mark.parametrize(
        "body", [b'{"current": 12x}', b'{"current": 1234567x901234567}', b'{"next": 1}', b'{"curr']
    )
    def test_a_body_without_exactly_one_number_is_recorded_as_malformed(
        self, program: Path, listener: socket.socket, tmp_path: Path, body: bytes
    ) -> None:
        threading.Thread(target=self.answer, args=(listener, [body]), daemon=True).start()
        _, found = self.run(program, listener, tmp_path, "--stream", "/current", "--requests", "1")
        assert [r.status for r in found] == [1]

    @pytest.mark.processes
    def test_a_stall_adds_to_the_latency_of_all_requests_due_meanwhile(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        bodies = [b'{"current": 1}'] * 10
        threading.Thread(target=self.answer, args=(listener, bodies, 0.3), daemon=True).start()
        options = ("--stream", "/current:100", "--requests", "10", "--seconds", "10")
        _, found = self.run(program, listener, tmp_path, *options)
        assert len(found) == 10
        for i, each in enumerate(found):  # due every 10 ms, all answered after the 300 ms
            assert each.due - found[0].due == i * 10_000_000
            assert each.done - each.due >= 300_000_000 - i * 10_000_000
        assert found[1].sent - found[1].due >= 290_000_000

    @pytest.mark.processes
    def test_a_lost_connection_is_a_lost_request_and_is_reopened(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.close()
            self.answer(listener, [b'{"current": 1}'])

        threading.Thread(target=serve, daemon=True).start()
        options = ("--stream", "/current", "--requests", "2", "--seconds", "20")
        counts, found = self.run(program, listener, tmp_path, *options)
        assert [r.status for r in found] == [0, OK]
        assert (counts["opened"], counts["lost"], counts["refused"]) == (2, 1, 0)

    @pytest.mark.processes
    def test_a_recorded_request_is_sent_with_its_varying_field(
        self, program: Path, listener: socket.socket, tmp_path: Path
    ) -> None:
        heard: list[bytes] = []

        def serve() -> None:
            for _ in range(2):  # a server that closes after each answer without announcing it
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(4096))
                    connection.sendall(b'HTTP/1.0 304 Not Modified\r\nETag: "7"\r\n\r\n')

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        sent = tmp_path / "request"
        sent.write_bytes(b'GET /next HTTP/1.0\r\nX: \0\0\0\0\0\0\0\0\r\nIf-Match: "\1"\r\n\r\n')
        options = ("--stream", "/next", "--request", str(sent), "--requests", "2")
        counts, found = self.run(program, listener, tmp_path, *options, "--seconds", "20")
        serving.join(30)
        assert [(r.status, r.index, r.residue) for r in found] == [(304, 7, NONE)] * 2
        assert counts["lost"] == 0
        pattern = rb'GET /next HTTP/1.0\r\nX: ([0-9a-f]{8})\r\nIf-Match: "(\d)"\r\n\r\n'
        (first, before), (second, after) = (
            match.groups() for each in heard if (match := re.fullmatch(pattern, each))
        )
        assert first != second
        assert (before, after) == (b"0", b"7")
