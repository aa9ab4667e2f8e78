"""Real engines from Debian's packages, each in a temporary folder.

    with Postgresql() as engine:
        engine.url          # postgresql://fibcore@127.0.0.1:4711/fibcore
        engine.kill(); engine.start()

They listen on free ports of the loopback interface, unless ``host`` is set, and end with the
``with`` block. As root they run as their package's system user: PostgreSQL requires that.
"""

import abc
import contextlib
import itertools
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from tests.support import requires
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, states, until, until_ended


class Engine(abc.ABC):
    """A server; it runs from ``__enter__`` or ``start`` to ``__exit__``, ``kill`` or ``stop``."""

    user: str
    """The package's system user."""

    programs: Sequence[str]
    """Required programs; see ``requires.program``."""

    host = "127.0.0.1"
    """The address; may be changed before the start."""

    def __init__(self) -> None:
        for each in self.programs:
            requires.program(each)
        # Short, as the path of a socket has at most 107 bytes. Tests use memory, like their own
        # folders (tests/conftest.py): they cut no power. The benchmark uses the disk.
        root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
        self.folder = Path(tempfile.mkdtemp(prefix="fib-", dir=root))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)

    @property
    @abc.abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command that runs the server in the foreground."""

    @abc.abstractmethod
    def url_at(self, port: int) -> str:
        """Return ``FIB_STORE`` for the server at ``port``."""

    @property
    def url(self) -> str:
        """``FIB_STORE`` for the server."""
        return self.url_at(self.port)

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Return whether it answers."""

    def prepare(self) -> None:  # noqa: B027
        """Prepare the first start."""

    def run(
        self, program: str, *arguments: str | Path, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool of the engine as its user."""
        return subprocess.run(
            [requires.program(program), *arguments],
            user=self._user,
            cwd=self.folder,
            env=self._environment,
            text=True,
            capture_output=True,
            timeout=PATIENCE,
            check=check,
        )

    @property
    def _user(self) -> int | None:
        return pwd.getpwnam(self.user).pw_uid if os.geteuid() == 0 else None

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),
            "ETCDCTL_API": "3",
        }

    def __enter__(self) -> Self:
        try:
            self.prepare()
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        self.launch()
        return self.wait_until_it_is_ready()

    def launch(self) -> None:
        """Start it without waiting."""
        assert self.process is None
        program, *arguments = self.command
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [requires.program(str(program)), *arguments],
                user=self._user,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_until_it_is_ready(self) -> Self:
        """Wait until it answers."""
        until(self._has_started, f"{self.command[0]} is ready")
        return self

    def _has_started(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        return self.is_ready()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _processes(self) -> list[int]:
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for each in Path(f"/proc/{pid}/task").glob("*/children"):
                    found += map(int, each.read_text().split())
        return found

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Stop its processes meanwhile, as by SIGSTOP; the kernel still accepts connections."""
        self.signal_all(signal.SIGSTOP)
        # A running thread stops a little later.
        stopped = {"T", "Z", "X"}
        until(lambda: all(states(pid) <= stopped for pid in self._processes()), "all threads stop")
        try:
            yield
        finally:
            self.signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all of its processes at once, as a crash does. Idempotent."""
        if self.process is not None:
            # Stopped first, so that none starts another one meanwhile.
            self.signal_all(signal.SIGSTOP)
            pids = self._processes()
            self.signal_all(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None
            # Shared memory stays in use until the last child has ended.
            until_ended(*pids)

    def stop(self) -> None:
        """Shut it down cleanly and fast."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        self.process = None


class Postgresql(Engine):
    """One PostgreSQL server with a database ``fibcore``.

    Args:
        settings: additional configuration, such as ``fsync="off"``.
    """

    user = "postgres"
    programs: Sequence[str] = ("postgres", "initdb", "pg_isready", "psql")

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self.settings = settings

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> Sequence[str | Path]:
        settings = {
            "port": str(self.port),
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.folder),
            "shared_buffers": "16MB",
            # In its folder: in /dev/shm it would outlive a killed server.
            "dynamic_shared_memory_type": "mmap",
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return ["postgres", "-D", self.data, *options]

    def url_at(self, port: int) -> str:
        return f"postgresql://fibcore@{self.host}:{port}/postgres"

    def prepare(self) -> None:
        # No data needs to be durable yet.
        self.run(
            "initdb",
            *("--no-sync", "--auth=trust", "--username=fibcore", "--encoding=UTF8"),
            *("--locale=C", f"--pgdata={self.data}"),
        )
        # By default only the loopback interface is trusted.
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all,replication all samenet trust\n")

    def is_ready(self) -> bool:
        ready = ("-q", "-h", self.host, "-p", str(self.port))
        return self.run("pg_isready", *ready, check=False).returncode == 0

    def sql(self, statement: str) -> str:
        """Run a statement as the superuser; return what psql prints."""
        options = ("-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", self.url)
        return self.run("psql", *options, "-c", statement).stdout.strip()


class Standby(Postgresql):
    """A standby of ``primary``."""

    programs = (*Postgresql.programs, "pg_basebackup")

    def __init__(self, primary: Postgresql) -> None:
        super().__init__(cluster_name="standby")
        self._primary = primary

    def prepare(self) -> None:
        self.run(
            "pg_basebackup",
            *("--no-sync", "--write-recovery-conf", "--checkpoint=fast"),
            *(f"--pgdata={self.data}", f"--dbname={self._primary.url}"),
        )

    def is_waited_for(self) -> None:
        """Make it synchronous: each commit of the primary waits for it from now on."""
        self._primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self._primary.sql("SELECT pg_reload_conf()")
        states = "SELECT sync_state FROM pg_stat_replication"
        until(lambda: self._primary.sql(states) == "sync", "the standby is synchronous")

    def promote(self) -> None:
        self.sql("SELECT pg_promote()")


class Redis(Engine):
    """One Redis server with an append-only file, synced at each write.

    Args:
        settings: additional configuration, such as ``appendfsync="no"``.
    """

    user = "redis"
    programs: Sequence[str] = ("redis-server", "redis-cli")

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self.settings = settings

    @property
    def command(self) -> Sequence[str | Path]:
        settings = {
            "port": str(self.port),
            "bind": self.host,
            "protected-mode": "no",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            **{name.replace("_", "-"): value for name, value in self.settings.items()},
        }
        options = ((f"--{name}", value) for name, value in settings.items())
        return ["redis-server", *itertools.chain.from_iterable(options)]

    def url_at(self, port: int) -> str:
        return f"redis://{self.host}:{port}"

    def is_ready(self) -> bool:
        return self.cli("ping") == "PONG"

    def cli(self, *command: str) -> str:
        """Run a command; return what redis-cli prints."""
        return self.run(
            "redis-cli", "-h", self.host, "-p", str(self.port), *command, check=False
        ).stdout.strip()


class Etcd(Engine):
    """One etcd server, a single-member cluster unless ``settings`` name others.

    Args:
        name: its member name.
        settings: additional flags, such as ``initial_cluster="…"``.
    """

    user = "etcd"
    programs: Sequence[str] = ("etcd", "etcdctl")

    def __init__(self, name: str = "alone", **settings: str) -> None:
        super().__init__()
        self.name = name
        self.peer_port = free_port()
        self.settings = settings

    @property
    def peer_url(self) -> str:
        """Its URL for other members."""
        return f"http://{self.host}:{self.peer_port}"

    @property
    def command(self) -> Sequence[str | Path]:
        client_url = f"http://{self.host}:{self.port}"
        settings = {
            "name": self.name,
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": f"{self.name}={self.peer_url}",
            "auto-compaction-mode": "revision",
            "auto-compaction-retention": "1000",
            "log-level": "warn",
            **{name.replace("_", "-"): value for name, value in self.settings.items()},
        }
        return ["etcd", *(f"--{name}={value}" for name, value in settings.items())]

    def url_at(self, port: int) -> str:
        return f"etcd://{self.host}:{port}"

    def is_ready(self) -> bool:
        return self.ctl("endpoint", "health", check=False).returncode == 0

    def leads(self) -> bool:
        """Whether it considers itself the leader."""
        output = self.ctl("endpoint", "status", "-w", "json", check=False).stdout
        found = json.loads(output or "[]")
        if not found:
            return False
        status = found[0]["Status"]
        # Without a leader the JSON lacks this field.
        return bool(status.get("leader") == status["header"]["member_id"])

    def ctl(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run etcdctl."""
        endpoint = f"--endpoints=http://{self.host}:{self.port}"
        # A readiness check is repeated anyway.
        timeout = f"--command-timeout={PATIENCE if check else 2:g}s"
        return self.run("etcdctl", endpoint, timeout, *command, check=check)


class EtcdCluster:
    """An etcd cluster; it runs from ``__enter__`` to ``__exit__``.

    Args:
        hosts: the addresses, one per member.
    """

    def __init__(self, *hosts: str) -> None:
        self.members = [Etcd(f"member-{number}") for number in range(len(hosts))]
        for each, host in zip(self.members, hosts, strict=True):
            each.host = host
        cluster = ",".join(f"{each.name}={each.peer_url}" for each in self.members)
        for each in self.members:
            each.settings["initial_cluster"] = cluster

    @property
    def url(self) -> str:
        """``FIB_STORE`` for the server."""
        return "etcd://" + ",".join(f"{each.host}:{each.port}" for each in self.members)

    def __enter__(self) -> Self:
        try:
            for each in self.members:
                self.launch(each)
            for each in self.members:
                each.wait_until_it_is_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.members:
            each.__exit__()

    def launch(self, member: Etcd) -> None:
        """Start one member without waiting."""
        member.launch()

    def leader(self) -> Etcd:
        """Wait for a leader and return it."""
        found: list[Etcd] = []

        def is_known() -> bool:
            found[:] = (each for each in self.members if each.process and each.leads())
            return len(found) == 1

        until(is_known, "a member leads")
        return found[0]


ENGINES: Final[tuple[type[Engine], ...]] = (Postgresql, Redis, Etcd)
