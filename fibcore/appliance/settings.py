"""The settings: environment variables, each checked at start.

Every field is one row of the table in docs/operations.md, which a test holds against this file.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.problems import SettingsError
from fibcore.stores import Opener
from fibcore.stores.opening import OPENERS, opener_of
from fibcore.stores.sqlite import SYNCHRONOUS, Synchronous
from fibcore.stores.urls import shown

DEFAULT_MAX_INDEX = {"exact": 10_000_000, "uint64": MAX_INDEX}
SQLITE = "sqlite:"
IN_FILE = "@"
"""What a store begins with that is named in a file: ``@/etc/fibcore/store``."""
MAX_LINE = 65536
HOST = r"(?:[\w.-]+|\[[\da-f:]+\])"
DEFAULT_SEQUENCE = "fibonacci"
LARGEST_INDEX = {"exact": MAX_EXACT_INDEX, "uint64": MAX_INDEX}


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 20):
            raise ValueError(f"a whole number from {low} to {high}")
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not low <= number <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return number

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError("one of " + ", ".join(names))
        return text

    return parse


def _text(text: str) -> str:
    if not text:
        raise ValueError("not empty")
    return text


def _host(text: str) -> str:
    try:
        # As the look-up of its address does, which has no way out for what it does not take.
        named = bool(text and text.encode("idna"))
    except UnicodeError:
        named = False
    if not named:
        raise ValueError("an address or a host name, with 1 to 63 characters between its dots")
    return text


def _listed(pattern: str, what: str) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        found = frozenset(filter(None, re.split(r"[,\s]+", text.lower())))
        if not all(re.fullmatch(pattern, each, re.ASCII) for each in found):
            raise ValueError(f"{what}, with commas between them")
        return found

    return parse


def _origins(text: str) -> frozenset[str]:
    """As browsers write them: without the port that the scheme has."""
    found = _listed(rf"https?://{HOST}(:\d{{1,5}})?", "origins such as https://example.com:8443")
    return frozenset(
        re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", each) for each in found(text)
    )


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _store(text: str) -> str:
    if text.startswith(IN_FILE):
        text = _first_line(Path(text.removeprefix(IN_FILE)))
    scheme, _, rest = text.partition(":")
    if scheme not in OPENERS or not rest:
        raise ValueError(" or ".join(f"{each}:…" for each in OPENERS))
    return f"{SQLITE}{Path(rest).absolute()}" if scheme == "sqlite" else text


def _first_line(path: Path) -> str:
    """What a file says that is named instead of a store, so that no other user sees the password.

    Raises:
        SettingsError: it can't be read.
    """
    try:
        with path.open() as file:
            return file.readline(MAX_LINE).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(
            f"FIB_STORE says that {path} names the store, and that file can't be read: {why}. "
            f"Nothing has been changed. Write the store there, in one line that this user may read."
        ) from error


def _name(text: str) -> str:
    if re.fullmatch("[A-Za-z0-9_.-]{1,64}", text) is None:
        raise ValueError("1 to 64 letters, digits, or _ . -")
    return text


def _file(text: str) -> str:
    return _store(SQLITE + _text(text))


def _setting(
    variable: str, default: str, parse: Callable[[str], object], meaning: str
) -> Mapping[str, Any]:
    return {"variable": variable, "default": default, "parse": parse, "meaning": meaning}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server was told, checked. Build it with ``from_environ``."""

    host: str = field(
        metadata=_setting(
            "FIB_HOST", "127.0.0.1", _host, "address to listen on, when no socket is inherited"
        )
    )
    port: int = field(
        metadata=_setting(
            "FIB_PORT", "8080", _whole(0, 65535), "port to listen on, when no socket is inherited"
        )
    )
    allowed_hosts: frozenset[str] = field(
        metadata=_setting(
            "FIB_ALLOWED_HOSTS",
            "",
            _listed(HOST, "names of hosts without ports"),
            "names it answers for, besides addresses and `localhost`; if empty: no other on the "
            "loopback, else any",
        )
    )
    allowed_origins: frozenset[str] = field(
        metadata=_setting(
            "FIB_ALLOWED_ORIGINS",
            "",
            _origins,
            "other origins whose pages may step and read, such as `https://example.com`",
        )
    )
    store: str = field(
        metadata=_setting(
            "FIB_STORE",
            "sqlite:var/fibcore.db",
            _store,
            "where the index lives: `sqlite:FILE`, an engine (docs/scale.md), or `@FILE` that says "
            "so",
        )
    )
    file: str | None = field(
        metadata=_setting("FIB_STATE", "", _file, "the file alone, instead of `FIB_STORE`")
    )
    sequence: str = field(
        metadata=_setting(
            "FIB_SEQUENCE",
            DEFAULT_SEQUENCE,
            _name,
            "the name of the sequence in a store that holds several",
        )
    )
    synchronous: Synchronous = field(
        metadata=_setting(
            "FIB_SYNCHRONOUS",
            "full",
            _one_of(*SYNCHRONOUS),
            "`full`, `normal` or `off`: what a power cut may lose",
        )
    )
    integers: Literal["exact", "uint64"] = field(
        metadata=_setting(
            "FIB_INTEGERS",
            "exact",
            _one_of("exact", "uint64"),
            "`exact`, or `uint64`: modulo 2^64, not Fibonacci numbers past F(93)",
        )
    )
    max_index: int = field(
        metadata=_setting(
            "FIB_MAX_INDEX",
            "",
            _whole(1, MAX_INDEX),
            "largest index; a step past it is answered 409; with `uint64` by default 2^63 - 1",
        )
    )
    max_waiting: int = field(
        metadata=_setting(
            "FIB_MAX_WAITING",
            "1500",
            _whole(1, 1_000_000),
            "steps that may wait for their commit; past it 503: reads keep a place",
        )
    )
    max_in_flight: int = field(
        metadata=_setting(
            "FIB_MAX_IN_FLIGHT",
            str(64 * 2**20),
            _whole(2**20, 2**40),
            "bytes of answers not yet sent, and what the kernel is lent of them; past it 503",
        )
    )
    max_connections: int = field(
        metadata=_setting(
            "FIB_MAX_CONNECTIONS",
            "2000",
            _whole(1, 1_000_000),
            "connections; past it the longest idle one is closed, or the new one answered 503",
        )
    )
    receive_timeout: float = field(
        metadata=_setting(
            "FIB_RECEIVE_TIMEOUT",
            "10",
            _seconds(0.1, 3600),
            "seconds in which a request must have arrived; past it the connection is closed",
        )
    )
    send_timeout: float = field(
        metadata=_setting(
            "FIB_SEND_TIMEOUT",
            "30",
            _seconds(0.1, 3600),
            "seconds in which a client must take some of its answer; past it the connection closes",
        )
    )
    graceful_stop: float = field(
        metadata=_setting(
            "FIB_GRACEFUL_STOP",
            "5",
            _seconds(0, 60),
            "seconds that a stop waits for answers under way",
        )
    )
    access_log: bool = field(
        metadata=_setting(
            "FIB_ACCESS_LOG",
            "off",
            lambda text: _one_of("on", "off")(text) == "on",
            "`on` logs every request",
        )
    )
    log_format: Literal["text", "json"] = field(
        metadata=_setting(
            "FIB_LOG_FORMAT",
            "text",
            _one_of("text", "json"),
            "how logs are written: `text` for people, or `json`, an object a line",
        )
    )

    @property
    def database(self) -> Path | None:
        """The file of the embedded store; None with another store."""
        scheme, _, rest = self.store.partition(":")
        return Path(rest) if scheme == "sqlite" else None

    @property
    def answered_hosts(self) -> frozenset[str] | None:
        """The names that requests may be for, besides addresses and localhost; None: any.

        On the loopback no name but ``localhost`` leads here, unless somebody has listed it, or has
        turned one of his own here (DNS rebinding). Elsewhere only the owner knows the names.
        """
        return self.allowed_hosts if self.allowed_hosts or _is_loopback(self.host) else None

    @property
    def where(self) -> str:
        """What messages call the store: its file, or its URL without who may use it."""
        return str(self.database or shown(self.store))

    def opener(self) -> Opener:
        """The store, not open yet.

        Raises:
            StoreSettingError: it can't be used as it is set.
        """
        return opener_of(self.store, self.sequence, self.synchronous)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read and check every setting.

        Raises:
            SettingsError: one is out of bounds, or a variable with our prefix is not a setting.
        """
        known = {setting.metadata["variable"]: setting for setting in fields(cls)}
        unknown = sorted(name for name in environ if name.startswith("FIB_") and name not in known)
        if unknown:
            raise SettingsError(
                f"{unknown[0]} is not a setting. Nothing has been started and the database is "
                f"untouched. The settings are {', '.join(known)}."
            )
        values: dict[str, Any] = {}
        for variable, setting in known.items():
            text = environ.get(variable, setting.metadata["default"])
            if setting.name == "max_index":
                if not environ.get(variable):
                    text = str(DEFAULT_MAX_INDEX[values["integers"]])
                parse = _whole(1, LARGEST_INDEX[values["integers"]])
            else:
                parse = setting.metadata["parse"]
            try:
                unset = setting.name == "file" and variable not in environ
                values[setting.name] = None if unset else parse(text)
            except ValueError as error:
                if variable == "FIB_STORE":
                    text = text if text.startswith(IN_FILE) else shown(text)
                raise SettingsError(
                    f"{variable} must be {error}, and is {text!r}. Nothing has been started "
                    f"and the database is untouched. Set {variable} right, or leave it out for its "
                    f"default."
                ) from None
        if values["file"]:
            if environ.get("FIB_STORE") and values["store"] != values["file"]:
                raise SettingsError(
                    "FIB_STORE and FIB_STATE name different stores. Nothing has been started and "
                    "the database is untouched. Leave FIB_STATE out."
                )
            values["store"] = values["file"]
        settings = cls(**values)
        if settings.database is not None and settings.sequence != DEFAULT_SEQUENCE:
            raise SettingsError(
                "FIB_SEQUENCE names a sequence, and a file holds one alone. Nothing has been "
                "started and the database is untouched. Leave it out, and set FIB_STORE to a file "
                "for each sequence."
            )
        return settings
