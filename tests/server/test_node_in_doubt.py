"""The answers of a node whose batch is committed in the engine, but whose reply is lost."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import Engines
from tests.support.engines import Redis
from tests.support.nodes import Nodes
from tests.support.proxy import Proxy
from tests.support.raw_clients import body_of, read_all, read_first, send_step
from tests.support.waiting import until

pytestmark = pytest.mark.processes


class Node:
    """A server whose second step is committed, but that can't find that out."""

    def __init__(self, redis: Redis, logs: Path, stack: ExitStack) -> None:
        self._redis = redis
        self._nodes = nodes = Nodes(redis, logs, stack)
        self.acl("reset", "on", ">secret", "~*", "+@all")
        stack.callback(redis.cli, "acl", "deluser", "narrow")
        self.proxy = stack.enter_context(Proxy(redis.port))
        url = f"redis://narrow:secret@127.0.0.1:{self.proxy.port}"
        self.server = nodes.start(url, settings={"FIB_STOP_TIMEOUT": "1"})
        self.client = self.server.wait_until_it_serves().client
        assert self.client.get("/next").index == 1
        self._stack = stack
        self.lose_a_reply()
        assert self.index == 2

    def lose_a_reply(self) -> None:
        """Send a step that is committed without the node finding out."""
        # Its connection stays open, and new ones are refused.
        self.acl("resetpass", ">another")
        self.proxy.lose_a_reply(b"node:")
        self.step: socket.socket = self._stack.enter_context(send_step(self.client))
        until(lambda: "whether the last" in self.detail("/health"), "/health says why")

    def allow(self) -> None:
        self.acl("resetpass", ">secret")

    def acl(self, *rules: str) -> None:
        assert self._redis.cli("acl", "setuser", "narrow", *rules) == "OK"

    @property
    def index(self) -> int:
        with closing(self._nodes.opener.open()) as store:
            return store.read()

    @property
    def key(self) -> str:
        return f"fibcore:{{{self._nodes.sequence}}}"

    def detail(self, path: str) -> str:
        answer = self.client.get(path)
        if answer.status == 200:
            return ""
        assert answer.status == 503
        return str(json.loads(answer.body)["detail"])

    def remove_records(self) -> None:
        fields = self._redis.cli("hkeys", self.key).split()
        assert self._redis.cli("hdel", self.key, *(each for each in fields if each != "index"))


@pytest.fixture
def node(engines: Engines, tmp_path: Path) -> Iterator[Node]:
    redis = engines(Redis)
    with ExitStack() as stack:
        yield Node(redis, tmp_path, stack)


def test_a_step_in_doubt_waits_and_a_stop_leaves_it_unanswered(node: Node) -> None:
    for path in ("/next", "/current", "/previous"):
        assert "whether the last step was made" in node.detail(path)
    assert "invalid username-password pair" in node.server.log.text
    assert "whether the last step was made" in node.server.log.text
    node.step.setblocking(False)
    with pytest.raises(BlockingIOError):
        node.step.recv(1)
    node.step.setblocking(True)
    node.allow()
    assert body_of(read_first(node.step)) == '{"next": 1}'
    until(lambda: node.detail("/health") == "", "it is healthy")
    assert node.client.get("/next").index == 3
    # At a stop in doubt, nothing of the step is answered.
    node.lose_a_reply()
    node.server.signal(signal.SIGTERM)
    assert read_all(node.step) == b""
    assert node.server.wait() == 0
    assert node.index == 4


def test_a_server_exits_unanswered_if_its_record_is_gone_in_doubt(node: Node) -> None:
    node.remove_records()
    node.allow()
    assert read_all(node.step) == b""
    assert node.server.wait() == os.EX_IOERR
    assert "whether the last step was made can't be determined" in node.server.log.text
    assert node.index == 2
