"""What Redis or Valkey may lose with its settings, and the waits that prevent it."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from fibcore.stores import DurabilityWarning, Risk
from fibcore.stores.redis_connection import Command, pairs

SETTINGS: Final = ("append*", "no-appendfsync*", "maxmemory*", "min-replicas-to-write")

QUESTIONS: Final[tuple[Command, ...]] = (
    ("INFO", "server"),
    ("INFO", "replication"),
    *(("CONFIG", "GET", each) for each in SETTINGS),
)
"""Sent together; ``judge`` takes the replies."""

WAIT_MILLISECONDS: Final = 2_000
"""Time limit for the server's wait for its disk and its replicas."""

WAITAOF: Final = (7, 2)
"""The first version with ``WAITAOF``."""

LOOSE: Final = {"everysec": Risk.SECONDS, "no": Risk.POWER_CUT}


class Durability(NamedTuple):
    """The result of ``judge``."""

    warnings: tuple[DurabilityWarning, ...]
    confirmations: tuple[Command, ...] = ()
    """Commands that wait until the connection's earlier writes are durable."""


def judge(replies: Sequence[Any]) -> Durability:
    """Evaluate the replies to ``QUESTIONS``, some of which may be ``ResponseError``."""
    if any(isinstance(each, ResponseError) for each in replies):
        return Durability((DurabilityWarning("CONFIG and INFO are not allowed", Risk.UNKNOWN),))
    server, replication, *settings = replies
    config: dict[str, str] = {}
    for each in settings:
        config |= pairs(each)
    found: list[DurabilityWarning] = []
    confirmations: tuple[Command, ...] = ()
    wanted = int(config.get("min-replicas-to-write", 0))
    fsync = config.get("appendfsync", "")
    # Valkey reports the Redis version that it is compatible with.
    version = tuple(map(int, _info(server)["redis_version"].split(".")[:2]))
    if config.get("appendonly") != "yes":
        found.append(DurabilityWarning("appendonly=no", Risk.RESTART))
    elif fsync == "everysec" and version >= WAITAOF:
        confirmations = (("WAITAOF", 1, wanted, WAIT_MILLISECONDS),)
    elif fsync != "always":
        found.append(DurabilityWarning(f"appendfsync={fsync}", LOOSE.get(fsync, Risk.UNKNOWN)))
    elif config.get("no-appendfsync-on-rewrite") == "yes":
        found.append(DurabilityWarning("no-appendfsync-on-rewrite=yes", Risk.POWER_CUT))
    if wanted and not confirmations:
        confirmations = (("WAIT", wanted, WAIT_MILLISECONDS),)
    replicas = int(_info(replication)["connected_slaves"])
    if replicas:
        found.append(DurabilityWarning(f"{replicas} replicas", Risk.FAILOVER))
    policy = config.get("maxmemory-policy", "")
    if policy.startswith("allkeys-") and config.get("maxmemory") != "0":
        found.append(DurabilityWarning(f"maxmemory-policy={policy}", Risk.EVICTION))
    return Durability(tuple(found), confirmations)


def _info(text: bytes) -> dict[str, str]:
    lines = (each.partition(":") for each in text.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
