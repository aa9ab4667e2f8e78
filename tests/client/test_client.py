"""Both clients with a server that loses answers, cuts connections and sheds requests."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.metadata import version

import gmpy2
import pytest

import fibcore
from fibcore import AsyncClient, Client
from fibcore.client import (
    ClientError,
    KeyAheadError,
    KeyForgottenError,
    LargestIndexError,
    Number,
    RejectedError,
    StepInDoubtError,
    UnexpectedReplyError,
)
from tests.client.conftest import Connect
from tests.support.fake_server import (
    FakeServer,
    Fault,
    answer,
    close_later,
    cut,
    hang,
    lose,
    raw,
    without_length,
)
from tests.support.ports import free_port
from tests.support.reference import fibonacci


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def test_numbers_come_with_their_indexes(connect: Connect, server: FakeServer) -> None:
    client = connect(server.url)
    assert [client.current(), client.previous()] == [Number(0, "0"), Number(0, "0")]
    assert [client.next() for _ in range(4)] == [
        Number(index, str(fibonacci(index))) for index in (1, 2, 3, 4)
    ]
    assert [client.previous(), client.current()] == [Number(3, "2"), Number(4, "3")]
    assert client.number(90) == Number(90, str(fibonacci(90)))


def test_a_number_is_exact_past_4300_digits(connect: Connect) -> None:
    """``int`` rejects longer text: ``sys.set_int_max_str_digits``."""
    with FakeServer(100_000) as server:
        number = connect(server.url).current()
    assert len(number.digits) > sys.get_int_max_str_digits()
    assert int(number) == int(gmpy2.fib(100_000))
    assert str(number) == number.digits
    assert number.digits not in repr(number)


def test_a_client_keeps_its_connection(connect: Connect, server: FakeServer) -> None:
    client = connect(server.url)
    for _ in range(3):
        client.next()
    assert len({each.connection for each in server.asked}) == 1


def test_each_step_has_a_key_of_its_own(connect: Connect, server: FakeServer) -> None:
    """A key has the last index seen, and 128 random bits."""
    client = connect(server.url)
    for _ in range(3):
        client.next()
    indexes, random = zip(*(str(key).strip('"').split(":") for key in server.keys), strict=True)
    assert indexes == ("0", "1", "2")
    assert len(set(random)) == 3
    assert {len(each) for each in random} == {22}


@pytest.mark.parametrize("fault", [lose, cut, without_length], ids=lambda fault: fault.__name__)
def test_a_step_whose_answer_is_lost_is_made_once(
    connect: Connect, server: FakeServer, fault: Fault
) -> None:
    server.index = 20
    client = connect(server.url)
    client.current()
    server.will(fault, fault, answer, fault)
    assert [client.next().index, client.next().index] == [21, 22]
    assert server.index == 22
    assert len(server.keys) == 5
    assert len(set(server.keys)) == 2


def test_without_keys_a_lost_answer_would_be_a_second_step(connect: Connect) -> None:
    with FakeServer(keeps_keys=False) as server:
        client = connect(server.url)
        client.current()
        server.will(lose)
        assert client.next().index == 2


def test_a_missing_answer_counts_as_lost_after_the_attempts_timeout(
    connect: Connect, server: FakeServer
) -> None:
    client = connect(server.url, attempt_timeout=0.1)
    client.current()
    server.will(hang)
    assert client.next().index == 1
    assert len(server.keys) > 1
    assert server.index == 1


def test_another_server_is_asked_if_one_does_not_answer(
    connect: Connect, server: FakeServer
) -> None:
    """The key is the same, and from then on that server is asked first."""
    with FakeServer() as other:
        nobody = f"http://127.0.0.1:{free_port()}"
        client = connect([nobody, other.url, server.url])
        client.current()
        other.will(lose)
        assert client.next().index == 1
        assert server.keys == other.keys
        client.next()
        assert (len(server.keys), len(other.keys)) == (2, 1)


def test_a_step_in_doubt_is_requested_again_with_its_key(
    connect: Connect, server: FakeServer
) -> None:
    client = connect(server.url)
    client.current()
    server.will(*[lose] * 100)
    with pytest.raises(StepInDoubtError) as caught:
        client.next(timeout=1.0)
    server.heal()
    assert f"its key is {caught.value.key}" in str(caught.value)
    assert "fibcore next --key" in caught.value.explain()
    assert client.next(key=caught.value.key).index == 1
    assert server.index == 1


def test_a_killed_client_can_repeat_its_step_with_a_saved_key(
    connect: Connect, server: FakeServer
) -> None:
    first = connect(server.url)
    key = first.new_key()
    assert first.next(key=key).index == 1
    assert connect(server.url).next(key=key).index == 1
    assert server.index == 1


def test_a_trickling_answer_does_not_outlast_the_timeout(connect: Connect) -> None:
    """Each byte by itself arrives in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                while not ended.wait(0.01):
                    try:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"[:1])
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2)
        with pytest.raises(ClientError):
            client.current()
        ended.set()
        thread.join()


PROBLEM = "Content-Type: application/problem+json\n\n"


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (
            f'HTTP/1.1 403 Forbidden\n{PROBLEM}{{"detail": "Not for you."}}',
            RejectedError,
            "rejected the request (403): Not for you.",
        ),
        (
            f'HTTP/1.1 409 Conflict\n{PROBLEM}{{"detail": "It ends here.", "index": 7}}',
            LargestIndexError,
            "It ends here.",
        ),
        ("HTTP/1.1 308 x\nLocation: http://there/\n\n", UnexpectedReplyError, "to http://there/"),
        ("HTTP/1.1 204 No Content\n\n", UnexpectedReplyError, "204 No Content"),
        ("HTTP/1.1 777 x\n\n", UnexpectedReplyError, "777 unknown status"),
        ("HTTP/1.1 200 OK\nContent-Type: text/html\n\n<p>", UnexpectedReplyError, "no ETag"),
    ],
)
def test_an_error_that_retrying_cannot_change_is_raised_at_once(
    connect: Connect, server: FakeServer, reply: str, error: type[ClientError], says: str
) -> None:
    client = connect(server.url)
    key = client.new_key()
    server.will(raw(reply))
    with pytest.raises(error) as caught:
        client.next(key=key)
    assert says in str(caught.value)
    assert server.url in str(caught.value)
    assert server.index == 0


@pytest.mark.parametrize(
    ("key", "error"), [("dropped", KeyForgottenError), ("ahead", KeyAheadError)]
)
def test_a_dropped_key_or_one_ahead_raises_its_own_error(
    connect: Connect, server: FakeServer, key: str, error: type[ClientError]
) -> None:
    """Even after a lost answer: nothing more will be known."""
    client = connect(server.url)
    problem = f'{{"detail": "Nobody knows.", "key": "{key}", "index": 9}}'
    server.will(lose, raw(f"HTTP/1.1 409 Conflict\n{PROBLEM}{problem}"))
    with pytest.raises(error, match="Nobody knows") as caught:
        client.next(key="9:aaaaaaaaaaaaaaaa")
    assert vars(caught.value)["key"] == "9:aaaaaaaaaaaaaaaa"
    assert vars(caught.value)["index"] == 9


def test_a_connection_closed_by_the_server_is_not_reused(
    connect: Connect, server: FakeServer
) -> None:
    """A step sent on it would be in doubt."""
    client = connect(server.url)
    server.will(close_later)
    assert client.current().index == 0
    assert client.next().index == 1
    assert len(server.keys) == 1


def test_credentials_in_the_url_are_sent_but_never_shown(
    connect: Connect, server: FakeServer
) -> None:
    """No error contains the password."""
    client = connect(server.url.replace("//", "//ann:s%2fcret@"))
    client.current()
    assert server.asked[0].fields["authorization"] == "Basic YW5uOnMvY3JldA=="
    server.will(raw("HTTP/1.1 401 Unauthorized\n\n"))
    with pytest.raises(RejectedError, match="401") as caught:
        client.current()
    assert "ann" not in str(caught.value)
    assert caught.value.url == server.url


def test_threads_share_a_client(server: FakeServer) -> None:
    indexes: list[int] = []
    with Client(server.url) as client:

        def steps() -> None:
            indexes.extend(client.next().index for _ in range(20))

        threads = [threading.Thread(target=steps) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(indexes) == list(range(1, 161))
    assert len({each.connection for each in server.asked}) <= 8


def test_each_event_loop_has_its_own_connections(server: FakeServer) -> None:
    """A closed loop would neither deliver an answer nor close its connections."""
    client = AsyncClient(server.url, timeout=60.0, attempt_timeout=60.0)
    assert asyncio.run(client.next()).index == 1
    with warnings.catch_warnings():
        # Correct: the first loop was closed before the client.
        warnings.simplefilter("ignore", ResourceWarning)
        assert asyncio.run(client.next()).index == 2
        asyncio.run(client.close())
        gc.collect()
    assert len({each.connection for each in server.asked}) == 2


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(server: FakeServer) -> None:
    """After a fork, data on a connection of the parent is for the parent."""
    with Client(server.url) as client:
        assert client.next().index == 1
        child = os.fork()
        if child == 0:
            os._exit(client.next().index)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert client.next().index == 3
    assert len({each.connection for each in server.asked}) == 2


@pytest.mark.processes
def test_importing_the_core_does_not_import_the_client() -> None:
    imported = "import fibcore, sys; print(fibcore.Sequence(7).index, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, check=True)
    assert done.stdout == b"7 False\n"


def test_the_version_is_that_of_the_distribution() -> None:
    assert fibcore.__version__ == version("fibcore")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fibcore.nothing  # noqa: B018
