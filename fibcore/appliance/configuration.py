"""Where the settings of an instance come from, for those who start it and those who look after it.

First the environment; then ``var/fibcore.env``, which says what the instance was started with, for
whoever is not the one who starts it; then ``fibcore.conf``, which people edit. Both files are in
the syntax of systemd's ``EnvironmentFile=``, of which ``NAME=value`` lines and comments are used.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fibcore.appliance.settings import IN_FILE, SQLITE
from fibcore.problems import SettingsError

EDITED: Final = Path("fibcore.conf")
STARTED: Final = Path("var", "fibcore.env")

PREFIX: Final = "FIB_"
DEFAULT_STORE: Final = f"{SQLITE}var/fibcore.db"


def home() -> Path:
    """The folder of the instance: the current one if it is one, else the one we run from.

    That is the folder of ``.venv``; what is installed elsewhere has the current folder as its own.
    """
    for folder in (Path.cwd(), Path(sys.prefix).parent):
        # Not Path.is_file, which raises where the folder is not for this user to look into.
        if any(os.path.isfile(folder / each) for each in (EDITED, STARTED)):  # noqa: PTH113
            return folder
    return Path.cwd()


def to_start_with(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The settings to start the instance of ``folder`` with, each as text, paths made absolute.

    Raises:
        SettingsError: a line of ``fibcore.conf`` can't be understood.
    """
    return _merged(folder, read_file(folder / EDITED), environ)


def started_with(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The settings that the instance of ``folder`` was last started with, or is to be.

    Raises:
        SettingsError: a line of a file can't be understood.
    """
    started = folder / STARTED
    return _merged(folder, read_file(started if started.is_file() else folder / EDITED), environ)


def _merged(folder: Path, in_file: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    stores = {"FIB_STORE", "FIB_STATE"}
    if stores & set(ours):
        # One names the store, and what the file says of it is nobody's business.
        in_file = {name: value for name, value in in_file.items() if name not in stores}
    elif not stores & set(in_file):
        in_file = {**in_file, "FIB_STORE": DEFAULT_STORE}
    placed = {name: _placed(folder, name, value) for name, value in in_file.items()}
    return {**placed, **{name: _placed(Path.cwd(), name, value) for name, value in ours.items()}}


def _placed(folder: Path, name: str, value: str) -> str:
    """What names a file from ``folder`` as it is named from anywhere."""
    if name == "FIB_STATE" and value:
        return str(folder / value)
    if name == "FIB_STORE":
        for prefix in (SQLITE, IN_FILE):
            if value.startswith(prefix) and value != prefix:
                return f"{prefix}{folder / value.removeprefix(prefix)}"
    return value


def read_file(path: Path) -> dict[str, str]:
    """The settings in ``path``; none if there is no such file.

    Raises:
        SettingsError: it can't be read, or one of its lines can't be understood.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} can't be read: {error}. The database is untouched. Mend it, or move it away."
        ) from error
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.startswith(PREFIX):
            raise SettingsError(
                f"{path}, line {number} is not {PREFIX}NAME=value. The database is untouched. Mend "
                f"the line, or put # before it."
            )
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def write_file(path: Path, values: Mapping[str, str]) -> None:
    """Write settings for ``read_file``, in one step.

    Raises:
        OSError: they can't be written.
    """
    new = path.with_name(path.name + ".new")
    lines = "".join(f"{name}={value}\n" for name, value in sorted(values.items()))
    new.write_text(f"# Written at each start; what is to be set stands in {EDITED}.\n{lines}")
    new.replace(path)
