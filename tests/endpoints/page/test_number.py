"""The number on the page: steps are clicked, and it is exact."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Request, Route, expect

from tests.endpoints.page.viewer import Viewer
from tests.support.implementations import serving
from tests.support.reference import digits_of, fibonacci_modulo
from tests.support.servers import Client
from tests.support.waiting import until

pytestmark = pytest.mark.processes


def test_a_click_steps_and_the_number_is_exact(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    viewer.sees("#index", "24,998")
    for index in (24_999, 25_000):
        viewer.clicks("Next number")
        viewer.sees("#index", f"{index:,}")
        viewer.sees("#message", f"Stepped to F({index:,}).")
        digits = digits_of(index).decode()
        assert viewer.digits == (digits[:60], digits[-60:])
        assert client.index == index
    viewer.sees("#index", "25,000")
    viewer.sees("#size", "5,225 digits")
    viewer.sees("#between", "5,105 digits between")
    # After a reload, /status has the same digits.
    viewer.page.reload()
    viewer.sees("#index", "25,000")
    assert viewer.digits == (digits[:60], digits[-60:])


def lose(route: Route) -> None:
    """The step is made, and its answer does not arrive."""
    route.fetch()
    route.abort()


def log_in(route: Route) -> None:
    """The step is made, and a proxy answers in place of the server."""
    route.fetch()
    route.fulfill(status=200, content_type="text/html", body="Log in")


def keys(viewer: Viewer) -> list[str | None]:
    """The keys of the steps that the page requests from now on."""
    found: list[str | None] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            found.append(request.header_value("idempotency-key"))

    viewer.page.on("request", note)
    return found


@pytest.mark.parametrize("fault", [lose, log_in])
def test_a_click_whose_answers_are_lost_steps_once(
    viewer: Viewer, client: Client, fault: Callable[[Route], None]
) -> None:
    viewer.opens(client)
    viewer.sees("#index", "24,998")
    asked = keys(viewer)
    viewer.page.route("**/next", fault, times=2)
    viewer.clicks("Next number")
    viewer.sees("#message", "Stepped to F(24,999).")
    assert client.index == 24_999
    assert len(asked) == 3
    assert len(set(asked)) == 1
    viewer.clicks("Next number")
    viewer.sees("#message", "Stepped to F(25,000).")
    assert len(set(asked)) == 2


def test_a_step_given_up_is_requested_again_at_the_next_click(
    viewer: Viewer, client: Client
) -> None:
    viewer.opens(client)
    viewer.sees("#index", "24,998")
    viewer.page.clock.install()
    asked = keys(viewer)
    viewer.page.route("**/next", lose)
    viewer.clicks("Next number")
    viewer.sees_at("#message", "Requesting the same step again")

    def gives_up() -> bool:
        viewer.page.clock.fast_forward(2_000)
        return "next click" in viewer.text("#message")

    until(gives_up, "it gives up")
    assert viewer.text("#message").startswith("The server did not answer.")
    viewer.page.unroute("**/next")
    viewer.clicks("Next number")
    viewer.sees("#message", "Stepped to F(24,999).")
    assert client.index == 24_999
    assert len(set(asked)) == 1


def test_an_index_past_2_to_the_53_is_exact(viewer: Viewer, tmp_path: Path) -> None:
    """JavaScript's numbers are exact only up to there: this one would be rounded."""
    index = 2**53 + 1
    with serving(tmp_path, index, FIB_INTEGERS="uint64") as client:
        viewer.opens(client)
        viewer.sees("#index", f"{index:,}")
        assert "".join(viewer.digits) == str(fibonacci_modulo(index))
        viewer.clicks("Next number")
        viewer.sees("#index", f"{index + 1:,}")
        viewer.sees("#message", f"Stepped to F({index + 1:,}).")
        assert "".join(viewer.digits) == str(fibonacci_modulo(index + 1))
        expect(viewer.page.locator("#modulo")).to_be_visible()
