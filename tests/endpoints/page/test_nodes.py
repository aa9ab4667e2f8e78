"""Behind a load balancer: another node answers each question, and each knows another index."""

import itertools
from copy import deepcopy
from typing import Any, Final

import pytest
from playwright.sync_api import Route, expect

from tests.endpoints.page.viewer import Viewer
from tests.support.reference import digits_of
from tests.support.servers import Client
from tests.support.waiting import until
from web.endpoints.record import Status
from web.endpoints.schemas import example_of

pytestmark = pytest.mark.processes

NAMES: Final = ("fib-1:8080", "fib-2:8080")


class Balancer:
    """Two nodes of one store. Each returns its own index with ``/status``, the store's with
    ``/current``."""

    def __init__(self, viewer: Viewer) -> None:
        self.index = 195
        self.asked = 0
        self.nodes: list[dict[str, Any]] = []
        for at, name in enumerate(NAMES):
            node: dict[str, Any] = deepcopy(example_of(Status))
            node["process"] |= {"node": name, "pid": 70 + at}
            node["store"] |= {"kind": "redis", "sequence": "fibonacci", "synchronous": None}
            node |= {"standby": None, "backup_copy": None, "index": str(188 + at)}
            node["takeovers"] = {"number": 0, "at": None, "after": None, "seconds": None}
            self.nodes.append(node)
        self._turns = itertools.cycle(self.nodes)
        viewer.page.route("**/status", self._status)
        viewer.page.route("**/current", self._current)
        viewer.page.add_init_script(
            "window.indexes = []; new MutationObserver(() => {"
            "const text = document.getElementById('index')?.textContent.replace(/,/g, '');"
            "if (/\\d/.test(text) && window.indexes.at(-1) !== +text) window.indexes.push(+text);"
            "}).observe(document, {subtree: true, childList: true, characterData: true})"
        )

    def wait_for_answers(self, viewer: Viewer, count: int) -> None:
        """Each node answers so often."""
        end = self.asked + count * len(self.nodes)

        def have_come() -> bool:
            viewer.page.evaluate("0")  # The routes are served while the browser is waited for.
            return self.asked >= end

        until(have_come, f"{count} answers of each node")

    def _status(self, route: Route) -> None:
        node = next(self._turns)
        node["now"] += 1.0
        self.asked += 1
        route.fulfill(json=node)

    def _current(self, route: Route) -> None:
        tag = f'"{self.index}-text"'
        headers = {"ETag": tag, "Content-Type": "text/plain"}
        if route.request.headers.get("if-none-match") == tag:
            route.fulfill(status=304, headers=headers)
        else:
            route.fulfill(headers=headers, body=digits_of(self.index))


def indexes(viewer: Viewer) -> list[int]:
    """All that the page has shown."""
    shown: list[int] = viewer.page.evaluate("window.indexes")
    return shown


@pytest.fixture
def balancer(viewer: Viewer, client: Client) -> Balancer:
    balancer = Balancer(viewer)
    viewer.opens(client)
    viewer.sees("#index", "195")
    return balancer


def test_the_index_is_the_stores_whichever_node_answers(viewer: Viewer, balancer: Balancer) -> None:
    balancer.wait_for_answers(viewer, 2)
    balancer.index = 201
    viewer.sees("#index", "201")
    assert viewer.digits == (digits_of(201).decode(), "")
    balancer.wait_for_answers(viewer, 2)
    assert indexes(viewer) == [195, 201]


def test_an_index_as_each_node_knows_it_would_jump(viewer: Viewer, client: Client) -> None:
    """The control: with a store that only one server has, the index is the status'."""
    balancer = Balancer(viewer)
    for node in balancer.nodes:
        node["store"]["sequence"] = None
    viewer.opens(client)
    viewer.sees("#index", "189")
    viewer.sees_at("#events", "Process 71 serves")
    assert indexes(viewer) == [188, 189]


def test_an_answer_that_was_overtaken_moves_nothing(viewer: Viewer, balancer: Balancer) -> None:
    balancer.index = 190
    balancer.wait_for_answers(viewer, 1)
    balancer.index = 196
    viewer.sees("#index", "196")
    assert indexes(viewer) == [195, 196]


def test_a_sequence_that_a_person_lowered_is_shown_after_seconds(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.index = 7
    asked = balancer.asked
    viewer.sees("#index", "7")
    assert viewer.digits == ("13", "")
    assert balancer.asked - asked > 2
    assert indexes(viewer) == [195, 7]


def test_the_nodes_that_answered_are_listed_and_none_has_taken_over(
    viewer: Viewer, balancer: Balancer
) -> None:
    viewer.sees("#who", "Nodes")
    viewer.sees_at("#server", "2 nodes met")
    for one_servers in ("#standby", "#takeovers"):
        expect(viewer.page.locator(one_servers)).to_be_hidden()
    for name, pid in zip(NAMES, (70, 71), strict=True):
        viewer.sees_at("#server", f"{name}: process {pid}, healthy")
    balancer.wait_for_answers(viewer, 2)
    assert viewer.text("#events") == ""
    viewer.sees_at("#charted", f"charts of the last minutes of {NAMES[0]}")
    # The control: the process of one of them has changed.
    balancer.nodes[1]["process"] |= {"pid": 99, "began": balancer.nodes[1]["now"]}
    viewer.sees_at("#events", f"Process 99 at {NAMES[1]} serves: the server was restarted")
    balancer.wait_for_answers(viewer, 2)
    assert viewer.page.locator("#events li").count() == 1


def test_a_node_that_can_not_reach_the_store_is_named(viewer: Viewer, balancer: Balancer) -> None:
    balancer.nodes[1] |= {"healthy": False, "reason": "Redis does not answer.", "index": None}
    viewer.sees("#state", "Degraded")
    viewer.sees("#banner", f"1 of 2 nodes unavailable. {NAMES[1]}: Redis does not answer.")
    balancer.wait_for_answers(viewer, 2)
    viewer.sees("#state", "Degraded")
    viewer.sees("#index", "195")
    balancer.nodes[0] |= {"healthy": False, "reason": "Redis does not answer.", "index": None}
    viewer.sees("#state", "Unavailable")
    viewer.sees("#banner", "Redis does not answer.")


def test_a_status_without_the_node_is_of_its_process(viewer: Viewer, client: Client) -> None:
    """Of an older version, while nodes are upgraded one by one."""
    balancer = Balancer(viewer)
    for node in balancer.nodes:
        del node["process"]["node"]
    viewer.opens(client)
    viewer.sees_at("#server", "process 70: process 70")
    viewer.sees_at("#server", "2 nodes met")
    assert viewer.text("#events") == ""
