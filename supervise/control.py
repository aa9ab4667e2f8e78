"""The supervisord of a folder: its process id, and its XML-RPC methods."""

import contextlib
import socket
import struct
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from supervisor.xmlrpc import SupervisorTransport

from fibcore.appliance.servers import servers_of
from supervise.liveness import fields_of

CONTROL: Final = Path("var", "supervisor.sock")
PEER: Final = struct.Struct("3i")
"""SO_PEERCRED, per unix(7): a process, its user and its group."""


def supervisord_of(folder: Path) -> int | None:
    """The process id of the supervisord that runs in ``folder``; None if none does.

    If its socket has been removed, it is found as the parent of a server.
    """
    with socket.socket(socket.AF_UNIX) as control, contextlib.suppress(OSError):
        control.connect(str(folder / CONTROL))
        peer = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        return int(PEER.unpack(peer)[0])
    for server in servers_of(folder):
        fields = fields_of(Path(f"/proc/{server.pid}/stat"))
        if fields and "SUPERVISOR_ENABLED" in server.environment:
            return int(fields[1])
    return None


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[Any]:
    """The XML-RPC methods of the supervisord of ``folder``: https://supervisord.org/api.html.

    Raises:
        OSError: it is unreachable.
        xmlrpc.client.Error: it refuses a call.
    """
    transport = SupervisorTransport(serverurl=f"unix://{folder / CONTROL}")
    with xmlrpc.client.ServerProxy("http://127.0.0.1", transport) as proxy:
        yield proxy.supervisor
