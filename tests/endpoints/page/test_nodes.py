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

NAMES: Final = ("4f1c09ab", "e27b8d10")


class Balancer:
    """Two nodes of one store. Each has read another index of it: 188 and 195."""

    def __init__(self, viewer: Viewer) -> None:
        self.asked = 0
        self.nodes: list[dict[str, Any]] = []
        for at, name in enumerate(NAMES):
            node: dict[str, Any] = deepcopy(example_of(Status))
            node["process"] |= {"node": name, "pid": 70 + at}
            node["store"] |= {"kind": "redis", "sequence": "fibonacci", "synchronous": None}
            node |= {"standby": None, "backup_copy": None}
            node["takeovers"] = {"number": 0, "at": None, "after": None, "seconds": None}
            self.nodes.append(node)
        self.move(188, 195)
        self._turns = itertools.cycle(self.nodes)
        viewer.page.route("**/status", self._status)
        viewer.page.add_init_script(
            "window.indexes = []; new MutationObserver(() => {"
            "const text = document.getElementById('index')?.textContent.replace(/,/g, '');"
            "if (/\\d/.test(text) && window.indexes.at(-1) !== +text) window.indexes.push(+text);"
            "}).observe(document, {subtree: true, childList: true, characterData: true})"
        )

    def move(self, *indexes: int) -> None:
        """Each node reads its index of ``indexes``."""
        for node, index in zip(self.nodes, indexes, strict=True):
            digits = digits_of(index).decode()
            node |= {"index": str(index), "digits": len(digits), "first": digits, "last": ""}

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


def test_the_index_never_goes_back_whichever_node_answers(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.wait_for_answers(viewer, 2)
    balancer.move(201, 196)
    viewer.sees("#index", "201")
    assert viewer.digits == (digits_of(201).decode(), "")
    balancer.wait_for_answers(viewer, 2)
    assert indexes(viewer) == [188, 195, 201]


def test_the_number_is_not_fetched_in_whole_to_show_its_ends(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.move(195, 201)
    viewer.sees("#index", "201")
    balancer.wait_for_answers(viewer, 1)
    assert not [url for url in viewer.asked if "/current" in url]


def test_without_the_rule_of_the_highest_the_index_would_jump(
    viewer: Viewer, client: Client
) -> None:
    """The control: a lower index is taken at once."""

    def weaken(route: Route) -> None:
        answer = route.fetch()
        assert "LOWERED_MS = 5_000" in answer.text()
        route.fulfill(response=answer, body=answer.text().replace("= 5_000", "= 0"))

    viewer.page.route("**/page/seen.js", weaken)
    balancer = Balancer(viewer)
    viewer.opens(client)
    balancer.wait_for_answers(viewer, 2)
    assert indexes(viewer)[:3] == [188, 195, 188]


def test_an_answer_that_was_overtaken_moves_nothing(viewer: Viewer, balancer: Balancer) -> None:
    balancer.move(190, 190)
    balancer.wait_for_answers(viewer, 1)
    balancer.move(196, 196)
    viewer.sees("#index", "196")
    assert indexes(viewer) == [188, 195, 196]


def test_a_sequence_that_a_person_lowered_is_shown_after_seconds(
    viewer: Viewer, balancer: Balancer
) -> None:
    balancer.move(7, 7)
    asked = balancer.asked
    viewer.sees("#index", "7")
    assert viewer.digits == ("13", "")
    assert balancer.asked - asked > 2
    assert indexes(viewer) == [188, 195, 7]


def test_the_nodes_that_answered_are_listed_and_none_has_taken_over(
    viewer: Viewer, balancer: Balancer
) -> None:
    viewer.sees("#who", "Nodes")
    viewer.sees_at("#server", "2 nodes in the last 5 minutes")
    for one_servers in ("#standby", "#takeovers"):
        expect(viewer.page.locator(one_servers)).to_be_hidden()
    for name, pid in zip(NAMES, (70, 71), strict=True):
        viewer.sees_at("#server", f"Node {name}: process {pid}, healthy")
    balancer.wait_for_answers(viewer, 2)
    assert viewer.text("#events") == ""
    viewer.sees_at("#charted", f"charts of the last minutes, for node {NAMES[0]}")
    # The control: the process of one of them has changed.
    balancer.nodes[1]["process"] |= {"pid": 99, "began": balancer.nodes[1]["now"]}
    viewer.sees_at("#events", f"Process 99 at node {NAMES[1]} serves: the server was restarted")
    balancer.wait_for_answers(viewer, 2)
    assert viewer.page.locator("#events li").count() == 1


@pytest.mark.parametrize("width", [375, 768, 1_280])
def test_the_cards_fill_each_row(viewer: Viewer, balancer: Balancer, width: int) -> None:  # noqa: ARG001
    """No card stands alone beside an empty place."""
    viewer.page.set_viewport_size({"width": width, "height": 900})
    viewer.sees("#who", "Nodes")
    for grid in viewer.page.locator(".cards").all():
        edges = "each => [each, each.lastElementChild].map(e => e.getBoundingClientRect().right)"
        whole, last = grid.evaluate(edges)
        assert last == pytest.approx(whole, abs=1)


def test_a_node_that_can_not_reach_the_store_is_named(viewer: Viewer, balancer: Balancer) -> None:
    balancer.nodes[1] |= {"healthy": False, "reason": "Redis does not answer.", "index": None}
    viewer.sees("#state", "Degraded")
    viewer.sees("#banner", f"1 of 2 nodes unavailable. Node {NAMES[1]}: Redis does not answer.")
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
    viewer.sees_at("#server", "Process 70: process 70")
    viewer.sees_at("#server", "2 nodes in the last 5 minutes")
    assert viewer.text("#events") == ""
