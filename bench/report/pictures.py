"""Makes the README's pictures: python -m bench.report.pictures

The status page of an appliance under load, whose server is killed meanwhile, and the throughput of
clients, from the section `heads` of the latest run of the benchmark. Each in light and dark.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: there may be no display

import matplotlib.pyplot as plt
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench import machine, servers
from bench.heads import drivers
from bench.load import generator
from bench.load.loads import Run
from bench.report.figures import disturbance, paired, per_cpu_second, select
from bench.sections import appliance
from bench.servers import Server

PICTURES: Final = machine.ROOT / "docs" / "pictures"
SCHEMES: Final = {"light": ("#ffffff", "#1f2328"), "dark": ("#0d1117", "#e6edf3")}
"""The colours of the background and of the text."""
SIZE: Final = (1100, 885)
INDEX: Final = 24_000

PHASES: Final = ((60, 150), (90, 260), (40, 90), (110, 330))
"""Steps and reads a second in each phase. In the third the server is killed."""
PHASE_SECONDS: Final = 28.0
PATIENCE: Final = 30_000
"""Milliseconds."""

SHOWN: Final = (
    *("requests", "httpx", "aiohttp", "node-fetch", "axios", "go", "jdk", "curl", "chromium-fetch"),
    *("nginx-requests", "ab-k", "wrk"),
)
"""The clients in the chart."""
PATHS: Final = ("current", "next")


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
                color_scheme="dark" if scheme == "dark" else "light",
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


def _draw(results: Mapping[str, Any]) -> None:
    """Throughput by client, as a multiple of stock's. Raises LookupError without such runs."""
    runs = [Run(**run) for run in results["runs"]]
    same = [run for run in select(runs, section="heads") if run.asked in PATHS]
    measured = {run.client for run in same if run.peer == "stock"}
    names = [name for name in reversed(SHOWN) if name in measured]
    if not names:
        raise LookupError("the latest run of make bench did not measure the section heads")
    for scheme, (ground, text) in SCHEMES.items():
        written = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        style: dict[Any, str] = dict.fromkeys(written, text)
        style |= dict.fromkeys(("axes.facecolor", "savefig.facecolor", "legend.facecolor"), ground)
        with mpl.rc_context(style):
            figure, panels = plt.subplots(1, 2, figsize=(6.6, 5.3), sharey=True)
            for axes, path in zip(panels, PATHS, strict=True):
                ours, go = (
                    [_against_stock(same, name, path, peer) for name in names]
                    for peer in ("fibcore", "Go uint64")
                )
                axes.barh(names, ours, 0.7, color="#c0392b", label="fibcore, on disk")
                axes.plot(go, names, "s", ms=5, color="#2e86c1", label="Go, uint64, in memory")
                axes.axvline(1, color=text, lw=1)
                axes.set_title(f"GET /{path}", fontsize=10)
                axes.set_xlabel("x stock uvicorn + Starlette", fontsize=9)
                axes.grid(axis="x", alpha=0.3)
                axes.set_axisbelow(True)
            shown = panels[1].get_legend_handles_labels()
            figure.legend(*shown, fontsize=8, loc="lower right", frameon=False)
            figure.suptitle("Throughput by client, for the same processor time", fontsize=11)
            note = _note(results["machine"], disturbance(runs))
            figure.text(0.01, 0.005, note, fontsize=7, color="#777777")
            figure.tight_layout(rect=(0, 0.05 + 0.025 * note.count("\n"), 1, 1))
            figure.savefig(PICTURES / f"clients-{scheme}.png", dpi=130)
            plt.close(figure)


def _against_stock(runs: Sequence[Run], client: str, path: str, peer: str) -> float:
    same = select(runs, client=client, asked=path)
    ratio = paired(select(same, peer=peer), select(same, peer="stock"), per_cpu_second)
    return math.nan if ratio is None else ratio


def _note(described: Mapping[str, Any], disturbed: str) -> str:
    lines = [
        f"{described['processor']}, Linux {described['kernel']}",
        f"commit {described['commit']}; database on {described['database on']}",
        f"a sync takes {described['sync of 4 KiB, median us']} us",
    ]
    return "\n".join([*lines, *filter(None, [disturbed])])


def main() -> int:
    """Make the pictures; exit with 1 if there are no figures to draw."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    results = machine.RESULTS / "results.json"
    try:
        _draw(json.loads(results.read_text()))
        browser_path = drivers.found("chromium", "chromium")
    except (OSError, LookupError) as error:
        print(f"No clients to draw: {error}. Run make bench first.", file=sys.stderr)
        return 1
    except drivers.MissingError as error:
        print(error, file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(dir=machine.RESULTS, prefix="work-") as name,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=browser_path, args=drivers.CHROMIUM)
        _take(browser, Path(name))
        browser.close()
    print(*sorted(PICTURES.iterdir()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
