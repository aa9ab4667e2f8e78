"""The appliance in the VM, from ``vagrant up`` on: each test continues where the last ended.

Speed is not tested: an emulated CPU is some fifteen times slower. The tests show that the VM
behaves like the host, and what only a VM can show.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.load import Load
from tests.support.packages import release
from tests.support.servers import Client
from tests.vm.conftest import Figure
from tests.vm.machine import CGROUP, DATABASE, PORT, Machine

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

MEMORY_MB = 160
"""Memory that supervisord and all its processes may take of the VM's 512 MB."""

UP_SECONDS = 120.0
"""Time limit of a few steps, on an emulated CPU that has just booted."""

HANG_SECONDS = 90.0
"""Until a hanging server is replaced: 3 seconds, and the emulation's share."""

RATE: Final = 40
"""Requests per second that the emulated CPU can handle."""

STEPS: Final = 40
"""Steps to wait for, before a fault and after it."""


@contextmanager
def loaded(client: Client) -> Iterator[Load]:
    """Step and read in the background; nothing else steps, and every answer must be right."""
    first = client.index
    with Load([(client.host, client.port)], clients=4, rate=RATE) as load:
        load.wait_for_steps(STEPS, UP_SECONDS)
        yield load
    load.check(first=first, last=client.index)


# The commands, as in the README.


def test_vagrant_up_ends_with_the_reference_session(machine: Machine) -> None:
    """On the loopback of the host."""
    asked = ("current", "next", "next", "next", "previous")
    session = [machine.shell(f"curl -s http://127.0.0.1:8080/{path}") for path in asked]
    assert session == [
        '{"current": 0}',
        '{"next": 1}',
        '{"next": 1}',
        '{"next": 2}',
        '{"previous": 1}',
    ]


def test_only_its_own_name_is_answered(machine: Machine) -> None:
    name = machine.ssh("hostname").strip()
    for host, status in ((name, 200), ("localhost:8080", 200), ("fib.example.com", 421)):
        assert machine.direct.get("/current", {"Host": host}).status == status


def test_the_contract_holds_through_the_forwarded_port(machine: Machine) -> None:
    run = f"{BIN}/python -m pytest -q -p no:cacheprovider"
    machine.shell(f"cd {ROOT} && {run} tests/endpoints/contract --base-url http://127.0.0.1:8080")


def test_locust_accepts_every_answer(machine: Machine, figure: Figure) -> None:
    locust = (
        f"{BIN}/locust -f {ROOT}/bench/locustfile.py --headless --users 90 --spawn-rate 90"
        " --run-time 10s --stop-timeout 5 --host http://127.0.0.1:8080"
    )
    # Its exit status reports a rate below the requested one, as expected here.
    output = machine.shell(f"cd {ROOT} && {locust} || true")
    verdict = re.search(r"^checked .*", output, re.MULTILINE)
    assert verdict, output
    assert re.search(r" 0 requests failed; .*, none twice, 0 missing", verdict[0]), verdict[0]
    figure(f"locust: {verdict[0]}")


def test_systemd_shows_what_runs(machine: Machine) -> None:
    status = machine.shell("vagrant ssh -c 'systemctl status fibcore'")
    assert "active (running)" in status
    assert all(f"-m {name}" in status for name in ("web", "supervise.watchdog", "supervise.backup"))


def test_the_command_uses_the_database_of_the_service(machine: Machine) -> None:
    shown = dict(line.split(maxsplit=1) for line in machine.ssh("sudo fibcore show").splitlines())
    assert shown["database"] == DATABASE
    assert shown["index"] == str(machine.forwarded.index)


# Its state, and its privileges


def test_it_has_one_cpu_and_512_mb(machine: Machine) -> None:
    assert machine.ssh("nproc") == "1\n"
    assert 400 < int(machine.ssh("grep MemTotal /proc/meminfo").split()[1]) / 1024 <= 512


def test_nothing_but_ssh_and_the_appliance_listens(machine: Machine) -> None:
    listening = [line.split() for line in machine.ssh("ss -Hltun").splitlines()]
    ports = {(fields[0], int(fields[4].rsplit(":", 1)[1])) for fields in listening}
    dhcp_client = ("udp", 68)
    assert ports - {dhcp_client} == {("tcp", 22), ("tcp", PORT)}


def test_systemd_analyze_accepts_the_unit(machine: Machine) -> None:
    assert machine.ssh("systemd-analyze verify fibcore.service 2>&1") == ""


def test_no_process_has_privileges_of_root(machine: Machine) -> None:
    pids = machine.pids()
    assert len(pids) == 6, "supervisord, four programs of it, and what follows their logs"
    uid = machine.ssh("id -u fibcore").strip()
    wanted = {f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}", "NoNewPrivs:\t1", "Seccomp:\t2"}
    wanted |= {f"Cap{kind}:\t{0:016x}" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    files = " ".join(f"/proc/{pid}/status" for pid in pids)
    found = machine.ssh(f"grep -hE '^(Uid|Cap...|NoNewPrivs|Seccomp):' {files}")
    assert set(found.splitlines()) == wanted


def test_the_unit_writes_only_its_private_database(machine: Machine) -> None:
    assert machine.ssh("stat -c '%U %a' /var/lib/fibcore") == "fibcore 700\n"
    writable = machine.ssh(
        f"sudo nsenter -m -t $(head -n 1 {CGROUP}/cgroup.procs) runuser -u fibcore --"
        " find / -path /proc -prune -o -type d -writable -print 2>/dev/null || true"
    )
    # The two temporary folders are private: PrivateTmp.
    database = {"/var/lib/fibcore", "/var/lib/fibcore/log"}
    assert set(writable.splitlines()) == database | {"/tmp", "/var/tmp"}


def test_the_boot_is_known_inside_the_sandbox(machine: Machine) -> None:
    """The high-water mark has it."""
    boot = machine.ssh("cat /proc/sys/kernel/random/boot_id").replace("-", "")
    mark = machine.ssh(f"sudo head -c 53 {DATABASE}.mark").split()
    assert boot.startswith(mark[2])


# Faults.


def test_after_a_kill_under_load_the_standby_serves(machine: Machine, figure: Figure) -> None:
    with loaded(machine.direct) as load:
        for _ in range(3):
            machine.ssh(f"sudo kill -9 {machine.server()}")
            load.wait_for_steps(STEPS, UP_SECONDS)
    assert load.refused == 0
    figure(f"kill -9: longest gap between two answers {load.longest_gap:.2f} s")


def test_a_server_that_hangs_under_load_is_replaced(machine: Machine, figure: Figure) -> None:
    with loaded(machine.direct) as load:
        machine.ssh(f"sudo kill -STOP {machine.server()}")
        load.wait_for_steps(STEPS, HANG_SECONDS)
    assert load.refused == 0
    figure(f"SIGSTOP: longest gap between two answers {load.longest_gap:.1f} s")


def test_a_new_version_takes_over_under_load(machine: Machine, figure: Figure) -> None:
    """No connection is refused."""
    before = machine.pids()
    (package,) = machine.project.glob("dist/*.deb")
    release(package, package, "9.8", "web/__init__.py")
    with loaded(machine.direct) as load:
        output = machine.shell("vagrant rsync && vagrant provision")
        load.wait_for_steps(STEPS, UP_SECONDS)
    assert "one process after the other" in output
    assert load.refused == 0
    after = machine.pids()
    assert after[0] == before[0], "supervisord itself has been restarted"
    assert len(set(after[1:]) & set(before)) == 1, "all but what follows the logs is new"
    figure(f"new version: longest gap between two answers {load.longest_gap:.1f} s")


def test_a_version_that_cannot_be_built_changes_nothing(machine: Machine) -> None:
    """The running version continues: there is no compiler, and no network to get one."""
    before = machine.pids()
    machine.ssh("touch /vagrant/web/__init__.py")
    with pytest.raises(AssertionError, match="Unable to locate package debhelper"):
        machine.ssh("sudo /vagrant/deploy/vagrant/provision.sh")
    assert machine.pids() == before
    assert machine.direct.get("/health").status == 200


def test_vagrant_reload_under_load_loses_no_acknowledged_step(machine: Machine) -> None:
    with loaded(machine.forwarded) as load:
        machine.shell("vagrant reload")
        load.wait_for_steps(STEPS, UP_SECONDS)


def test_a_power_cut_under_load_loses_no_acknowledged_step(machine: Machine) -> None:
    with loaded(machine.forwarded) as load:
        machine.power_off()
        # Not `up`, which would find the forwarded port in use by the tunnel to the VM before.
        machine.shell("vagrant reload")
        load.wait_for_steps(STEPS, UP_SECONDS)


# Memory.


def test_a_thousand_connections_fit_the_memory(machine: Machine, figure: Figure) -> None:
    idle = machine.memory()
    with ExitStack() as stack:
        for _ in range(1000):
            client = stack.enter_context(machine.direct.raw())
            client.sendall(b"GET /current HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        used = machine.memory()
    figure(f"memory of supervisord and all that it runs: {idle:.0f} MB idle")
    figure(f"memory with 1,000 connections: {used:.0f} MB")
    assert used < MEMORY_MB


def test_large_numbers_fit_the_memory(machine: Machine, figure: Figure) -> None:
    set_index = "sudo systemctl stop fibcore; sudo fibcore set-index 1000000"
    assert f"{DATABASE} is at index 1000000" in machine.ssh(set_index)
    machine.ssh("sudo systemctl start fibcore")
    machine.wait_until_healthy()
    with loaded(machine.direct) as load:
        load.wait_for_steps(STEPS, UP_SECONDS)
        used = machine.memory()
    figure(f"memory at n = 1,000,000: {used:.0f} MB")
    assert used < MEMORY_MB


# The end.


def test_uninstalling_leaves_database_and_settings(machine: Machine) -> None:
    index = machine.direct.index
    machine.ssh("cd /vagrant && make uninstall")
    assert machine.ssh("ls -d /usr/bin/fibcore /usr/lib/fibcore 2>/dev/null || true") == ""
    assert machine.ssh("ls /etc/fibcore/fibcore.conf")
    with pytest.raises(ConnectionRefusedError):
        machine.direct.get("/health")
    machine.shell("vagrant rsync && vagrant provision")
    machine.wait_until_healthy()
    assert machine.direct.index == index
