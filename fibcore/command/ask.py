"""``fibcore next``, ``current``, ``previous`` and ``number N``: the client, in a shell."""

import argparse
import shlex
import signal
from collections.abc import Callable
from typing import Any, Final

from fibcore import MAX_INDEX
from fibcore.client import Client, Number, StepInDoubtError
from fibcore.client.calls import KEY, Node
from fibcore.command import server
from fibcore.command.store import Report

TIMEOUT_SECONDS: Final = 10.0


def add_commands(subparsers: Any) -> None:
    """Add the commands that get a number from a server."""

    def command(name: str, get: Callable[[Client, argparse.Namespace], Number], what: str) -> Any:
        def run(options: argparse.Namespace) -> Report:
            options.option = "".join(
                f" --url {shlex.quote(_shown(each))}" for each in options.url or ()
            )
            urls = options.url or [server.configured_url()]
            with Client(urls, timeout=options.timeout) as client:
                number = get(client, options)
            facts = {"index": str(number.index), "number": number.digits, "exact": number.exact}
            return Report([number.digits], facts)

        parser = subparsers.add_parser(name, help=what, description=f"{what.capitalize()}.")
        parser.set_defaults(run=run, of_database=False, option="")
        parser.add_argument(
            "--url",
            action="append",
            type=url,
            help="the server, instead of the one in the settings; repeat it for each node",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=_seconds,
            default=TIMEOUT_SECONDS,
            help=f"how long to retry while no answer comes (default {TIMEOUT_SECONDS:g})",
        )
        parser.add_argument(
            "--json", action="store_true", help="print the index and the number, as JSON"
        )
        return parser

    step = command("next", _next, "step the sequence and print the next number")
    step.add_argument(
        "--key", type=_key, help="the key of a step in doubt: make that step unless it was made"
    )
    command("current", lambda client, _: client.current(), "print the current number")
    command(
        "previous", lambda client, _: client.previous(), "print the number before the current one"
    )
    at = command(
        "number",
        lambda client, options: client.number(options.index),
        "print the number at any index",
    )
    at.add_argument("index", metavar="N", type=_index, help="the index, a whole number from 0")


def _shown(url: str) -> str:
    """``url`` for display: without its credentials."""
    node = Node.at(url)
    return node.url.replace("//", "//USER:PASSWORD@", 1) if node.authorization else node.url


def _next(client: Client, options: argparse.Namespace) -> Number:
    key = options.key or client.new_key()
    # As an interrupt: `timeout` sends the one, a terminal that closes the other; not under nohup.
    ends = [
        each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL
    ]
    for each in ends:
        signal.signal(each, signal.default_int_handler)
    try:
        return client.next(key=key)
    except KeyboardInterrupt:
        raise StepInDoubtError("the server", "it was interrupted", key) from None
    finally:
        for each in ends:
            signal.signal(each, signal.SIG_DFL)


def _key(text: str) -> str:
    if KEY.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid key")
    return text


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_INDEX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_INDEX}")
    return int(text)


def url(text: str) -> str:
    """The URL of a server, as an argument."""
    try:
        Client(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
