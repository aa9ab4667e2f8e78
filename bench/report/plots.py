"""The plots, from results.json: python -m bench.report.plots bench/results/results.json"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: there may be no display

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.load.loads import Run
from bench.load.workloads import KINDS
from bench.report.figures import disturbance, p99, paired, per_cpu_second, select, throughput
from bench.sections.throughput import CONNECTIONS

COLOURS = {
    "fibcore": "#c0392b",
    "stock": "#e59866",
    "Go uint64": "#2e86c1",
    "Go math/big": "#2e86c1",
    "nginx constant": "#27ae60",
    "nginx static": "#27ae60",
    "gmpy2": "#8e44ad",
    "decimal": "#7f8c8d",
    "Python int": "#34495e",
    "pass, new": "#27ae60",
}
LABELS = {
    "stock": "stock uvicorn + Starlette",
    "pass, new": "memory alone (read two, write one)",
    "Go uint64": "Go, uint64, in memory",
    "Go math/big": "Go, math/big, in memory",
}
TITLES = {
    "current": "GET /current",
    "next": "GET /next",
    "if-match": "GET /next, If-Match: the last ETag (most are 412)",
}


SHOWN = (
    *("requests", "httpx", "aiohttp", "node-fetch", "axios", "go", "jdk", "curl", "chromium-fetch"),
    *("nginx-requests", "ab-k", "wrk"),
)
"""The clients in the README."""

SCHEMES = {"light": ("#ffffff", "#1f2328"), "dark": ("#0d1117", "#e6edf3")}
"""The colours of the background and of the text."""


def _label(peer: str) -> str:
    return LABELS.get(peer, peer)


def _thousands(value: float, _: object = None) -> str:
    return f"{value / 1000:,.0f}k" if value >= 1000 else f"{value:g}"


def _finish(figure: Any, path: Path, note: str) -> Path:
    figure.text(0.01, 0.005, note, fontsize=7, color="#777777")
    figure.tight_layout(rect=(0, 0.05 + 0.025 * note.count("\n"), 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def plot_throughput(runs: Sequence[Run], path: Path, note: str) -> Path | None:
    """Small numbers and the peers, one panel per number of connections."""
    small = select(runs, section="small")
    counts = sorted({run.connections for run in small})
    if not counts:
        return None
    peers = ("fibcore", "nginx constant", "Go uint64", "stock")
    endpoints = ("current", "previous", "health", "next")
    figure, panels = plt.subplots(1, len(counts), figsize=(5 * len(counts), 4.6), squeeze=False)
    for axes, connections in zip(panels[0], counts, strict=True):
        for i, peer in enumerate(peers):
            for j, endpoint in enumerate(endpoints):
                same = select(small, peer=peer, endpoint=endpoint, connections=connections)
                if not same:
                    continue
                values = [run.per_second for run in same]
                middle = median(values)
                axes.bar(
                    j + (i - 1.5) * 0.2,
                    middle,
                    0.19,
                    color=COLOURS[peer],
                    label=_label(peer) if j == 0 else None,
                    yerr=[[middle - min(values)], [max(values) - middle]],
                    error_kw={"lw": 0.8, "ecolor": "#222222"},
                )
        axes.set_xticks(range(len(endpoints)), [f"/{endpoint}" for endpoint in endpoints])
        axes.set_title(f"{connections:,} connection{'s' * (connections > 1)}")
        axes.yaxis.set_major_formatter(_thousands)
        axes.grid(axis="y", alpha=0.3)
    panels[0][0].set_ylabel("answers per second (median, minimum, maximum)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="lower right", ncols=len(peers))
    figure.suptitle("Small numbers, one core; the steps of fibcore and stock are on disk")
    return _finish(figure, path, note)


def plot_index(
    runs: Sequence[Run], core: Sequence[dict[str, Any]], path: Path, note: str
) -> Path | None:
    """Throughput and the cost of a step against the index."""
    panels: list[Callable[[Axes], None]] = []
    large = select(runs, section="large")
    if large:
        panels.append(partial(_throughput_by_index, large=large))
    if core:
        panels.append(partial(_step_by_index, core=core))
    if not panels:
        return None
    figure, all_axes = plt.subplots(1, len(panels), figsize=(6.6 * len(panels), 5.2), squeeze=False)
    for axes, draw in zip(all_axes[0], panels, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="index n (F(n) has 0.209 n digits)")
        axes.grid(which="major", alpha=0.3)
        draw(axes)
        axes.legend(fontsize=8)
    return _finish(figure, path, note)


def _throughput_by_index(axes: Axes, large: Sequence[Run]) -> None:
    for peer in ("fibcore", "nginx static", "Go math/big"):
        integers = None if peer == "nginx static" else "exact"
        for endpoint, style in (("current", "o--"), ("next", "s-")):
            same = select(large, peer=peer, endpoint=endpoint, integers=integers)
            label = f"{_label(peer)}, /{endpoint}"
            if integers is None and endpoint == "next":
                continue  # the same file at another path
            indexes = sorted({run.nominal_index for run in same if run.nominal_index is not None})
            values = [median(map(throughput, select(same, nominal_index=n))) for n in indexes]
            axes.plot(indexes, values, style, ms=4, color=COLOURS[peer], label=label)
    axes.set(ylabel="answers per second, 100 connections (median)", title="Throughput")
    axes.yaxis.set_major_formatter(_thousands)


def _step_by_index(axes: Axes, core: Sequence[dict[str, Any]]) -> None:
    for contender in ("Python int", "decimal", "gmpy2", "fibcore", "pass, new"):
        rows = sorted((r["index"], r["nanoseconds"]) for r in core if r["contender"] == contender)
        indexes = [index for index, _ in rows]
        values = [nanoseconds / 1000 for _, nanoseconds in rows]
        axes.plot(indexes, values, "o-", ms=4, color=COLOURS[contender], label=_label(contender))
    axes.set(
        ylabel="microseconds per step, with its digits (median)", title="The core without a server"
    )


def plot_latency(runs: Sequence[Run], path: Path, note: str) -> Path | None:
    """Latency percentiles, one panel per rate."""
    loops = select(runs, section="open loop")
    rates = sorted({run.rate for run in loops if run.rate})
    if not rates:
        return None
    percents = ("50", "75", "90", "95", "99", "99.5", "99.9", "99.95", "99.99")
    figure, panels = plt.subplots(
        1, len(rates), figsize=(4.6 * len(rates) + 1, 4.8), sharey=True, squeeze=False
    )
    lines = (
        ("fibcore", "uint64", "o-", "fibcore, uint64, on disk"),
        ("fibcore", "exact", "o--", "fibcore, exact, on disk"),
        ("Go uint64", "uint64", "s-", "Go, uint64, in memory"),
        ("stock", "uint64", "^-", "stock, uint64, on disk"),
    )
    for axes, rate in zip(panels[0], rates, strict=True):
        for peer, integers, style, label in lines:
            same = select(loops, rate=rate, peer=peer, integers=integers)
            if same:
                values = [median(run.latency.get(p, 0.0) for run in same) for p in percents]
                worst = median(map(p99, same))
                label = f"{label} (p99 {worst:,.0f} us)"
                axes.plot(values, style, ms=4, color=COLOURS[peer], label=label)
        axes.set_xticks(range(len(percents)), percents, rotation=45)
        axes.set(yscale="log", xlabel="percentile", title=f"3 x {rate:,.0f} requests per second")
        axes.grid(which="major", alpha=0.3)
        axes.legend(fontsize=7)
    panels[0][0].set_ylabel("microseconds from when a request was due (median)")
    figure.suptitle("Open loop: /current, /next and /previous at once")
    return _finish(figure, path, note)


def plot_heads(runs: Sequence[Run], path: Path, note: str) -> Path | None:
    """Throughput for the head of each client, and that of the peers for the same head."""
    same = select(runs, section="heads", connections=CONNECTIONS)
    names = list(dict.fromkeys(run.client for run in same if run.asked in KINDS))[::-1]
    if not names:
        return None
    kinds = ("current", "next", "if-match")
    figure, panels = plt.subplots(
        1, len(kinds), figsize=(15, 0.27 * len(names) + 1.8), sharey=True, squeeze=False
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        for peer, marker in (("fibcore", None), ("Go uint64", "s"), ("stock", "^")):
            runs_of = {name: select(same, peer=peer, client=name, asked=kind) for name in names}
            known = {name: median(map(per_cpu_second, of)) for name, of in runs_of.items() if of}
            places = [names.index(name) for name in known]
            values, colour, label = list(known.values()), COLOURS[peer], _label(peer)
            if marker is None:
                axes.barh(places, values, 0.7, color=colour, alpha=0.8, label=label)
            elif known:
                axes.plot(values, places, marker, ms=4, color=colour, label=label)
        axes.set_title(TITLES[kind])
        axes.xaxis.set_major_formatter(_thousands)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0][1].legend(fontsize=8)
    figure.suptitle(
        "Throughput by client: answers per second of the server's processor time, 100 connections"
    )
    return _finish(figure, path, note)


def plot_clients(runs: Sequence[Run], path: Path, note: str) -> list[Path]:
    """The README's plot: throughput by client, as a multiple of stock's, light and dark."""
    kinds = ("current", "next")
    same = [run for run in select(runs, section="heads") if run.asked in kinds]
    measured = {run.client for run in same if run.peer == "stock"}
    names = [name for name in reversed(SHOWN) if name in measured]
    made = []
    for scheme, (ground, text) in SCHEMES.items() if names else ():
        written = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        style: dict[Any, str] = dict.fromkeys(written, text)
        style |= dict.fromkeys(("axes.facecolor", "savefig.facecolor", "legend.facecolor"), ground)
        with mpl.rc_context(style):
            figure, panels = plt.subplots(1, 2, figsize=(6.6, 5.3), sharey=True, squeeze=False)
            for axes, kind in zip(panels[0], kinds, strict=True):
                for peer, label in (
                    ("fibcore", "fibcore, on disk"),
                    ("Go uint64", _label("Go uint64")),
                ):
                    ratios = [_against_stock(same, name, kind, peer) for name in names]
                    if peer == "fibcore":
                        axes.barh(names, ratios, 0.7, color=COLOURS[peer], label=label)
                    else:
                        axes.plot(ratios, names, "s", ms=5, color=COLOURS[peer], label=label)
                axes.axvline(1, color=text, lw=1)
                axes.set_title(TITLES[kind], fontsize=10)
                axes.set_xlabel("x stock uvicorn + Starlette", fontsize=9)
                axes.grid(axis="x", alpha=0.3)
                axes.set_axisbelow(True)
            shown = panels[0][1].get_legend_handles_labels()
            figure.legend(*shown, fontsize=8, loc="lower right", frameon=False)
            figure.suptitle("Throughput by client, for the same processor time", fontsize=11)
            named = path.with_name(f"{path.stem}-{scheme}.png")
            made.append(
                _finish(figure, named, note.replace("; ", "\n").replace(", commit", "\ncommit"))
            )
    return made


def _against_stock(runs: Sequence[Run], client: str, kind: str, peer: str) -> float:
    same = select(runs, client=client, asked=kind)
    ratio = paired(select(same, peer=peer), select(same, peer="stock"), per_cpu_second)
    return math.nan if ratio is None else ratio


def plot_all(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every plot that the results have data for; return the files."""
    runs = [Run(**run) for run in results["runs"]]
    machine = results["machine"]
    note = (
        f"{machine['processor']}, Linux {machine['kernel']}, commit {machine['commit']}; database "
        f"on {machine['database on']}, a sync takes {machine['sync of 4 KiB, median us']} us"
    )
    if disturbed := disturbance(runs):
        note += f"; {disturbed}"
    made = [
        plot_throughput(runs, folder / "throughput.png", note),
        plot_index(runs, results["core"], folder / "index.png", note),
        plot_latency(runs, folder / "latency.png", note),
        plot_heads(runs, folder / "heads.png", note),
    ]
    found = [path for path in made if path is not None]
    return found + plot_clients(runs, folder / "clients.png", note)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    print(*plot_all(json.loads(source.read_text()), source.parent), sep="\n")
