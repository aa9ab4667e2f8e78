"""The number at any index, looked up on the page."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.endpoints.page.viewer import Viewer
from tests.support.implementations import serving
from tests.support.reference import digits_of
from tests.support.servers import Client

pytestmark = pytest.mark.processes


def look_up(viewer: Viewer, index: str) -> None:
    viewer.page.get_by_label("Index").fill(index)
    viewer.clicks("Look up")


def ends(viewer: Viewer) -> tuple[str, str]:
    first, last = (viewer.text(f"#looked .{each}") for each in ("first", "last"))
    return first, last


def test_a_looked_up_number_is_shown_by_its_ends(viewer: Viewer, still: Client) -> None:
    """They are exact, even if the number arrives in pieces, and nothing steps."""
    viewer.opens(still)
    for text in ("0", "93", "286", "287", "573", "585", "1,000", "007", "1 000 000"):
        index = int(text.replace(",", "").replace(" ", ""))
        digits = digits_of(index).decode()
        look_up(viewer, text)
        count = f"{len(digits):,} digit{'' if len(digits) == 1 else 's'}"
        viewer.sees("#found", f"F({index:,}) has {count}.")
        assert ends(viewer) == (digits[:60], digits[60:][-60:])
        between = viewer.page.locator("#looked .between")
        expect(between).to_be_visible(visible=len(digits) > 120)
        if len(digits) > 120:
            expect(between).to_have_text(f"{len(digits) - 120:,} digits between")
    assert still.index == 24_998


def test_an_invalid_or_too_large_index_is_reported(viewer: Viewer, tmp_path: Path) -> None:
    with serving(tmp_path, 7, FIB_MAX_INDEX="10") as client:
        viewer.opens(client)
        for wrong in ("-1", "7th", "1e3", "٣"):
            look_up(viewer, wrong)
            viewer.sees("#found", "The index must be a whole number, 0 or greater.")
            expect(viewer.page.locator("#looked")).to_be_hidden()
        for large in ("11", "9" * 26):
            look_up(viewer, large)
            viewer.sees_at("#found", "404: The largest index here is 10")
        look_up(viewer, "10")
        viewer.sees("#found", "F(10) has 2 digits.")
        expect(viewer.page.locator("#found.bad")).to_have_count(0)
