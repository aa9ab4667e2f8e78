"""The page behind a load balancer: each request may reach another node, with another index."""

import itertools
from copy import deepcopy
from typing import Any, Final

import pytest
from playwright.sync_api import Route, expect

from tests.endpoints.page.viewer import Viewer
from tests.support.openapi import Document
from tests.support.reference import digits_of
from tests.support.servers import Client
from tests.support.waiting import until

pytestmark = pytest.mark.processes

NAMES: Final = ("4f1c09ab", "e27b8d10")

NOTE_INDEXES: Final = """
window.indexes = [];
new MutationObserver(() => {
  const text = document.getElementById('index')?.textContent.replace(/,/g, '');
  if (/\\d/.test(text) && window.indexes.at(-1) !== +text) window.indexes.push(+text);
}).observe(document, {subtree: true, childList: true, characterData: true});
"""


class Balancer:
    """Two nodes of one store that answer alternately: one has read index 188, the other 195."""

    def __init__(self, viewer: Viewer, client: Client) -> None:
        example = Document(client).example("/status")
        self.page = viewer.page
        self.answers = 0
        self.nodes: list[dict[str, Any]] = []
        for at, name in enumerate(NAMES):
            node: dict[str, Any] = deepcopy(example)
            node["process"] |= {"node": name, "pid": 70 + at}
            node["store"] |= {"kind": "redis", "sequence": "fibonacci", "synchronous": None}
            node |= {"standby": None, "backup_copy": None}
            node["takeovers"] = {"number": 0, "at": None, "after": None, "seconds": None}
            self.nodes.append(node)
        self.move(188, 195)
        self._turns = itertools.cycle(self.nodes)
        self.page.route("**/status", self._answer)
        self.page.add_init_script(NOTE_INDEXES)
        self.page.clock.install()

    def move(self, *indexes: int) -> None:
        """Let each node read its index of ``indexes``."""
        for node, index in zip(self.nodes, indexes, strict=True):
            digits = digits_of(index).decode()
            node |= {"index": str(index), "digits": len(digits), "first": digits, "last": ""}

    def answer(self, count: int) -> None:
        """Let the page poll until each node has answered this often."""
        end = self.answers + count * len(self.nodes)

        def have_answered() -> bool:
            self.page.clock.run_for(250)
            return self.answers >= end

        until(have_answered, f"{count} answers of each node")

    @property
    def indexes(self) -> list[int]:
        """Every index that the page has shown."""
        shown: list[int] = self.page.evaluate("window.indexes")
        return shown

    def _answer(self, route: Route) -> None:
        node = next(self._turns)
        node["now"] += 1.0
        self.answers += 1
        route.fulfill(json=node)


@pytest.fixture
def balancer(viewer: Viewer, still: Client) -> Balancer:
    balancer = Balancer(viewer, still)
    viewer.opens(still)
    balancer.answer(1)
    viewer.sees("#index", "195")
    return balancer


def test_the_index_never_goes_back_whichever_node_answers(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.answer(2)
    balancer.move(201, 195)
    balancer.answer(2)
    viewer.sees("#index", "201")
    assert viewer.digits == (digits_of(201).decode(), "")
    assert balancer.indexes == [188, 195, 201]
    # Its ends come from /status: the number is not fetched.
    assert not [url for url in viewer.asked if "/current" in url]


def test_an_index_lowered_by_a_person_is_shown_after_some_seconds(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.move(7, 7)
    balancer.answer(1)
    viewer.sees("#index", "195")
    balancer.answer(4)
    viewer.sees("#index", "7")
    assert viewer.digits == ("13", "")
    assert balancer.indexes == [188, 195, 7]


def test_the_nodes_are_listed_and_none_counts_as_a_takeover(
    viewer: Viewer, balancer: Balancer
) -> None:
    viewer.sees("#who", "Nodes")
    viewer.sees_at("#server", "2 nodes in the last 5 minutes")
    for one_servers in ("#standby", "#takeovers"):
        expect(viewer.page.locator(one_servers)).to_be_hidden()
    for name, pid in zip(NAMES, (70, 71), strict=True):
        viewer.sees_at("#server", f"Node {name}: process {pid}, healthy")
    balancer.answer(2)
    assert viewer.text("#events") == ""
    viewer.sees_at("#charted", f"charts of the last minutes, for node {NAMES[0]}")
    # The control: the process of one of them has changed.
    balancer.nodes[1]["process"] |= {"pid": 99, "began": balancer.nodes[1]["now"]}
    balancer.answer(2)
    viewer.sees_at("#events", f"Process 99 at node {NAMES[1]} serves: the server was restarted")
    assert viewer.page.locator("#events li").count() == 1
