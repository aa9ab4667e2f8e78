"""The Fibonacci sequence, exact at any index, and its durable, group-committed stepping.

``Sequence`` is the core and stands alone; ``Client`` and ``AsyncClient`` get numbers from a server;
``fibcore.stores`` keeps an index on disk; ``fibcore.stepper`` steps what a store keeps.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from fibcore._sequence import MAX_EXACT_INDEX, MAX_INDEX, Sequence, Snapshot

if TYPE_CHECKING:
    from fibcore.client import Client
    from fibcore.client.asynchronous import AsyncClient

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


LATER: Final = {"AsyncClient": "fibcore.client.asynchronous", "Client": "fibcore.client"}
"""What takes time to import, and where it is."""


def __getattr__(name: str) -> Any:
    """Import a name of ``LATER``, or the version, at its first use."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("fibcore")
    elif name in LATER:
        found = getattr(import_module(LATER[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
