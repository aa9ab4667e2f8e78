"""The Fibonacci sequence, exact at any index, and its durable, group-committed stepping.

``Sequence`` is the core and stands alone; ``Client`` and ``AsyncClient`` get numbers from a server;
``fibcore.stores`` keeps an index on disk; ``fibcore.stepper`` steps what a store keeps.
"""

from typing import TYPE_CHECKING, Any

from fibcore._sequence import MAX_EXACT_INDEX, MAX_INDEX, Sequence, Snapshot

if TYPE_CHECKING:
    from fibcore.client import AsyncClient, Client

    __version__: str

__all__ = [
    "MAX_EXACT_INDEX",
    "MAX_INDEX",
    "AsyncClient",
    "Client",
    "Sequence",
    "Snapshot",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """What takes time to import, and what is rarely wanted: at its first use."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("fibcore")
    elif name in ("AsyncClient", "Client"):
        from fibcore import client

        found = getattr(client, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
