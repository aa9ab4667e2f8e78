"""The viewer of the page."""

import re
from dataclasses import dataclass, field
from typing import Final

from playwright.sync_api import ConsoleMessage, Page, expect

from tests.support.servers import Client

PATIENCE: Final = 30_000
"""Timeout for the browser, in milliseconds."""

ENDED: Final = re.compile(r"ERR_(CONNECTION|EMPTY_RESPONSE|SOCKET|NETWORK)|status of 503")
"""The browser's own messages for a missing answer, or an error."""


@dataclass
class Viewer:
    """A person viewing the page."""

    page: Page
    said: list[str] = field(default_factory=list)
    """Console messages, and errors of scripts."""
    asked: list[str] = field(default_factory=list)
    """The URLs that were requested."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _note(self, message: ConsoleMessage) -> None:
        self.said.append(message.text)

    def opens(self, client: Client) -> None:
        self.page.goto(f"http://127.0.0.1:{client.port}/")

    def sees(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until the text of the element is this."""
        expect(self.page.locator(selector)).to_have_text(text, timeout=PATIENCE)

    def sees_at(self, selector: str, text: str) -> None:
        """Wait until the text of the element contains this."""
        expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE)

    def text(self, selector: str) -> str:
        """The text of the element now."""
        return self.page.locator(selector).inner_text()

    def clicks(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    @property
    def digits(self) -> tuple[str, str]:
        """The first and the last digits on the page."""
        first, last = (self.page.locator(each).inner_text() for each in ("#first", "#last"))
        return first, last
