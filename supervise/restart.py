"""``make restart``: the processes of the appliance anew, one after the other; nobody notices.

    python -m supervise.restart

The standby goes first, with what has been installed meanwhile; when it stands by again, the server
goes, and it takes over. supervisord keeps the socket open all the time, as it has a process for it
at every moment: ``supervisorctl restart web:*`` stops both first, and clients are turned away.

With a store that is shared both serve, and each goes while the other does.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from fibcore import configuration
from fibcore.settings import Settings, SettingsError
from fibcore.stores.files import lock_path
from fibcore.stores.lock import server_of
from fibcore.words import explain, typed

__all__ = ["main"]

LOCKS: Final = Path("/proc/locks")
LOGS: Final = Path("var", "log")
GROUP: Final = "web:"
BESIDE: Final = ("watchdog", "backup")
"""What runs beside it, of which there is one each."""
READY_SECONDS: Final = 60.0


class NotRestartedError(Exception):
    """What kept a process from being started anew, and what it means."""


def processes() -> dict[str, int]:
    """The running processes of the server, by name.

    Raises:
        NotRestartedError: supervisord can't be asked, or none runs.
    """
    found = {}
    for line in _supervisorctl("status", f"{GROUP}*").splitlines():
        # web:web_0    RUNNING   pid 4711, uptime 0:01:02
        name, _, rest = line.partition(" ")
        state, _, rest = rest.strip().partition(" ")
        if state == "RUNNING":
            found[name] = int(rest.split()[1].rstrip(","))
    if not found:
        raise NotRestartedError(
            f"No process of the server runs here. Nothing has been changed. make run starts it; "
            f"{typed('supervisorctl status')} says what has become of it."
        )
    return found


def _supervisorctl(*arguments: str) -> str:
    command = [str(Path(sys.prefix, "bin", "supervisorctl")), "-c", "supervisord.conf", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def queues_for(lock: Path, pid: int) -> bool:
    """Whether process ``pid`` holds the lock at ``lock`` or waits for it; see proc(5)."""
    try:
        inode = lock.stat().st_ino
    except FileNotFoundError:
        return False
    for line in LOCKS.read_text().splitlines():
        fields = line.replace("->", "").split()
        if fields[1] == "FLOCK" and fields[4] == str(pid):
            return fields[5].rpartition(":")[2] == str(inode)
    return False


def serves(log: Path, since: int) -> bool:
    """Whether a process that writes to ``log`` has said that it serves, past so many bytes."""
    text = log.read_bytes()
    # Past its largest size it is begun anew.
    return b" serving from index " in text[since if since <= len(text) else 0 :]


def restart(name: str, database: Path | None) -> None:
    """Start the process ``name`` anew; return when it can take over, or serves.

    Raises:
        NotRestartedError: it does not come to that.
    """
    log = LOGS / f"{name.removeprefix(GROUP)}.log"
    said = log.stat().st_size if database is None else 0
    _supervisorctl("restart", name)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        pid = processes().get(name)
        if database is None:
            is_ready = pid is not None and serves(log, said)
        else:
            is_ready = pid is not None and queues_for(lock_path(database), pid)
        if is_ready:
            return
        if time.monotonic() > deadline:
            raise NotRestartedError(
                f"{name} is not ready {READY_SECONDS:.0f} s after it was started anew. The "
                f"other process is left as it is, and serves. "
                f"{typed(f'supervisorctl tail {name}')} says more."
            )
        time.sleep(0.05)


def main() -> int:
    """Start all anew; return the status to exit with."""
    folder = Path.cwd()
    try:
        settings = Settings.from_environ(configuration.started_with(folder))
        database = settings.database
        server = None if database is None else server_of(database)
        # The server last: the standby, which is new by then, takes over from it.
        for name, _ in sorted(processes().items(), key=lambda each: each[1] == server):
            restart(name, database)
            print(f"{name} has been started anew", flush=True)
        print(_supervisorctl("restart", *BESIDE), end="")
    except SettingsError as error:
        print(f"fibcore: {explain(error)}", file=sys.stderr)
        return os.EX_CONFIG
    except NotRestartedError as error:
        print(f"fibcore: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    return 0


if __name__ == "__main__":
    sys.exit(main())
