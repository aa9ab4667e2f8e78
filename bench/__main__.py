"""Measures the appliance: reads, steps, heads, latency, takeover, memory, engines and the core.

Prints one table. Each server has one core, and the load another. Needs nginx and, for the section
engines, PostgreSQL, Redis and etcd.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from bench import machine, servers
from bench.figures import Figure, table
from bench.load import Run
from bench.sections import COMPARED, SECTIONS, Bench

PAGE: Final = machine.ROOT / "docs" / "figures.md"
HEADING: Final = "\n## The table\n"
"""What follows it on the page is written by ``--page``."""
DISTURBED: Final = 0.25
"""Of a core, used by neither the server nor the load."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"by default all: {', '.join(SECTIONS)}"
    )
    parser.add_argument(
        "--beside",
        type=lambda text: Path(text).resolve(),
        metavar="PATH",
        help="also measure the server of another checkout, which has its own .venv, in each round "
        f"of {', '.join(COMPARED)}; those are the default then",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (default: 3)")
    parser.add_argument("--page", action="store_true", help=f"write the table to {PAGE.name}")
    parser.add_argument(
        "--locust",
        nargs="?",
        const="",
        metavar="URL",
        help="run the reference load instead, with locust. At URL it makes up to 10,000 steps, "
        "which can't be undone, and must be the only load that steps",
    )
    options = parser.parse_args(given)
    options.sections = options.sections or list(COMPARED if options.beside else SECTIONS)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    if options.beside and not servers.python_of(options.beside).exists():
        parser.error(f"{servers.python_of(options.beside)} is missing: make {options.beside}/.venv")
    return options


def locust(url: str) -> int:
    """The reference load of locustfile.py, at ``url`` or at a new server; return its status."""
    if not url:
        with servers.fibcore(machine.ROOT, 0, "exact") as server:
            return locust(f"http://127.0.0.1:{server.port}")
    command = (
        *(sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless"),
        *("--users", "90", "--spawn-rate", "90", "--run-time", "10s", "--stop-timeout", "5"),
        *("--only-summary", "--host", url),
    )
    return subprocess.run(
        machine.pinned(machine.LOAD_CORE, *command), cwd=machine.ROOT, check=False
    ).returncode


def disturbance(runs: Sequence[Run]) -> str:
    """How many runs other programs disturbed."""
    disturbed = sum(run.others > DISTURBED for run in runs)
    return (
        f"during {disturbed} of {len(runs)} runs other programs used more than {DISTURBED:.0%} of "
        "a core"
    )


def measure(bench: Bench, sections: Sequence[str]) -> tuple[list[Figure], int]:
    """Run the sections; return their figures, and how many were not finished."""
    found: list[Figure] = []
    failed = 0
    begun = time.monotonic()
    for name in sections:
        section = SECTIONS[name]
        print(f"[{time.monotonic() - begun:4.0f} s] {name}: {section.__doc__}", file=sys.stderr)
        try:
            found.extend(section(bench))
        except Exception:  # the figures of the other sections are kept
            traceback.print_exc()
            failed += 1
    print(f"[{time.monotonic() - begun:4.0f} s] done", file=sys.stderr)
    return found, failed


def _end(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Measure, and print the table; return 1 if a section failed, or an answer was wrong."""
    options = arguments()
    # As with Ctrl-C, servers are stopped on the way out.
    signal.signal(signal.SIGTERM, _end)
    if options.locust is not None:
        return locust(options.locust)
    if machine.SERVER_CORE == machine.LOAD_CORE:
        print("The server and the load need a core each, and there is only one.", file=sys.stderr)
        return 2
    # A thousand connections need more descriptors than the usual soft limit of 1,024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    with servers.folder() as folder:
        bench = Bench(folder, options.beside, options.rounds)
        where = machine.describe(folder)
        figures, failed = measure(bench, options.sections)
    lines = [table(figures), f"{datetime.now(UTC):%Y-%m-%d}; {where}; {disturbance(bench.runs)}."]
    if options.beside:
        lines.append(f"Beside: {options.beside}.")
    text = "\n\n".join(lines) + "\n"
    print(text)
    if options.page:
        kept = PAGE.read_text().partition(HEADING)[0]
        PAGE.write_text(f"{kept}{HEADING}\n{text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
