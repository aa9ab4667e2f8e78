"""Measures the appliance and its peers, each limited to the size of the target machine.

Prints tables, and writes JSON and a page to bench/results. A full run in which every section
finishes replaces docs/figures.md.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from bench import cgroup, heads, machine, servers
from bench.report import figures, limits, ratios, scale, tables, targets
from bench.report.page import FIGURES, figures_page
from bench.sections import (
    appliance,
    clients,
    counting,
    flood,
    latency,
    stores,
    throughput,
)
from bench.suite import FULL, QUICK, Suite


def core(suite: Suite) -> None:
    """Run bench.sections.core in a separate process, on the server's core."""
    suite.log("core: the core without a server")
    quick = suite.effort is QUICK
    indexes = ["30000", "1000000"] if quick else []
    done = subprocess.run(
        machine.pinned(
            machine.SERVER_CORE, [sys.executable, "-m", "bench.sections.core", *indexes]
        ),
        cwd=machine.ROOT,
        env={**os.environ, "BENCH_ROUNDS": str(suite.effort.core_rounds)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    suite.core = json.loads(done.stdout)


SECTIONS: dict[str, Callable[[Suite], None]] = {
    "core": core,
    "small": throughput.small,
    "large": throughput.large,
    "stores": stores.stores,
    "heads": clients.measure,
    "open": latency.open_loop,
    "flood": flood.flood,
    "takeover": appliance.takeover,
    "large-takeover": appliance.large_takeover,
    "memory": appliance.memory,
    "counting": counting.counting,
    "logged": counting.logged,
    "keyed": counting.keyed,
    "locust": appliance.locust,
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: about ten minutes"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="SECTION",
        help=f"measure only these sections: {', '.join(SECTIONS)}",
    )
    parser.add_argument(
        "--url",
        type=lambda text: text.rstrip("/"),
        help="with --only locust: load the server at this URL, which nobody else may step",
    )
    parser.add_argument(
        "--clients",
        nargs="+",
        choices=heads.clients(),
        default=[],
        metavar="CLIENT",
        help=f"measure only the heads of these clients: {', '.join(heads.clients())}",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write docs/figures.md even after a quick or partial run; the page says which it was",
    )
    options = parser.parse_args(given)
    if options.page and options.url is not None:
        parser.error(
            "--page can't be used with --url: it documents servers that the benchmark starts"
        )
    if options.url is not None and options.only != ["locust"]:
        parser.error("--url requires --only locust: the other sections start their own servers")
    return options


def _end(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Measure and report; exit with 1 if there was a problem."""
    options = arguments()
    # As with Ctrl-C, servers are stopped and their cgroups removed on the way out.
    signal.signal(signal.SIGTERM, _end)
    if options.url is None:
        try:
            machine.check_tools(options.only)
        except machine.MissingError as error:
            print(error, file=sys.stderr)
            return 2
        servers.memory_limit = cgroup.find()
    else:
        servers.memory_limit = cgroup.MemoryLimit(
            "not ours", reason=f"{options.url} is measured as it is"
        )
    # A thousand connections need more descriptors than the usual soft limit of 1,024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    machine.RESULTS.mkdir(parents=True, exist_ok=True)
    # On the disk of the checkout: /tmp may be in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=machine.RESULTS, prefix="work-") as name:
        suite = Suite(QUICK if options.quick else FULL, Path(name), options.url, options.clients)
        described = machine.describe(suite.folder)
        for what, value in described.items():
            suite.log(f"{what}: {value}")
        suite.log(f"limits: {servers.memory_limit}")
        for section in SECTIONS:
            if section in options.only:
                try:
                    SECTIONS[section](suite)
                except Exception as error:  # the results of the other sections are kept
                    traceback.print_exc()
                    suite.incomplete(f"{section} was not finished: {error}")
    return report(suite, described, options.only, page=options.page or is_complete(suite, options))


def is_complete(suite: Suite, options: argparse.Namespace) -> bool:
    """Whether this run has measured everything thoroughly, so that its figures are for the page."""
    thorough = suite.effort is FULL and set(options.only) == set(SECTIONS)
    return thorough and not (options.url or options.clients or suite.missing)


def report(
    suite: Suite, described: dict[str, object], sections: list[str], *, page: bool = False
) -> int:
    """Print the tables, and write results and page; ``page``: replace docs/figures.md."""
    reached = targets.targets(suite)
    results = {
        "machine": described,
        "memory limit": str(servers.memory_limit),
        "effort": asdict(suite.effort),
        "runs": [run.as_json() for run in suite.runs],
        "core": suite.core,
        "takeover": suite.takeover,
        "large takeover": suite.large_takeover,
        "flood": suite.flood,
        "memory": suite.memory,
        "locust": suite.locust,
        "figures": [{**asdict(figure), "verdict": figure.verdict} for figure in reached],
        "problems": suite.problems,
    }
    path = machine.RESULTS / "results.json"
    path.write_text(json.dumps(results, indent=1))
    blocks = [*found_blocks(suite, reached)]
    for title, text in blocks:
        print(f"{title}:\n{text}\n")
    bounds = [*limits.limits(suite.runs, described)]
    for bound in bounds:
        print(f"- {bound}")
    if suite.locust:
        print(f"locust: {suite.locust['summary']}\nlocust's report: {suite.locust['report']}")
    print(f"\nLimits of each server: {servers.memory_limit}")
    disturbed = figures.disturbance(suite.runs)
    if disturbed:
        print(f"\n{disturbed}")
    short = [figure for figure in reached if figure.met is False]
    print(f"\n{len(short)} targets missed, {len(suite.problems)} problems")
    for problem in suite.problems:
        print(f"PROBLEM: {problem}")
    notes = [disturbed] if disturbed else []
    notes += bounds
    if suite.locust:
        notes.append(f"Locust: {suite.locust['summary']}.")
    notes += [f"Problem: {problem}." for problem in suite.problems]
    how = "quick" if suite.effort is QUICK else "full"
    part = sections if set(sections) < set(SECTIONS) else []
    described = described | {"limits of each server": servers.memory_limit}
    ours = machine.RESULTS / "figures.md"
    ours.write_text(figures_page(described, how, part, blocks, notes))
    if page:
        shutil.copyfile(ours, FIGURES)
        print(FIGURES)
    else:
        print(f"{ours}\n{FIGURES} is unchanged: only a full run, or --page, writes it")
    print(path)
    return 1 if suite.problems else 0


def found_blocks(suite: Suite, reached: list[figures.Figure]) -> Iterator[tuple[str, str]]:
    """The tables of the measured sections, each with its title."""
    if measured := [figure for figure in reached if figure.reached is not None]:
        yield "Targets, as ratios within a round", tables.figures_table(measured)
    listed = [run for run in suite.runs if run.section not in ("heads", "stores")]
    if listed:
        yield "Throughput and latency, medians over the rounds", tables.runs_table(listed)
    if latencies := tables.latency_table(suite.runs):
        yield "Latency of reads and of steps, from when each request was due, in us", latencies
    if compared := stores.stores_table(suite.runs):
        yield "Shared stores, by nodes and connections", compared
        if predicted := scale.predictions_table(suite.runs):
            yield (
                "Processor time per answer: the model of bench/report/scale.py, and measured",
                predicted,
            )
            yield (
                "Prediction of that model for nodes with a core each",
                scale.scale_table(suite.runs),
            )
    if figures.select(suite.runs, section="heads"):
        yield (
            "Request heads of real clients, as ratios to the plainest head",
            ratios.heads_table(suite.runs),
        )


if __name__ == "__main__":
    sys.exit(main())
