"""The Debian package in a booted Debian: each test continues where the last ended."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.install.conftest import PACKAGE
from tests.install.container import ADDRESS, Container
from tests.support.load import Load
from tests.support.packages import release
from tests.support.servers import Client
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.root]

PORT: Final = 8080
CLIENT: Final = Client(f"http://{ADDRESS}:{PORT}")
CONF: Final = "/etc/fibcore/fibcore.conf"
APT: Final = "DEBIAN_FRONTEND=noninteractive apt-get --yes --allow-downgrades"
STEPS: Final = 100
"""Steps to wait for, before an upgrade and after it."""

NEXT: Final = "9.8"
"""The release after this one."""
AFTER: Final = "9.9"
"""The one after that, with another supervisord configuration."""


@pytest.fixture(scope="module")
def machine(
    root: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("debian")
    machine = Container(folder / "root")
    packages = folder / "root" / "srv"
    for name in ("this", "again"):
        shutil.copy(PACKAGE, packages / f"{name}.deb")
    release(PACKAGE, packages / f"{NEXT}.deb", NEXT, "web/__init__.py")
    release(PACKAGE, packages / f"{AFTER}.deb", AFTER, "supervise/extension.py")
    with machine:
        yield machine
    shutil.rmtree(folder / "root")


def is_healthy() -> bool:
    try:
        return CLIENT.get("/health").status == 200
    except OSError:
        return False


def pids(machine: Container) -> list[int]:
    """The process ids of supervisord and of everything that it runs."""
    main = machine.run("systemctl show --property=MainPID --value fibcore").strip()
    return [int(main), *map(int, machine.run(f"pgrep --parent {main}").split())]


@contextmanager
def loaded() -> Iterator[Load]:
    """Step and read in the background; nothing else steps, and every answer must be right."""
    first = CLIENT.index
    with Load([(ADDRESS, PORT)], clients=16, rate=200) as load:
        load.wait_for_steps(STEPS)
        yield load
        load.wait_for_steps(STEPS)
    load.check(first=first, last=CLIENT.index)


def test_the_installed_package_serves(machine: Container) -> None:
    machine.run(f"{APT} install /srv/this.deb")
    asked = ("current", "next", "next", "next", "previous")
    session = [machine.run(f"curl -sS http://127.0.0.1:{PORT}/{path}") for path in asked]
    answers = ("current", 0), ("next", 1), ("next", 1), ("next", 2), ("previous", 1)
    assert session == [f'{{"{name}": {number}}}' for name, number in answers]


def test_the_command_uses_the_database_of_the_service(machine: Container) -> None:
    shown = dict(
        line.split(maxsplit=1) for line in machine.run("cd / && fibcore show").splitlines()
    )
    assert shown["database"] == "/var/lib/fibcore/fibcore.db"
    assert shown["index"] == "3"
    assert "healthy" in machine.run("fibcore status")
    completions = "/usr/share/bash-completion/completions/fibcore"
    assert "fibcore" in machine.run(f"bash -c '. {completions} && complete -p fibcore'")
    manual = machine.run("zcat /usr/share/man/man1/fibcore.1.gz")
    assert "resume from a copy; stop the server first" in manual


def test_the_journal_has_the_lines_of_the_server(machine: Container) -> None:
    def lines() -> str:
        return machine.run("journalctl --unit fibcore --no-pager")

    until(lambda: "serving from index 0" in lines(), lines)
    machine.run("systemctl restart fibcore")
    until(lambda: "serving from index 3" in lines(), lines)
    assert "stopped at index 3" in lines()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("FIB_PORT=80800", "FIB_PORT is '80800'; it must be a whole number from 1 to 65535"),
        ("FIB_PORT=8081", "FIB_PORT=8081 at 127.0.0.1 is in use by another program"),
    ],
)
def test_a_restart_with_an_invalid_setting_fails_with_the_reason(
    machine: Container, setting: str, reason: str
) -> None:
    """One line of the journal has the reason."""
    machine.run("systemd-run --unit other python3 -m http.server --bind 127.0.0.1 8081")
    until(lambda: machine.tries("curl -sS http://127.0.0.1:8081"), "another program has the port")
    machine.run(f"cp {CONF} /srv/conf && echo {setting} >>{CONF}")
    machine.run("journalctl --rotate && journalctl --vacuum-time=1us")
    assert "Job for fibcore.service failed" in machine.fails("systemctl restart fibcore")
    assert reason in machine.fails("systemctl status --no-pager fibcore")
    # Longer than the time after which it would be restarted.
    machine.run("sleep 2")
    journal = machine.run("journalctl --unit fibcore --no-pager --output cat")
    assert sum(line.startswith("fibcore: ") for line in journal.splitlines()) == 1
    assert "Traceback" not in journal
    machine.run(f"cp /srv/conf {CONF} && systemctl stop other && systemctl restart fibcore")
    assert machine.run(f"curl -sS http://127.0.0.1:{PORT}/current") == '{"current": 2}'


def test_it_serves_after_a_boot_with_the_new_settings(machine: Container) -> None:
    machine.run(f"echo FIB_HOST=0.0.0.0 >>{CONF}")
    machine.power_off()
    machine.boot()
    until(is_healthy, "it is healthy")
    assert CLIENT.index == 3


@pytest.mark.parametrize("package", [NEXT, "this", "again"])
def test_another_release_takes_over_under_load(machine: Container, package: str) -> None:
    """No connection is refused, no answer is an error, and each step that was made was answered.

    Idle connections are closed: a client that sends at that moment retries.
    """
    before, first = pids(machine), CLIENT.index
    with loaded() as load:
        output = machine.run(f"{APT} install --reinstall /srv/{package}.deb")
    assert "one process after the other" in output
    assert (load.refused, load.errors.total()) == (0, 0)
    assert CLIENT.index == first + load.steps
    after = pids(machine)
    assert after[0] == before[0], "supervisord itself has been restarted"
    assert len(set(after[1:]) & set(before)) == 1, "all but what follows the logs is new"
    started = machine.run("journalctl --unit fibcore --no-pager | grep 'starting: fibcore'")
    assert (f"fibcore {NEXT}," in started.splitlines()[-1]) == (package == NEXT)
    assert "FIB_HOST=0.0.0.0" in machine.run(f"cat {CONF}")


def test_a_release_with_another_supervisor_restarts_everything(machine: Container) -> None:
    """Connections are refused for a moment, and no acknowledged step is lost."""
    before = pids(machine)
    with loaded() as load:
        assert "restarting all of it" in machine.run(f"{APT} install /srv/{AFTER}.deb")
    assert load.errors.total() == 0
    assert not set(pids(machine)) & set(before)


def test_the_configured_number_of_backups_is_kept(machine: Container) -> None:
    folder = "/var/backups/fibcore"
    older = [f"2020-01-0{day}T000000Z.db" for day in range(1, 9)]
    machine.run(f"cd {folder} && touch mine.db {' '.join(older)}")
    assert "fibcore-backup.timer" in machine.run("systemctl list-timers --no-pager")
    machine.run("systemctl start fibcore-backup")
    kept = machine.run(f"ls {folder}").split()
    assert kept[:6] == older[2:]
    assert kept[7:] == ["mine.db"]
    assert f"good, at index {CLIENT.index}" in machine.run(
        f"fibcore verify --database {folder}/{kept[6]}"
    )


def test_removal_leaves_the_database_and_the_settings(machine: Container) -> None:
    index = CLIENT.index
    machine.run(f"{APT} remove fibcore")
    assert not machine.tries("systemctl is-active fibcore")
    assert not machine.tries("command -v fibcore || ls /usr/lib/fibcore")
    assert machine.run(f"ls {CONF} /var/lib/fibcore/fibcore.db")
    machine.run(f"{APT} install /srv/this.deb")
    until(is_healthy, "it is healthy")
    assert CLIENT.index == index


def test_a_purge_leaves_the_database_and_reports_it(machine: Container) -> None:
    output = machine.run(f"{APT} purge fibcore")
    assert "the database in /var/lib/fibcore and the backups in /var/backups/fibcore are left" in (
        output
    )
    machine.run("ls /var/lib/fibcore/fibcore.db")
    assert not machine.tries("ls /etc/fibcore")
    assert machine.run("systemctl --failed --no-legend") == ""
