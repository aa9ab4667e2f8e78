"""The engine of a run: a cluster of servers with one sequence, and its faults."""

import random
import uuid
from functools import partial
from typing import Any, Final, Protocol

from fibcore.stores.engine import EngineOpener
from fibcore.stores.etcd import EtcdOpener
from fibcore.stores.postgresql import PostgresqlOpener
from fibcore.stores.redis import RedisOpener
from tests.simulation.engine import EngineServer, LinkFaults
from tests.simulation.etcd import Etcd
from tests.simulation.network import Network
from tests.simulation.plan import Fault, set_during
from tests.simulation.postgresql import (
    CREATED,
    DROPPED,
    INDEX,
    TABLES,
    Postgresql,
    State,
    is_key_row,
    is_record,
)
from tests.simulation.process import Process
from tests.simulation.redis import Redis

INDEX_KEY: Final = "fibcore/default/index"
DROPPED_KEY: Final = "fibcore/default//dropped"
KEYS: Final = "fibcore/default//keys/"
RECORDS: Final = "fibcore/default//node/"


class Cluster:
    """An engine with one sequence."""

    servers: dict[str, EngineServer]
    faults: tuple[str, ...] = ()
    """Names of methods that take a random generator and return a ``Fault``."""

    def __init__(self) -> None:
        self.link_faults = LinkFaults()

    def new_opener(self) -> EngineOpener:
        """Create an opener with the addresses that a node is configured with."""
        raise NotImplementedError

    def opener(self, process: Process, max_keys: int) -> EngineOpener:
        """Create the opener of a node in ``process``, on simulated time."""
        random = process.world.random
        opener = self.new_opener()
        opener.max_keys = max_keys
        opener.draw = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
        opener.sleep, opener.clock = process.sleep, process.monotonic
        return opener

    def index(self) -> int:
        """Return the current index."""
        raise NotImplementedError

    def raise_index(self, index: int) -> None:
        """Set a higher index, as an operator; drops all keys."""
        raise NotImplementedError

    def remove_records(self) -> None:
        """Remove all records, as an operator."""
        raise NotImplementedError

    def restore(self) -> None:
        """Start and resume all servers, and heal all links."""
        hosts = self.hosts()
        for each in self.servers.values():
            each.start()
            each.resume()
            for other in hosts:
                each.network.heal(each.name, other)

    def hosts(self) -> list[str]:
        """Return the hosts of its servers."""
        return sorted(self.servers)


def isolate_successor(old: EngineServer, new: EngineServer, chance: random.Random) -> float:
    """Usually cut replication to the successor; return the seconds until it takes over."""
    seconds = chance.choice((1.0, 6.0)) * chance.random()
    if chance.random() < 0.7:
        old.network.cut(old.name, new.name)
        old.world.after(seconds + 2 * chance.random(), None, old.network.heal, old.name, new.name)
    return seconds


class EtcdCluster(Cluster):
    """Three members of etcd."""

    def __init__(
        self,
        network: Network,
        chance: random.Random,
        variant: str,  # noqa: ARG002
        *,
        predates_keys: bool,
    ) -> None:
        super().__init__()
        self.faults = ("election", "no_permission", "no_space")
        self.etcd = Etcd(network, self.link_faults)
        self.servers = {each.name: each for each in self.etcd.members}
        self._hosts = self.hosts()
        chance.shuffle(self._hosts)
        self.etcd.put(INDEX_KEY, "0")
        if not predates_keys:
            self.etcd.put(DROPPED_KEY, "0")

    def new_opener(self) -> EngineOpener:
        return EtcdOpener(f"etcd://{','.join(self._hosts)}", "default")

    def index(self) -> int:
        return int(self.etcd.text(INDEX_KEY) or 0)

    def raise_index(self, index: int) -> None:
        self.etcd.put(INDEX_KEY, str(index))
        self.etcd.put(DROPPED_KEY, str(index))
        self.etcd.remove(KEYS)

    def remove_records(self) -> None:
        self.etcd.remove(RECORDS)

    def election(self, chance: random.Random) -> Fault:
        """The cluster has no leader for a while."""
        world, seconds = self.etcd.world, 3 * chance.random()

        def begin() -> None:
            self.etcd.leaderless_until = world.now + seconds

        return begin, lambda: None

    def no_permission(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """The user's permissions are revoked, then granted again."""
        return set_during(self.etcd, "allowed", False, True)

    def no_space(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """The quota is exhausted for a while."""
        return partial(self._fill, True), partial(self._fill, False)

    def _fill(self, full: bool) -> None:
        self.etcd.is_full = self.etcd.overflows = full


class RedisCluster(Cluster):
    """One Redis, alone or with a replica."""

    def __init__(
        self,
        network: Network,
        chance: random.Random,  # noqa: ARG002
        variant: str,
        *,
        predates_keys: bool,
    ) -> None:
        super().__init__()
        self.variant = variant
        settings = {
            "appendonly": "yes",
            "appendfsync": "everysec" if self.variant == "everysec" else "always",
            "no-appendfsync-on-rewrite": "no",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "min-replicas-to-write": "1" if self.variant == "replicated" else "0",
        }
        version = "7.2.0" if self.variant == "everysec" else "7.0.0"
        self.primary = Redis(network, "redis0", self.link_faults, settings, version)
        self.servers = {"redis0": self.primary, "redis": self.primary}
        self.primary.hash = {b"index": b"0", **({} if predates_keys else {b"dropped": b"0"})}
        self.primary.synced = dict(self.primary.hash)
        if self.variant in ("replicated", "handover"):
            replica = Redis(network, "redis1", self.link_faults, settings, version)
            self.servers["redis1"] = replica
            replica.demote(self.primary)
        self.faults = (
            "no_permission",
            "no_permission_for_keys",
            "no_permission_for_time",
            "power_cut",
        )
        if self.variant == "handover":
            self.faults = ("no_permission", "no_permission_for_keys", "handover", "handover")
        if self.variant == "replicated":
            self.faults += ("failover",)

    def new_opener(self) -> EngineOpener:
        return RedisOpener("redis://redis/0", "default")

    def hosts(self) -> list[str]:
        return sorted({each.name for each in self.servers.values()})

    def index(self) -> int:
        return int(self.primary.hash[b"index"])

    def raise_index(self, index: int) -> None:
        hash_ = self._fields_without(b"key:", b"slot:", b"keys")
        raised = b"%d" % max(index, int(hash_[b"index"]))
        self.primary.do_by_hand({**hash_, b"index": raised, b"dropped": raised})

    def remove_records(self) -> None:
        self.primary.do_by_hand(self._fields_without(b"node:"))

    def _fields_without(self, *prefixes: bytes) -> dict[bytes, bytes]:
        found = self.primary.hash.items()
        return {name: value for name, value in found if not name.startswith(prefixes)}

    def _deny(self, *commands: bytes) -> Fault:
        def begin() -> None:
            self.primary.denied = set(commands)

        def end() -> None:
            for each in self.servers.values():
                assert isinstance(each, Redis)
                each.denied = set()

        return begin, end

    def no_permission(self, chance: random.Random) -> Fault:
        """Permissions for some commands are revoked, then granted again."""
        commands = (b"HSET", b"HDEL", b"EVALSHA", b"HGET", b"ROLE", b"SCRIPT")
        return self._deny(*chance.sample(commands, chance.randint(1, 3)))

    def no_permission_for_keys(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """Only the command that drops keys is denied."""
        return self._deny(b"HDEL")

    def no_permission_for_time(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """Only the command that reads the clock is denied."""
        return self._deny(b"TIME")

    def power_cut(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """The primary's machine loses power, and with it all unsynced data."""
        killed: list[Redis] = []

        def begin() -> None:
            killed.append(self.primary)
            if self.variant == "replicated":
                # Its synced data is what its replica also has.
                self.primary.kill()
            else:
                self.primary.lose_power()

        return begin, lambda: killed[0].start()

    def handover(self, chance: random.Random) -> Fault:
        """An operator promotes the replica; clients of the old primary stay connected."""

        def begin() -> None:
            old = self.primary
            new = next(iter(old.replicas), None)
            if new is None or not (old.is_up and new.is_up) or new.offset < old.offset:
                return
            new.promote()
            old.demote(new)
            self.primary = new
            self.servers["redis"] = new
            if chance.random() < 0.7:
                # The old primary lags behind for a while, and still answers its clients.
                network = old.network
                network.cut(new.name, old.name)
                old.world.after(2 * chance.random(), None, network.heal, new.name, old.name)

        return begin, self.restore

    def failover(self, chance: random.Random) -> Fault:
        """The replica takes over; later the old primary becomes its replica."""
        world = self.primary.world
        is_over: list[bool] = []

        def begin() -> None:
            old = self.primary
            new = next(iter(old.replicas), None)
            if new is not None:
                world.after(isolate_successor(old, new, chance), None, take_over, old, new)

        def take_over(old: Redis, new: Redis) -> None:
            if is_over or self.primary is not old or not new.is_up:
                return
            if chance.random() < 0.5:
                old.kill()
            old.replicas.clear()
            new.promote()
            self.primary = new
            self.servers["redis"] = new

        def end() -> None:
            is_over.append(True)
            self.restore()

        return begin, end

    def restore(self) -> None:
        super().restore()
        for each in self.servers.values():
            assert isinstance(each, Redis)
            if each is not self.primary and each not in self.primary.replicas:
                each.demote(self.primary)


class PostgresqlCluster(Cluster):
    """One PostgreSQL, alone or with a synchronous standby."""

    def __init__(
        self, network: Network, chance: random.Random, variant: str, *, predates_keys: bool
    ) -> None:
        super().__init__()
        self.primary = Postgresql(
            network, "pg0", self.link_faults, {INDEX: 0} if predates_keys else CREATED
        )
        self.servers = {"pg0": self.primary}
        self.faults = ("no_permission", "no_permission_for_keys", "table_renamed")
        self.standby_is_missing = variant == "standby attached later"
        """Whether the standby is still to be attached."""
        if variant != "alone":
            standby = Postgresql(network, "pg1", self.link_faults, self.primary.base)
            self.servers["pg1"] = standby
            if self.standby_is_missing:
                self.faults += ("standby_attached",)
                standby.is_up = standby.exists = False
            else:
                standby.demote(self.primary)
            self.faults += ("failover", "failover_after_cancel", "failover_after_crash")
        self._hosts = self.hosts()
        chance.shuffle(self._hosts)

    def new_opener(self) -> EngineOpener:
        # Each process tries the hosts in another order.
        self._hosts.append(self._hosts.pop(0))
        return PostgresqlOpener(f"postgresql://{','.join(self._hosts)}/fib", "default")

    def _all_servers(self) -> list[Postgresql]:
        return [each for each in self.servers.values() if isinstance(each, Postgresql)]

    def index(self) -> int:
        return int(self.primary.visible[INDEX])

    def raise_index(self, index: int) -> None:
        def raised(state: State) -> dict[str, Any]:
            higher = max(index, state[INDEX])
            dropped = {DROPPED: higher} if TABLES in state else {}
            return {INDEX: higher, **dropped, **dict.fromkeys(filter(is_key_row, state))}

        self.primary.do_by_hand((INDEX,), raised)

    def remove_records(self) -> None:
        keys = tuple(filter(is_record, self.primary.visible))
        self.primary.do_by_hand(
            keys, lambda state: dict.fromkeys(key for key in keys if key in state)
        )

    def no_permission(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """The user's permissions are revoked, then granted again."""
        return self._toggle("denied")

    def no_permission_for_keys(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """Only permissions for the table of keys are revoked."""
        return self._toggle("denied_keys")

    def table_renamed(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """A table is renamed, then renamed back."""
        return self._toggle("table_renamed")

    def _toggle(self, name: str) -> Fault:
        def set_all(value: bool) -> None:
            for each in self._all_servers():
                setattr(each, name, value)

        return partial(set_all, True), partial(set_all, False)

    def failover_after_cancel(self, chance: random.Random) -> Fault:
        """Before the failover, an operator cancels commits that wait for the standby."""
        return self.failover(chance, "cancel")

    def failover_after_crash(self, chance: random.Random) -> Fault:
        """Before the failover, the primary crashes and restarts."""
        return self.failover(chance, "crash")

    def failover(self, chance: random.Random, before: str = "") -> Fault:
        """The standby takes over; later the old primary becomes its standby."""
        world = self.primary.world
        is_over: list[bool] = []

        def begin() -> None:
            old, new = self.primary, self.primary.standby
            if new is None:
                return
            seconds = isolate_successor(old, new, chance)
            match before or chance.choice(("cancel", "crash", "nothing", "nothing")):
                case "cancel":
                    for share in (0.3, 0.5, 0.7, 0.9):
                        world.after(share * seconds, None, old.cancel_waits)
                case "crash":
                    world.after(seconds * 0.2, None, old.kill)
                    world.after(seconds * 0.25, None, old.start)
            world.after(seconds, None, take_over, old, new)

        def take_over(old: Postgresql, new: Postgresql) -> None:
            if is_over or self.primary is not old or not new.is_up or not new.in_recovery:
                return
            if chance.random() < 0.5:
                old.kill()
            new.promote()
            self.primary = new

        def end() -> None:
            is_over.append(True)
            self.restore()

        return begin, end

    def standby_attached(self, chance: random.Random) -> Fault:  # noqa: ARG002
        """A synchronous standby is attached while nodes are connected."""

        def begin() -> None:
            if self.standby_is_missing:
                self.standby_is_missing = False
                self.servers["pg1"].exists = True
                self.restore()

        return begin, lambda: None

    def restore(self) -> None:
        super().restore()
        if self.standby_is_missing:
            return
        for each in self._all_servers():
            if each is not self.primary and self.primary.standby is not each:
                each.demote(self.primary)


class ClusterFactory(Protocol):
    """Creates a cluster; see ``plan.Plan`` for the last two arguments."""

    def __call__(
        self, network: Network, chance: random.Random, variant: str, *, predates_keys: bool
    ) -> Cluster: ...


CLUSTERS: Final[dict[str, ClusterFactory]] = {
    "etcd": EtcdCluster,
    "postgresql": PostgresqlCluster,
    "redis": RedisCluster,
}
