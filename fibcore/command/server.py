"""``fibcore serve``, ``status`` and ``config``."""

import argparse
import contextlib
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from fibcore.appliance.servers import servers_of
from fibcore.appliance.settings import (
    DEFAULT_MAX_INDEX,
    Given,
    Settings,
    gather,
    home,
    without_settings,
)
from fibcore.appliance.takeover_history import ENDINGS
from fibcore.client.calls import Node
from fibcore.command.store import Report, row
from fibcore.problems import NotAnsweringError, NotHealthyError, SettingsError, typed

ANSWER_SECONDS: Final = 10.0

VARIABLES: Final = {"host": "FIB_HOST", "port": "FIB_PORT", "store": "FIB_STORE"}
"""The settings that the command line can override, by option."""

ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address to connect to if a server listens on all addresses."""

ANOTHER: Final = "another program, or another version of this one, answers there"

UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def serve(options: argparse.Namespace) -> NoReturn:
    """Become ``python -m web``, one process, with the settings of this folder.

    Raises:
        SettingsError: the settings are invalid.
    """
    given = [
        Given(variable, value, f"--{name}")
        for name, variable in VARIABLES.items()
        if (value := getattr(options, name)) is not None
    ]
    folder = home()
    gathered = gather(options=given, folder=folder)
    Settings.of(gathered)
    # So that other commands run in this folder find it.
    os.chdir(folder)
    # -P: the current folder may have another module of that name.
    command = [sys.executable, "-P", "-m", "web"]
    os.execve(sys.executable, command, {**without_settings(), **gathered.environ()})


def config(options: argparse.Namespace) -> Report:  # noqa: ARG001
    """Show each setting, and where it comes from."""
    gathered = gather(folder=home())
    problems: list[SettingsError] = []
    values = gathered.values
    if not values["FIB_MAX_INDEX"].text:
        default = DEFAULT_MAX_INDEX.get(values["FIB_INTEGERS"].text, "")
        values["FIB_MAX_INDEX"] = values["FIB_MAX_INDEX"]._replace(text=str(default))
    widths = max(map(len, values)), max(len(given.shown) for given in values.values())
    lines = [
        f"{variable:<{widths[0]}}  {given.shown:<{widths[1]}}  {given.source}"
        for variable, given in values.items()
    ]
    facts = {
        variable: {"value": given.shown, "source": given.source}
        for variable, given in values.items()
    }
    try:
        Settings.of(gathered)
    except SettingsError as error:
        problems = [error, *error.others]
    return Report(lines, facts, problems)


def status(options: argparse.Namespace) -> Report:
    """Show what the server reports about itself.

    Raises:
        NotAnsweringError: no server answers.
        SettingsError: the host or the port is invalid.
    """
    if options.all:
        return _nodes(options.all)
    url = options.url or configured_url()
    found = ask(url)
    with _as_we_write_it(url):
        problems = [] if found["healthy"] else [NotHealthyError(found["reason"])]
        return Report([row(*each) for each in rows(Node.at(url).url, found)], found, problems)


def _nodes(urls: Sequence[str]) -> Report:
    """Show each node in a line; an unhealthy node is a problem."""
    lines, nodes = [], []
    problems: list[Exception] = []
    for each in urls:
        url = Node.at(each).url
        try:
            found = ask(each)
            with _as_we_write_it(each):
                health = "healthy" if found["healthy"] else "unavailable"
                index, store = found["index"] or "unknown", ", ".join(_store(found["store"]))
                line = f"{url:<31} {health:<12} index {index:<20} {store}"
                problem = None if found["healthy"] else f"{url}: {found['reason']}"
        except NotAnsweringError as error:
            problems.append(error)
            nodes.append({"url": url, "healthy": False})
            lines.append(f"{url:<31} does not answer")
            continue
        if problem is not None:
            problems.append(NotHealthyError(problem))
        nodes.append({"url": url, **found})
        lines.append(line)
    return Report(lines, {"nodes": nodes}, problems)


def configured_url() -> str:
    """The URL in the environment, or of a server of this folder; if none runs, of one that would.

    Raises:
        SettingsError: the host or the port is invalid.
    """
    gathered = gather(folder=home(), only=("FIB_HOST", "FIB_PORT"))
    settings = Settings.of(gathered)
    is_given = any(each.source == "environment" for each in gathered.values.values())
    running = [] if is_given else [server.settings for server in servers_of(home())]
    if running and settings.port not in [each.port for each in running]:
        settings = running[0]
    host = ANY.get(settings.host, settings.host).encode("idna").decode()
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def ask(url: str) -> dict[str, Any]:
    """Return the ``/status`` of the server at ``url``, which may have a user and a password.

    Raises:
        NotAnsweringError: it does not answer.
    """
    node = Node.at(url)
    request = urllib.request.Request(f"{node.url}/status")
    if node.authorization:
        # Not for a server that this one redirects to.
        request.add_unredirected_header(*node.authorization.strip().split(": ", 1))
    # Never through a proxy from the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            found = json.loads(answer.read())
        if not isinstance(found, dict) or "healthy" not in found:
            raise ValueError(ANOTHER)
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise _not_answering(url, error) from error
    return found


def _not_answering(url: str, error: Exception) -> NotAnsweringError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError):
        reason = reason.strerror or reason
    return NotAnsweringError(
        f"No server answers at {Node.at(url).url} ({str(reason).lower()}). "
        f"{typed('fibcore serve')} starts one; --url selects a server elsewhere."
    )


@contextlib.contextmanager
def _as_we_write_it(url: str) -> Iterator[None]:
    """Raise NotAnsweringError if a status is not read as this version writes it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _not_answering(url, ValueError(ANOTHER)) from error


def rows(url: str, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows that a person sees: names and values."""
    process, store, taken = found["process"], found["store"], found["takeovers"]
    lasting, now = _span(process["uptime"]), found["now"]
    number = "unknown"
    if found["index"] is not None:
        first, last, digits = found["first"], found["last"], found["digits"]
        whole = len(first) + len(last) == digits
        shown = first + last if whole else f"{first[:20]}...{last[-20:]}"
        number = f"{shown} ({digits} digit{'' if digits == 1 else 's'})"
    rejected = sum(found["rejected_requests"].values())
    lines = [
        ("server", f"{url}, process {process['pid']}, serving for {lasting}"),
        ("health", "healthy" if found["healthy"] else "unavailable"),
        ("index", found["index"] or "unknown"),
        ("number", number),
        ("steps", f"{found['steps']} by this process{_means(found)}"),
        ("reads", f"{found['reads']} by this process"),
        ("rejected", f"{rejected} (4xx), {found['unavailable']} (503)"),
        ("waiting", f"{found['waiting_steps']} steps of {found['limit']['waiting']}"),
        ("connections", f"{found['connections']} of {found['limit']['connections']}"),
        ("memory", f"{found['memory_bytes'] / 1e6:.1f} MB"),
        ("store", ", ".join(_store(store))),
        *(("durability", warning) for warning in store["warnings"]),
    ]
    if store["sequence"] is None:
        ready = {True: "ready", False: "none", None: "unknown"}[found["standby"]]
        copy = found["backup_copy"]
        last = f", the last {_span(now - taken['at'])} ago" if taken["at"] else ""
        ending = ENDINGS.get(taken["after"])
        why = f": the previous server {ending}" if ending else ""
        lines += [
            ("standby", ready),
            ("takeovers", f"{taken['number']}{last}{why}"),
            ("backup copy", f"{_span(now - copy['at'])} old" if copy else "none"),
        ]
    return lines


def _store(store: Mapping[str, Any]) -> list[str]:
    lines = [store["kind"], f"integers={store['integers']}"]
    if store["sequence"] is not None:
        return [*lines, f"sequence {store['sequence']}"]
    return [*lines, f"synchronous={store['synchronous']}"]


def _means(found: Mapping[str, Any]) -> str:
    if not found["steps"]:
        return ""

    def mean(name: str) -> float:
        return float(found[name]["sum"] / sum(found[name]["counts"]))

    milliseconds = mean("commit_seconds") * 1000
    return f", {mean('batch_steps'):.3g} per commit, each {milliseconds:.3g} ms"


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    left, lines = max(0, int(seconds)), []
    for size, name in UNITS:
        count, left = divmod(left, size)
        if count:
            lines.append(f"{count} {name}")
    return " ".join(lines[:2]) or "0 s"
