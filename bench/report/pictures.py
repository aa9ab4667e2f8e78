"""Makes the README's pictures: python -m bench.report.pictures

The status page of an appliance under load, whose server is killed meanwhile, and the latest plot of
the throughput of clients, from the section `heads`. Each in light and dark.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench import machine, servers
from bench.heads import chromium
from bench.load import generator
from bench.sections import appliance
from bench.servers import Server

PICTURES: Final = machine.ROOT / "docs" / "pictures"
SCHEMES: Final = ("light", "dark")
SIZE: Final = (1100, 885)
INDEX: Final = 24_000

PHASES: Final = ((60, 150), (90, 260), (40, 90), (110, 330))
"""Steps and reads a second in each phase. In the third the server is killed."""
PHASE_SECONDS: Final = 28.0
PATIENCE: Final = 30_000
"""Milliseconds."""


def _load(folder: Path, server: Server, steps: int, reads: int) -> "subprocess.Popen[str]":
    rates = {"next": steps, "current": reads}
    return generator.start(
        folder, server, tuple(rates), connections=20, seconds=PHASE_SECONDS, rate=rates
    )


def _take(browser: Browser, folder: Path) -> None:
    with servers.supervised(folder, INDEX, "exact") as server:
        machine.wait_until(lambda: appliance.standby_waits(server), 30, "a standby waits")
        pages: dict[str, Page] = {}
        for scheme in SCHEMES:
            page = browser.new_page(
                viewport={"width": SIZE[0], "height": SIZE[1]},
                color_scheme=scheme,
                device_scale_factor=1.5,
            )
            page.goto(f"http://127.0.0.1:{server.port}/")
            pages[scheme] = page
        for number, phase in enumerate(PHASES):
            print(f"{number + 1} of {len(PHASES)}: {phase[0]} steps and {phase[1]} reads a second")
            load = _load(folder, server, *phase)
            # Playwright's own wait, during which the pages are updated.
            page.wait_for_timeout(PHASE_SECONDS * 500)
            if number == 2:
                os.kill(server.lock_holder(), signal.SIGKILL)
            while load.poll() is None:
                page.wait_for_timeout(100)
        for scheme, page in pages.items():
            expect(page.locator("#events")).to_contain_text("was killed", timeout=PATIENCE)
            page.screenshot(path=PICTURES / f"page-{scheme}.png")


def main() -> int:
    """Make the pictures; exit with 1 if there is no plot."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    machine.RESULTS.mkdir(parents=True, exist_ok=True)
    program = chromium.program()
    if program is None:
        print("chromium is missing: apt-get install chromium", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(dir=machine.RESULTS, prefix="work-") as name,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--no-proxy-server", "--disable-gpu"]
        )
        _take(browser, Path(name))
        browser.close()
    plots = [machine.RESULTS / f"clients-{scheme}.png" for scheme in SCHEMES]
    for plot in plots:
        if not plot.exists():
            print(f"{plot} is missing: run make bench, then this again.", file=sys.stderr)
            return 1
        shutil.copy(plot, PICTURES)
    print(*sorted(PICTURES.iterdir()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
