"""The URLs of stores: which are accepted, and which parts may be shown.

    SCHEME://USER:PASSWORD@HOST:PORT,HOST:PORT/PATH?NAME=VALUE&NAME=VALUE

**Of an accepted URL the scheme, hosts and path are shown; of any other only the scheme.** A
character that would end the password early (``/``, ``?``, ``#``, ``@``) must be percent-encoded:
parsers would disagree on where the password ends.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

MAX_LABEL: Final = 63
MAX_HOST: Final = 253
"""Characters of a host name (``MAX_HOST``) and of each of its labels: RFC 1035, 2.3.4."""

MAX_PORT: Final = 65535

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_ENCODED: Final = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")
"""Printable ASCII without spaces, in which each % starts a percent-encoded character."""
_MEMBER: Final = re.compile(
    r"(?P<host>(?:[A-Za-z0-9_.-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9_.-]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_OPTION: Final = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_]*)=(?P<value>.*)")

_WORD: Final = re.compile(r"[A-Za-z0-9_./-]*")
"""Text that can't contain a password, such as a file name."""

ENCODE: Final = "Percent-encode / ? # and @ in a password as %2F %3F %23 and %40"


class Url(NamedTuple):
    """The parts of a URL, undecoded."""

    scheme: str
    user: str
    """``USER:PASSWORD@``, or less."""
    hosts: str
    """``HOST:PORT,HOST:PORT``."""
    path: str
    """Empty, or with its leading slash."""
    options: tuple[tuple[str, str], ...]

    def members(self, port: int) -> list[tuple[str, int]]:
        """Each host with its port, which is ``port`` by default.

        Raises:
            ValueError: one is empty.
        """
        parts = [urlsplit(f"//{each}") for each in self.hosts.split(",")]
        if not all(each.hostname for each in parts):
            raise ValueError("it names no host")
        return [(str(each.hostname), each.port or port) for each in parts]


def parse(url: str) -> Url:
    """Parse ``url``.

    Raises:
        ValueError: it is not accepted; the message quotes no part of it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or _SCHEME.fullmatch(scheme) is None:
        raise ValueError("it does not begin with a scheme and ://")
    if _ENCODED.fullmatch(rest) is None:
        raise ValueError(
            "it has a character that must be percent-encoded, or a % without two digits behind it"
        )
    if re.search("%00", rest):
        raise ValueError("it has a null character")
    if "#" in rest:
        raise ValueError(f"it has a fragment. {ENCODE}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if "@" in user or "@" in path:
        raise ValueError(f"where its password ends is ambiguous. {ENCODE}")
    for each in hosts.split(","):
        _check_member(each)
    options = []
    for each in query.split("&") if query else ():
        option = _OPTION.fullmatch(each)
        if option is None:
            raise ValueError(f"an option after its ? is not of the form NAME=VALUE. {ENCODE}")
        name, value = option["name"], option["value"]
        if "@" in value and not name.endswith("password"):
            raise ValueError(f"where its password ends is ambiguous. {ENCODE}")
        if name == "host" and hosts:
            raise ValueError("it names its host twice")
        options.append((name, value))
    return Url(scheme, user + at, hosts, slash + path, tuple(options))


def _check_member(text: str) -> None:
    found = _MEMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"it has an invalid host or port. {ENCODE}")
    if found["port"] is not None and not 1 <= int(found["port"]) <= MAX_PORT:
        raise ValueError(f"it has a port that is not from 1 to {MAX_PORT}")
    host = unquote(found["host"])
    if host.startswith(("[", "/")):
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_HOST or any(len(label) > MAX_LABEL for label in labels):
        raise ValueError(
            f"it has a host of more than {MAX_HOST} characters, or of more than {MAX_LABEL} "
            f"between its dots"
        )
    if host and not (host.isascii() and all(labels)):
        raise ValueError("it has an invalid host name")


def shown(url: str) -> str:
    """``url`` for display: without user, password and options."""
    try:
        parts = parse(url)
    except ValueError:
        scheme, separator, rest = url.partition(":")
        if _WORD.fullmatch(url) or (separator and not rest):
            return url
        slashes = "//" if rest.startswith("//") else ""
        known = separator and _SCHEME.fullmatch(scheme) is not None
        return f"{scheme}:{slashes}..." if known else "..."
    return f"{parts.scheme}://{parts.hosts}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """``text``, such as a driver's message about ``url``, with the URL's passwords masked."""
    try:
        parts = parse(url)
    except ValueError:
        return "its URL is not accepted"
    secrets = {parts.user.partition(":")[2].removesuffix("@")}
    for place, (name, value) in enumerate(parts.options):
        if name.endswith("password"):
            secrets.add(value)
            # After an unencoded &, what follows may be the rest of the password.
            rest = (each for option in parts.options[place + 1 :] for each in option)
            secrets.update(each for each in rest if len(each) > 2)
    secrets |= {unquote(each) for each in secrets}
    secrets |= {repr(each)[1:-1] for each in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return text
