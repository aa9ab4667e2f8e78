"""A headless Chromium, controlled by its DevTools protocol over a pipe.

The pipe is descriptors 3 and 4 of the process, with JSON messages that end with a NUL byte
(chromium --remote-debugging-pipe).
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
OPTIONS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-proxy-server", "--remote-debugging-pipe"),
)


def program() -> str | None:
    """The path of an installed browser, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One tab."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._data = b""
        self._number = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._data:
            part = os.read(self._answers, 65_536)
            if not part:
                raise ConnectionError("the browser has exited")
            self._data += part
        text, _, self._data = self._data.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        call: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            call["sessionId"] = self._session
        os.write(self._commands, json.dumps(call).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def navigate(self, url: str) -> None:
        """Go to a typed address, and wait until the page is loaded."""
        self._call("Page.navigate", url=url)
        self._wait_until_loaded()

    def follow(self, url: str) -> None:
        """Follow a link on the page, and wait until the page is loaded."""
        self._call("Runtime.evaluate", expression=f"location.href = {json.dumps(url)}")
        self._wait_until_loaded()

    def _wait_until_loaded(self) -> None:
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> object:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"the page's script: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")


@contextmanager
def page(browser: str, *options: str) -> Iterator[Page]:
    """Start the browser with a new profile; on exit, kill all its processes."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # The shell numbers the descriptors, and becomes the browser.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        process = subprocess.Popen(
            [
                "/bin/bash",
                "-c",
                script,
                "bash",
                browser,
                *OPTIONS,
                *options,
                f"--user-data-dir={profile}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(commands, answers)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(commands)
            os.close(answers)


def fetching(cases: list[str], seconds: float) -> str:
    """A script that fetches cases, METHOD|PATH|NAME|VALUE|BODY, and returns the count of answers.

    It repeats them for ``seconds``, or twice if that is 0.
    """
    return f"""(async () => {{
        const cases = {json.dumps([case.split("|") for case in cases])};
        const seconds = {seconds};
        const end = performance.now() + seconds * 1000;
        let count = 0;
        for (let turn = 0; seconds ? performance.now() < end : turn < 2; turn++) {{
            for (const [method, path, name, value, body] of cases) {{
                const headers = name ? {{[name]: value}} : {{}};
                await (await fetch(path, {{method, headers, body: body || undefined}})).text();
                count++;
            }}
        }}
        return count;
    }})()"""
