"""The recorded heads of real clients: parsed exactly, varied, and how they are recorded."""

import http.client
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from bench import heads
from bench.heads import Request, parse, proxies, record
from bench.heads.drivers import CLIENTS, READS, Client, MissingError
from bench.heads.recorder import Recorder
from bench.load import workloads


@pytest.mark.parametrize("client", heads.clients())
def test_recorded_requests_are_parsed_without_losing_a_byte(client: str) -> None:
    raw = (heads.DATA / f"{client}.http").read_bytes()
    assert b"".join(request.raw for request in heads.requests(client)) == raw
    for request in heads.requests(client):
        assert request.head.endswith(b"\r\n\r\n")
        assert b"\n" not in request.head.replace(b"\r\n", b"")
        assert request.path in ("/current", "/next")
        assert request.field("host") == heads.HOST.decode()


def test_every_available_client_was_recorded() -> None:
    assert set(heads.clients()) == set(CLIENTS)
    assert heads.clients()[0] == heads.PLAINEST


def test_a_recorded_request_has_its_method_path_body_and_condition() -> None:
    post = heads.requests("requests")[3]
    assert (post.method, post.path, post.body) == ("POST", "/next", b"{}")
    assert post.name == "requests: POST /next with a body"
    assert heads.requests("curl")[4].condition == "if-match"
    closing = {name for name in heads.clients() if heads.requests(name)[0].closes}
    assert closing == {"ab", "curl-http1.0", "nginx-default"}


def test_a_body_in_chunks_ends_with_its_last_chunk() -> None:
    (request,) = heads.requests("curl-chunked")
    assert request.body == b"2\r\n{}\r\n0\r\n\r\n"
    assert list(parse("x", request.raw * 2)) == [Request("x", request.head, request.body)] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
def test_an_incomplete_request_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="x: "):
        list(parse("x", data))


@pytest.mark.parametrize("name", workloads.VARYING)
def test_a_varying_head_differs_only_in_the_named_field(name: str) -> None:
    (plain,) = parse("x", b"GET /next HTTP/1.1\r\nHost: a\r\ntraceparent: 00-1\r\n\r\n")
    (made,) = parse("x", workloads.varying(plain, name))
    value = made.field(name.lower())
    assert [field for field in made.fields if field not in plain.fields] == [(name.lower(), value)]
    assert workloads.DIGIT.decode() in (value or "")


class TestAsking:
    def test_each_client_repeats_all_of_its_recorded_requests(self) -> None:
        kinds = {
            what: [a.client for a in workloads.of_clients() if a.what == what]
            for what in workloads.KINDS
        }
        whole = [name for name in heads.clients() if not CLIENTS[name].cases[0].startswith("POST")]
        assert kinds["current"] == kinds["next"] == whole
        assert len(kinds["if-match"]) == len(kinds["post"]) == len(whole) - 2
        assert len(kinds["304"]) == len(whole) - 1  # curl with HTTP/1.0 was not recorded doing that

    def test_clients_other_than_the_plainest_can_be_chosen(self) -> None:
        """The plainest stays, for comparison."""
        chosen = {asked.client for asked in workloads.of_clients(["jdk"])}
        assert chosen == {heads.PLAINEST, "jdk"}


class TestRecording:
    @staticmethod
    def record(
        monkeypatch: pytest.MonkeyPatch, folder: Path, made: dict[str, Client], *names: str
    ) -> int:
        monkeypatch.setattr(record, "CLIENTS", made)
        monkeypatch.setattr(record, "DATA", folder)
        monkeypatch.setattr("sys.argv", ["record", *names])
        for proxy in ("nginx", "haproxy"):
            monkeypatch.setattr(proxies, proxy, missing)
        return record.main()

    def test_a_written_recording_is_read_back_unchanged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def drive(_: Path, base: str, cases: Sequence[str]) -> None:
            for case in cases:
                method, path, *_rest = case.split("|")
                connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=30)
                for wanted in (path, "/favicon.ico"):
                    connection.request(method, wanted)
                    connection.getresponse().read()
                connection.close()

        made = {"mine": Client(drive, READS)}
        assert self.record(monkeypatch, tmp_path, made) == 0
        assert "mine: 2 requests, written" in capsys.readouterr().out
        sent = list(parse("mine", (tmp_path / "mine.http").read_bytes()))
        assert [request.path for request in sent] == ["/current", "/next"]
        assert {request.field("host") for request in sent} == {"127.0.0.1:8080"}
        assert self.record(monkeypatch, tmp_path, made) == 0
        assert "mine: 2 requests, unchanged" in capsys.readouterr().out

    def test_a_missing_client_is_named_and_keeps_its_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.http").write_bytes(b"as it was")
        made = {"mine": Client(missing), "behind": Client(missing, proxy="nginx-usual")}
        assert self.record(monkeypatch, tmp_path, made) == 1
        said = capsys.readouterr().err
        assert "mine: not recorded: it is missing: apt-get install it" in said
        assert "behind: not recorded: nginx is missing" in said
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
            ("mine.http", b"as it was")
        ]


def missing(*_: object) -> NoReturn:
    raise MissingError("it is missing: apt-get install it")


class TestRecorder:
    @pytest.fixture
    def recorder(self) -> Iterator[Recorder]:
        made = Recorder()
        yield made
        made.close()

    def test_a_request_is_kept_once_without_details_of_this_machine(
        self, recorder: Recorder
    ) -> None:
        recorder.mask(4321)
        request = (
            b"POST /next HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nReferer: http://127.0.0.1:4321/\r\n"
            b"X-Request-Id: %b\r\nContent-Length: 2\r\n\r\n{}"
        )
        with socket.create_connection(("127.0.0.1", recorder.port), timeout=30) as client:
            for letter in (b"a", b"b"):
                sent = request % (recorder.port, letter * 32)
                client.sendall(sent[:9])
                client.sendall(sent[9:])
                assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        (kept,) = recorder.take()
        assert b"\r\nHost: 127.0.0.1:8080\r\nReferer: http://127.0.0.1:8080/\r\n" in kept
        assert b"\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\n" in kept
        assert recorder.take() == []
