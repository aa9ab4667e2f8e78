"""The requests of a connection: endpoints of the table are answered here, with one write each.

``connection`` decides what a connection holds and when it is closed, ``parser`` when a request is
complete; ``asgi`` hands everything else to Starlette.
"""

import asyncio
import logging
import time
from typing import Final

from fibcore.events import event
from web.http import answers, asgi
from web.http.answers import Answer, Header
from web.http.connection import ANSWERING, ARRIVING, CLOSING, IDLE, NEW, SENDING, Connection
from web.http.heads import Head, MalformedError
from web.http.hub import MAX_PAGES
from web.http.kernel import Share
from web.http.parser import Parser, fields_of
from web.http.routing import ELSEWHERE

logger = logging.getLogger("fibcore")

CLOSE: Final[Header] = (b"connection", b"close")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Protocol(Connection):
    """For uvicorn's ``http=``, made by ``bound_to``."""

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        # Bound once, not for each request.
        self._reply_here = self._reply
        # Blocked as long as anything is unsent.
        transport.set_write_buffer_limits(high=0)
        self._share = Share(transport, self.hub.budget, self.hub.least_share)
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        if not self.hub.add(self):
            # Its request will be dropped: after a reset the client might not get the answer.
            self._dropping = True
            answer = answers.unavailable(
                "The server is at its limit of connections, and none of them is idle."
            )
            self._write_last(answer)
            self.hub.turn_away(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # A reference cycle with the connection.
        del self._reply_here

    def data_received(self, data: bytes) -> None:
        if self.phase is IDLE:
            hub = self.hub
            turns = hub.turns
            if not turns.left and not turns.has_time(self.loop):
                self._put_off(data)
                return
            turns.left -= 1
            head = hub.known.get(data)
            if head is None:
                if self._parser is None:
                    self._parser = Parser(hub.heads)
                try:
                    head = self._parser.request(data)
                except Exception as error:
                    self._reject(error)
                    return
                if head is None:
                    self._take(data)
                    return
            # What _answer does, without a call: nearly every request comes to this.
            self.phase = ANSWERING
            self._head = head
            respond = head.respond
            try:
                respond(hub.backend, head.request, self._reply_here)
            except Exception:
                self._fail(head)
        elif self.phase is ARRIVING:
            turns = self.hub.turns
            if not turns.left and not turns.has_time(self.loop):
                self._put_off(data)
                return
            turns.left -= 1
            self._take(data)
        elif self.phase is NEW:
            self.phase = IDLE
            self.data_received(data)
        elif self.phase is CLOSING:
            self._drop(len(data))
        else:
            self._keep(data)

    # Requests.

    def _take(self, data: bytes, *, unknown: bool = True) -> None:
        """Answer the requests in ``data`` one after the other, as far as possible now.

        Args:
            data: the bytes that have arrived.
            unknown: whether the first head is known not to be cached.
        """
        at = taken = 0
        self._taking = True
        known, fill = self.hub.known, self.hub.heads.fill
        turns = self.hub.turns
        at_once = turns.at_once
        while at < len(data):
            if self.phase is CLOSING:
                break
            if self.phase in (ANSWERING, SENDING):
                self._keep(data[at:])
                break
            if taken == at_once:
                self._put_off(data[at:])
                break
            taken += 1
            if self.phase is IDLE:
                if at or not unknown:
                    end = data.find(b"\r\n\r\n", at) + 4
                    piece = data[at:end]
                    head = known.get(piece) or fill(piece)
                    if head is not None:
                        at = end
                        self._answer(head)
                        continue
                self._begin()
            at = self._parse(data, at)
        self._taking = False
        turns.left = max(0, turns.left - taken)
        if self.phase is ARRIVING and self._parser is not None:
            self.hub.keep_part(self, self._parser.size)
        if not self._rest and self.phase in (IDLE, ARRIVING):
            if self._ended:
                self._close()
            else:
                self._resume_reading()

    def _begin(self) -> None:
        """Wait for the rest of a request whose first bytes have arrived."""
        self.phase = ARRIVING
        self.deadline = self.hub.receive_deadline
        if self._parser is None:
            self._parser = Parser(self.hub.heads)

    def _parse(self, data: bytes, at: int) -> int:
        """Parse up to the end of a request, answer it if complete, and return the position."""
        parser = self._parser
        assert parser is not None
        begun = parser.head is not None
        try:
            end = parser.feed(data, at)
        except Exception as error:
            self._reject(error)
            return len(data)
        head = parser.head
        if not parser.whole:
            if head is not None and head.awaits_continue and not begun:
                self.transport.write(CONTINUE)
            return end
        assert head is not None
        self.hub.let_part_go(self)
        raw, body = parser.raw, parser.body
        parser.begin()
        if head.endpoint is None:
            self._ask_starlette(head, fields_of(raw), bytes(body))
        else:
            self._answer(head)
        return end

    def _take_rest(self) -> None:
        turns = self.hub.turns
        if turns.left or turns.has_time(self.loop):
            rest = self._rest
            self._drop_rest()
            self._take(rest, unknown=False)
        else:
            self._wait_for_turn()

    # Answers.

    def _answer(self, head: Head) -> None:
        self.phase = ANSWERING
        self._head = head
        try:
            head.respond(self.hub.backend, head.request, self._reply)
        except Exception:
            self._fail(head)

    def _fail(self, head: Head) -> None:
        logger.exception("%s %r failed", head.method, head.target, extra=event("request failed"))
        self._last = True
        self._reply(answers.failed(steps=head.endpoint is not None and head.endpoint.steps))

    def _reply(self, answer: Answer) -> None:
        """Send the answer to the waiting request, if its client is still connected."""
        if self.phase is not ANSWERING:
            return
        hub = self.hub
        if self.server_state.default_headers is not hub.headers:
            hub.renew_lines(self.server_state.default_headers)
        head = self._head
        head.counts[answer.status] += 1
        if head.plain and not self._last:
            pieces = answer.render(hub.lines if head.version == "1.1" else hub.kept_lines)
            if len(pieces) == 1:
                self.transport.write(pieces[0])
            else:
                self.transport.writelines(pieces)
            if not self._more_to_do:
                self.phase = IDLE
                self.deadline = hub.idle_deadline
                return
        else:
            if not head.keep_alive:
                self._last = True
            lines = hub.kept_lines if head.version == "1.0" and not self._last else hub.lines
            more = (*head.more, CLOSE) if self._last else head.more
            pieces = answer.render_anew(lines, *more, body=head.method != "HEAD")
            self._write(pieces)
        if self._blocked:
            # The one long piece, if any.
            self._held = max(pieces, key=len)
            hub.budget.hold(self._held)
            self.phase = SENDING
        else:
            self._sent()

    def _write(self, pieces: tuple[bytes, ...]) -> None:
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)

    def _write_last(self, answer: Answer) -> None:
        """Send an answer without a request, then close the connection."""
        hub = self.hub
        hub.backend.answered[ELSEWHERE][answer.status] += 1
        hub.renew_lines(self.server_state.default_headers)
        self._write(answer.render_anew(hub.lines, CLOSE, body=True))
        self._close()

    def _sent(self) -> None:
        """Continue after an answer that has been sent."""
        if self._last or (self._ended and not self._rest and not self._taking):
            self._close()
            return
        self.phase = IDLE
        self.deadline = self.hub.idle_deadline
        if self._taking:
            return
        if self._rest:
            self._take_rest()
        else:
            self._resume_reading()
            self._more_to_do = False

    def _reject(self, error: Exception) -> None:
        """Answer 400 to bytes that are not a request, or 500 if parsing failed, and close."""
        if isinstance(error, MalformedError):
            logger.warning("A client sent an invalid request: %s.", error, extra=event("malformed"))
            answer = answers.bad_request(str(error))
        else:
            # Not raised: an answer to a step, which must not fail, may have led here.
            logger.error("Parsing failed", exc_info=error, extra=event("request failed"))
            answer = answers.failed(steps=False)
        self._dropping = True
        self._write_last(answer)

    # Starlette.

    def _ask_starlette(self, head: Head, fields: list[Header], body: bytes) -> None:
        self.phase = ANSWERING
        self._head = head
        if self.hub.pages >= MAX_PAGES:
            reason = "the server is at its limit of concurrent page requests"
            error = self.hub.backend.admission.overloaded("pages", reason)
            self._reply(answers.unavailable(f"{error}.".capitalize()))
            return
        self.hub.pages += 1
        task = self.loop.create_task(asgi.ask(self.config, head, fields, body))
        self.server_state.tasks.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self._starlette_answered)

    def _starlette_answered(self, task: asyncio.Task[Answer]) -> None:
        self.server_state.tasks.discard(task)
        self.hub.pages -= 1
        if task.cancelled():
            return
        try:
            answer = task.result()
        except Exception:
            self._fail(self._head)
        else:
            self._reply(answer)


class LoggedProtocol(Protocol):
    """The same with the access log of the ``hub``; ``Protocol`` pays nothing for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        assert self.hub.access is not None
        self._access = self.hub.access
        self._client = self._access.client_of(transport)
        self._began = time.perf_counter()
        """When the request's first byte arrived, or the previous request was answered."""
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.phase in (IDLE, NEW):
            self._began = time.perf_counter()
        super().data_received(data)

    def _reply(self, answer: Answer) -> None:
        if self.phase is ANSWERING:
            self._note(self._head, answer)
        super()._reply(answer)

    def _write_last(self, answer: Answer) -> None:
        self._note(None, answer)
        super()._write_last(answer)

    def _note(self, head: Head | None, answer: Answer) -> None:
        bare = head is not None and head.method == "HEAD"
        size = 0 if bare else sum(map(len, answer.body()))
        now = time.perf_counter()
        self._access.note(self._client, head, answer.status, size, now - self._began)
        self._began = now
