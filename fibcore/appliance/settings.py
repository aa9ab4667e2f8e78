"""The settings: where they come from, and their valid values.

**The environment takes precedence over ``fibcore.conf``, and that over the defaults**, for every
process and command in the folder of an instance. Nothing from an earlier run has any effect.

Every field of ``Settings`` is a row of the table in docs/operations.md; a test compares them.
"""

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from fibcore import MAX_EXACT_INDEX, MAX_INDEX
from fibcore.problems import IndexPastLimitError, IndexTooLargeError, SettingsError
from fibcore.stores import Opener
from fibcore.stores.keys import DEFAULT_MAX_KEYS
from fibcore.stores.opening import SCHEMES, opener_of
from fibcore.stores.sqlite import SYNCHRONOUS, Synchronous
from fibcore.stores.urls import shown

FILE: Final = "fibcore.conf"
PREFIX: Final = "FIB_"
STORE: Final = "FIB_STORE"
SQLITE: Final = "sqlite:"
IN_FILE: Final = "@"
"""The prefix of a file that contains the store: ``@/etc/fibcore/store``."""
ALIAS: Final = "FIB_STATE"
"""``FIB_STATE=FILE`` is short for ``FIB_STORE=sqlite:FILE``."""
RENAMED: Final = {
    "FIB_GRACEFUL_STOP": "FIB_STOP_TIMEOUT",
    "FIB_MAX_IN_FLIGHT": "FIB_MAX_ANSWER_BYTES",
    "FIB_MAX_WAITING": "FIB_MAX_WAITING_STEPS",
}
NOTHING_DONE: Final = "Nothing has been started or changed."

MAX_LINE: Final = 65536
ENCODING: Final = "utf-8-sig"
"""Of files: some editors begin them with a byte order mark."""
HOST: Final = r"(?:[\w.-]+|\[[\da-f:]+\])"
DEFAULT_SEQUENCE: Final = "fibonacci"
DEFAULT_MAX_INDEX: Final = {"exact": 10_000_000, "uint64": MAX_INDEX}
LARGEST_INDEX: Final = {"exact": MAX_EXACT_INDEX, "uint64": MAX_INDEX}


# The valid values of settings.


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

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


def _host(text: str) -> str:
    try:
        # The address lookup encodes names so, and raises an unexpected error for an invalid one.
        name = text.encode("idna").decode()
        named = re.fullmatch(r"[\w.-]+|[\da-fA-F:.]+(%[\w.-]+)?", name, re.ASCII) is not None
    except UnicodeError:
        named = False
    if not named:
        raise ValueError("an address or a host name, with 1 to 63 characters between its dots")
    return text


def _listed(pattern: str, what: str) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        found = frozenset(filter(None, re.split(r"[,\s]+", text.lower())))
        if not all(re.fullmatch(pattern, each, re.ASCII) for each in found):
            raise ValueError(f"{what}, separated by commas")
        return found

    return parse


def _origins(text: str) -> frozenset[str]:
    """As browsers send them: without the default port of the scheme."""
    found = _listed(rf"https?://{HOST}(:\d{{1,5}})?", "origins such as https://example.com:8443")
    return frozenset(
        re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", each) for each in found(text)
    )


def _addresses(text: str) -> str:
    found = list(filter(None, re.split(r"[,\s]+", text)))
    try:
        for each in found:
            if each != "*":
                ipaddress.ip_network(each)
    except ValueError:
        raise ValueError(
            "addresses or networks such as 10.0.0.0/8, separated by commas, or *"
        ) from None
    return ",".join(found)


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
    if scheme not in SCHEMES or not rest:
        raise ValueError(" or ".join(f"{each}:…" for each in SCHEMES))
    if scheme != "sqlite":
        return text
    path = Path(rest).absolute()
    if not path.name or "\0" in rest:
        raise ValueError(f"{SQLITE}FILE, where FILE names a file")
    return f"{SQLITE}{path}"


def _first_line(path: Path) -> str:
    """The store named in a file, which keeps its password from other users."""
    try:
        with path.open(encoding=ENCODING) as file:
            return file.readline(MAX_LINE).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(
            f"a file that this user may read, with the store in its first line ({reason})"
        ) from error


def _name(text: str) -> str:
    if re.fullmatch("[A-Za-z0-9_.-]{1,64}", text) is None:
        raise ValueError("1 to 64 letters, digits, or _ . -")
    return text


def _setting(variable: str, default: str, parse: Callable[[str], object], meaning: str) -> Any:
    return field(
        metadata={"variable": variable, "default": default, "parse": parse, "meaning": meaning}
    )


# Where settings come from.


class Given(NamedTuple):
    """A setting as it is written, before it is checked."""

    name: str
    """The variable, or its alias."""
    text: str
    source: str = "environment"
    """Also ``default``, ``FILE, line N``, or the option of a command."""

    @property
    def shown(self) -> str:
        """The text, without any password."""
        if self.name == ALIAS:
            return self.text.removeprefix(SQLITE)
        is_url = self.name == STORE and not self.text.startswith((SQLITE, IN_FILE))
        return shown(self.text) if is_url else self.text

    def error(self, reason: str) -> SettingsError:
        """An error with ``reason``, a sentence, and the source of the setting."""
        where = "" if self.source == "environment" else f"{self.source}: "
        return SettingsError(f"{where}{reason} {NOTHING_DONE}")


class Gathered(NamedTuple):
    """Every setting, from the source that takes precedence."""

    values: dict[str, Given]
    """By variable."""
    errors: list[SettingsError]

    def environ(self) -> dict[str, str]:
        """An environment with every setting, so that no file has any effect."""
        return {variable: given.text for variable, given in self.values.items()}


def without_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``environ`` without the settings."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def home() -> Path:
    """The folder of the instance: the current one if it has a ``fibcore.conf``, else that of .venv.

    A program installed elsewhere, without such a file, uses the current folder.
    """
    for folder in (Path.cwd(), Path(sys.prefix).parent):
        # Not Path.is_file, which raises if this user may not search the folder.
        if os.path.isfile(folder / FILE):  # noqa: PTH113
            return folder
    return Path.cwd()


def gather(
    environ: Mapping[str, str] = os.environ,
    options: Sequence[Given] = (),
    *,
    folder: Path | None = None,
    cwd: Path | None = None,
    only: Collection[str] | None = None,
) -> Gathered:
    """Collect the settings, without checking them; ``Settings.of`` does that.

    Args:
        environ: takes precedence over the file.
        options: from the command line; they take precedence over ``environ``.
        folder: the folder of the instance; None: use no file.
        cwd: the folder to which files in ``environ`` are relative.
        only: the variables that matter; errors in others are ignored.
    """
    defaults = {each.metadata["variable"]: each.metadata["default"] for each in fields(Settings)}
    names = [name for name in defaults if only is None or name in only]
    values: dict[str, Given] = {}
    errors: list[SettingsError] = []

    def take(base: Path, layer: Iterator[Given]) -> None:
        found: dict[str, Given] = {}
        for given in layer:
            name = STORE if given.name == ALIAS else given.name
            if name in names:
                if name == STORE:
                    text = given.text if given.name == STORE else SQLITE + given.text
                    given = given._replace(text=_placed(base, text))
                before = found.get(name, given)
                if before.name != given.name and before.text != given.text:
                    errors.append(given.error("FIB_STORE and FIB_STATE name different stores."))
                found[name] = given
            elif only is None:
                errors.append(given.error(_unknown(given.name, [*defaults, ALIAS])))
        for name, given in found.items():
            values.setdefault(name, given)

    cwd = cwd or Path.cwd()
    take(cwd, iter(options))
    ours = sorted(name for name in environ if name.startswith(PREFIX))
    take(cwd, (Given(name, environ[name]) for name in ours))
    if folder is not None and len(values) < len(names):
        take(folder, _lines((folder / FILE).resolve(), errors))
    take(folder or cwd, (Given(*each, "default") for each in defaults.items()))
    return Gathered({name: values[name] for name in names}, errors)


def _unknown(name: str, known: Sequence[str]) -> str:
    if name in RENAMED:
        return f"{name} has been renamed to {RENAMED[name]}."
    words = {each.removeprefix(PREFIX): each for each in known}
    alike = difflib.get_close_matches(name.removeprefix(PREFIX), words, 1)
    hint = f"Did you mean {words[alike[0]]}?" if alike else f"The settings are {', '.join(known)}."
    return f"{name} is not a setting. {hint}"


def _placed(folder: Path, text: str) -> str:
    """A store relative to ``folder`` or ``~``, as an absolute one."""
    for prefix in (SQLITE, IN_FILE):
        rest = text.removeprefix(prefix)
        if rest and rest != text:
            # Not Path.expanduser, which raises if there is no such user.
            return f"{prefix}{folder / os.path.expanduser(rest)}"  # noqa: PTH111
    return text


LINE: Final = re.compile(
    r"""(?P<name>FIB_\w*)\s*=(?:\s*"(?P<double>[^"]*)"|\s*'(?P<single>[^']*)'|(?P<bare>.*?))(?:\s+\#.*)?""",
    re.ASCII,
)
"""As in systemd's ``EnvironmentFile=``, except that a comment may follow the value."""


def _lines(path: Path, errors: list[SettingsError]) -> Iterator[Given]:
    """The settings in the file ``path``; none if there is no such file."""
    try:
        lines = path.read_text(ENCODING).splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        errors.append(SettingsError(f"{path} can't be read: {error}. {NOTHING_DONE}"))
        return
    for number, line in enumerate(map(str.strip, lines), 1):
        source = f"{path}, line {number}"
        if not line or line[0] in "#;":
            continue
        found = LINE.fullmatch(line)
        if found is None:
            errors.append(SettingsError(f"{source} is not FIB_NAME=value. {NOTHING_DONE}"))
        else:
            double, single, bare = found.group("double", "single", "bare")
            text = (bare or "").strip() if double is single else double or single or ""
            yield Given(found["name"], text, source)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings, checked. Build them with ``of`` or ``from_environ``."""

    host: str = _setting(
        "FIB_HOST", "127.0.0.1", _host, "address to listen on, unless a socket is inherited"
    )
    port: int = _setting(
        "FIB_PORT", "8080", _whole(1, 65535), "port to listen on, unless a socket is inherited"
    )
    allowed_hosts: frozenset[str] = _setting(
        "FIB_ALLOWED_HOSTS",
        "",
        _listed(HOST, "host names without ports"),
        "host names that requests may use, besides addresses and `localhost`; if empty: no others "
        "on the loopback, any elsewhere",
    )
    allowed_origins: frozenset[str] = _setting(
        "FIB_ALLOWED_ORIGINS",
        "",
        _origins,
        "other origins whose pages may step and read, such as `https://example.com`",
    )
    store: str = _setting(
        "FIB_STORE",
        "sqlite:var/fibcore.db",
        _store,
        "where the index is stored: `sqlite:FILE`, the URL of an engine (docs/scale.md), or "
        "`@FILE` that contains either; `FIB_STATE=FILE` is short for `FIB_STORE=sqlite:FILE`",
    )
    sequence: str = _setting(
        "FIB_SEQUENCE",
        DEFAULT_SEQUENCE,
        _name,
        "name of the sequence in an engine, which may hold several",
    )
    synchronous: Synchronous = _setting(  # noqa: RUF009
        "FIB_SYNCHRONOUS",
        "full",
        _one_of(*SYNCHRONOUS),
        "`full`, `normal` or `off`: what a power cut may lose",
    )
    integers: Literal["exact", "uint64"] = _setting(
        "FIB_INTEGERS",
        "exact",
        _one_of("exact", "uint64"),
        "`exact`, or `uint64`: modulo 2^64, not Fibonacci numbers past F(93)",
    )
    max_index: int = _setting(
        "FIB_MAX_INDEX",
        "",
        _whole(1, MAX_INDEX),
        "largest index; a step past it is answered 409; the default is 2^63 - 1 with `uint64`",
    )
    max_waiting_steps: int = _setting(
        "FIB_MAX_WAITING_STEPS",
        "1500",
        _whole(1, 1_000_000),
        "steps that may wait for their commit; more are answered 503, which leaves room for reads",
    )
    max_keys: int = _setting(
        "FIB_MAX_KEYS",
        str(DEFAULT_MAX_KEYS),
        _whole(100, 100_000),
        "steps with an `Idempotency-Key` that are kept, to be answered again: the most recent ones",
    )
    max_answer_bytes: int = _setting(
        "FIB_MAX_ANSWER_BYTES",
        str(64 * 2**20),
        _whole(2**20, 2**40),
        "bytes of unsent answers, including those in the kernel's buffers; past it 503",
    )
    max_connections: int = _setting(
        "FIB_MAX_CONNECTIONS",
        "2000",
        _whole(1, 1_000_000),
        "connections; past it the longest idle one is closed, or the new one is answered 503",
    )
    receive_timeout: float = _setting(
        "FIB_RECEIVE_TIMEOUT",
        "10",
        _seconds(0.1, 3600),
        "seconds within which a request must arrive in full, or the connection is closed",
    )
    send_timeout: float = _setting(
        "FIB_SEND_TIMEOUT",
        "30",
        _seconds(0.1, 3600),
        "seconds within which a client must read some of its answer, or its connection is closed",
    )
    stop_timeout: float = _setting(
        "FIB_STOP_TIMEOUT", "5", _seconds(0, 60), "seconds that a stop waits for unfinished answers"
    )
    access_log: bool = _setting(
        "FIB_ACCESS_LOG",
        "off",
        lambda text: _one_of("on", "off")(text) == "on",
        "`on` logs every request",
    )
    forwarded_allow_ips: str = _setting(
        "FIB_FORWARDED_ALLOW_IPS",
        "127.0.0.1",
        _addresses,
        "trusted proxies, as addresses or networks, or `*`: their `X-Forwarded-For` names the "
        "client in the access log",
    )
    log_format: Literal["text", "json"] = _setting(
        "FIB_LOG_FORMAT",
        "text",
        _one_of("text", "json"),
        "format of the logs: `text`, or `json` with an object per line",
    )

    @property
    def database(self) -> Path | None:
        """The file of the embedded store; None with another store."""
        scheme, _, rest = self.store.partition(":")
        return Path(rest) if scheme == "sqlite" else None

    @property
    def answered_hosts(self) -> frozenset[str] | None:
        """The host names that requests may use, besides addresses and localhost; None: any.

        On the loopback, a name other than ``localhost`` that is not listed was pointed here by an
        attacker (DNS rebinding). Elsewhere only the owner knows the names.
        """
        return self.allowed_hosts if self.allowed_hosts or _is_loopback(self.host) else None

    @property
    def where(self) -> str:
        """The store in messages: its file, or its URL without credentials."""
        return str(self.database or shown(self.store))

    def has_same_store(self, other: "Settings") -> bool:
        """Tell whether these name the same sequence in the same store as ``other``."""
        ours, theirs = self.database, other.database
        if ours is not None and theirs is not None:
            return ours.resolve() == theirs.resolve()
        return (self.store, self.sequence) == (other.store, other.sequence)

    def problem_at(self, index: int) -> IndexTooLargeError | IndexPastLimitError | None:
        """Why a sequence at ``index`` is not served; None if it is."""
        if index > LARGEST_INDEX[self.integers]:
            return IndexTooLargeError(self.where, index, LARGEST_INDEX[self.integers])
        if index > self.max_index:
            return IndexPastLimitError(self.where, index, self.max_index)
        return None

    def opener(self) -> Opener:
        """The opener of the store.

        Raises:
            StoreSettingError: the setting can't be used.
        """
        return opener_of(self.store, self.sequence, self.synchronous, self.max_keys)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The settings of ``environ``, and the defaults; no file is used.

        Raises:
            SettingsError: see ``of``.
        """
        return cls.of(gather(environ))

    @classmethod
    def of(cls, gathered: Gathered) -> Self:
        """Check every setting; those that were not gathered have their defaults.

        Raises:
            SettingsError: some are invalid; the error is the first, and has the others.
        """
        errors = list(gathered.errors)
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable, default = setting.metadata["variable"], setting.metadata["default"]
            given = gathered.values.get(variable, Given(variable, default, "default"))
            parse, text = setting.metadata["parse"], given.text
            if setting.name == "max_index":
                integers = values.get("integers", "exact")
                parse = _whole(1, LARGEST_INDEX[integers])
                text = text or str(DEFAULT_MAX_INDEX[integers])
            try:
                values[setting.name] = parse(text)
            except ValueError as error:
                reason = "it must name a file" if given.name == ALIAS else f"it must be {error}"
                errors.append(given.error(f"{given.name} is {given.shown!r}; {reason}."))
        if errors:
            raise SettingsError(errors[0].text, tuple(errors[1:]))
        settings = cls(**values)
        if settings.database is not None and settings.sequence != DEFAULT_SEQUENCE:
            reason = "FIB_SEQUENCE is set, but a file holds only one sequence: use a file for each."
            raise gathered.values["FIB_SEQUENCE"].error(reason)
        return settings
