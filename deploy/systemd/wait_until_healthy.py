"""Waits until the service answers /health, at the address that its supervisord was started with.

Run by install.sh, as root, with Debian's Python alone.
"""

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SECONDS = 120.0


def health_url():
    """Where it answers. The settings may have been changed since it was started."""
    pid = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", "fibcore"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    environment = Path("/proc", pid, "environ").read_text().split("\0")
    settings = dict(each.split("=", 1) for each in environment if "=" in each)
    host = settings["FIB_HOST"].replace("0.0.0.0", "127.0.0.1")
    return f"http://{host}:{settings['FIB_PORT']}/health"


def main(seconds=SECONDS):
    """Return when it is healthy; exit with 1 and the reason if it is not in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(health_url(), timeout=10).close()
        except (OSError, KeyError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"fibcore: no health within {seconds:g} s: {error!r}")
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    main()
