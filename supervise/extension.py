"""The extension of supervisord: it holds the listening socket, and watches the watchdog.

**The holder of the socket must outlive its users.** supervisord closes the socket of an
``fcgi-program`` when the last of its processes ends, and binds the address again for the next one.
That fails with EADDRINUSE if any process still has the old socket open, such as a child that
supervisord has just forked. The error ends supervisord, and the appliance with it. So this module
holds a reference to the socket as long as a process of its group runs or is to be restarted.

**The watcher is watched.** The watchdog kills every other process that hangs; if it hangs itself or
is stopped, this module kills it within some ten seconds, and supervisord restarts it.

supervisord loads this as an RPC interface, its documented extension point; it has no methods. An
exception in here is logged, and never reaches supervisord's loop.
"""

import os
import re
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from supervisor import events
from supervisor.states import ProcessStates

from supervise.liveness import Watch

WATCHDOG: Final = "watchdog"
"""The name of its group."""

ENDED: Final = (ProcessStates.STOPPED, ProcessStates.FATAL)
"""States that a process leaves only when a person starts it."""


class Extension:
    """Our part of ``supervisord``, from its start to its exit or reload."""

    def __init__(self, supervisord: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._supervisord = supervisord
        self._log = supervisord.options.logger
        self._processes = Watch(clock)
        self._sockets: dict[str, object] = {}
        """A reference to the socket of each group that needs one."""
        self._is_stopping = False
        for event, callback in (
            (events.ProcessStateEvent, self._hold_or_release),
            (events.ProcessGroupRemovedEvent, self._release),
            (events.SupervisorStoppingEvent, self._release_all),
            (events.Tick5Event, self._watch),
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
            # It is open: the process of this event has a reference.
            self._sockets[group.config.name] = group.socket_manager.get_socket()
            _notify_ready()

    def _release(self, event: Any) -> None:
        self._sockets.pop(event.group, None)

    def _release_all(self, _: object) -> None:
        self._is_stopping = True
        self._sockets.clear()

    def _watch(self, _: object) -> None:
        group = self._supervisord.process_groups.get(WATCHDOG)
        # supervisord has not reaped these yet, so their ids can't have been reused.
        pids = [each.pid for each in group.processes.values()] if group else []
        for pid, liveness, _ in self._processes.poll(filter(None, pids)):
            if liveness.reason:
                self._log.critical(
                    f"fibcore: the watchdog (pid {pid}) {liveness.reason} and is killed. "
                    f"Another replaces it; the server is not affected."
                )
                os.kill(pid, signal.SIGKILL)


def _notify_ready() -> None:
    """Notify systemd that clients can connect, per sd_notify(3), if it started this process."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", re.sub("^@", "\0", path))


def _has_ended(process: Any) -> bool:
    """Whether supervisord will not restart it."""
    if process.state == ProcessStates.EXITED:
        return process.exitstatus in process.config.exitcodes
    return process.state in ENDED
