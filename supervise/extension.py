"""What runs inside supervisord: it keeps the listening socket open while servers end and start.

**What holds the socket can't end with what uses it.** supervisord closes the socket of an
``fcgi-program`` when the last of its processes ends, and binds the address again for the next one.
That fails with EADDRINUSE if any process still has the old socket open: a child that supervisord
has just forked is enough. The error ends supervisord, and the appliance with it. So a reference to
the socket is held here for as long as a process of its group runs or is to be started again.

supervisord loads this as an RPC interface, which is its own way to be extended; it has no methods.
An exception in here is logged, and never reaches supervisord's loop.
"""

import traceback
from collections.abc import Callable
from typing import Any, Final

from supervisor import events
from supervisor.states import ProcessStates

__all__ = ["Extension"]

ENDED: Final = (ProcessStates.STOPPED, ProcessStates.FATAL)
"""States in which supervisord leaves a process until a person starts it."""


class Extension:
    """Our part of ``supervisord``, from its start to its end or reload."""

    def __init__(self, supervisord: Any) -> None:
        self._log = supervisord.options.logger
        self._sockets: dict[str, object] = {}
        """A reference to the socket of each group that needs one."""
        self._is_stopping = False
        for event, callback in (
            (events.ProcessStateEvent, self._hold_or_release),
            (events.ProcessGroupRemovedEvent, self._release),
            (events.SupervisorStoppingEvent, self._release_all),
        ):
            events.subscribe(event, self._guarded(callback))

    def _guarded(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(event: object) -> None:
            try:
                callback(event)
            except Exception:
                self._log.critical(f"fibcore: {traceback.format_exc()}")

        return call

    def _hold_or_release(self, event: Any) -> None:
        group = event.process.group
        if self._is_stopping or not hasattr(group, "socket_manager"):
            return
        if all(map(_has_ended, group.processes.values())):
            # Clients of a stopped appliance are refused at once.
            self._sockets.pop(group.config.name, None)
        elif group.config.name not in self._sockets:
            # It is open: the process that this event is about has a reference.
            self._sockets[group.config.name] = group.socket_manager.get_socket()

    def _release(self, event: Any) -> None:
        self._sockets.pop(event.group, None)

    def _release_all(self, _: object) -> None:
        self._is_stopping = True
        self._sockets.clear()


def _has_ended(process: Any) -> bool:
    """Whether supervisord will not start it again."""
    if process.state == ProcessStates.EXITED:
        return process.exitstatus in process.config.exitcodes
    return process.state in ENDED
