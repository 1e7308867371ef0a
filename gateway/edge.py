"""The client's side of the gateway: an HTTP/1.1 protocol class for uvicorn
(`uvicorn.Config(http=edge_class(worker))`).

Parses, bounds and times every request; an Exchange follows the rules with it. Responses leave in the order of
the requests. Nothing is ever read faster than it can be passed on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, cast

import httptools
import structlog

from foundation import problems, request_id

from .conf import conf
from .errors import BadRequest
from .exchange import Exchange, answer, problem

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from .worker import Worker

log = structlog.get_logger(__name__)


class _Full(Exception):
    """More pipelined requests than we keep: the ones we have are answered, then the connection closes."""


def edge_class(worker: Worker) -> type[Edge]:
    """uvicorn makes the protocols itself, so what they share hangs on their class."""
    return type("WorkerEdge", (Edge,), {"worker": worker})


class Edge(asyncio.Protocol):
    """One client connection. `exchange` is being answered, `reading` is being read, `waiting` are read and
    wait.

    held: reading is paused. stalled: the client does not read. deaf: what still arrives is thrown away.
    """

    worker: ClassVar[Worker]

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        self.server_state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.exchange: Exchange | None = None
        self.reading: Exchange | None = None
        self.waiting: deque[Exchange] = deque()
        self.held = self.stalled = self.deaf = self.lingering = self.draining = self._advancing = False
        self.fault: BadRequest | None = None  # answered when everything before it has been
        self.head_started = 0.0  # monotonic; 0.0: no head is being read
        self.deadline = 0.0
        self._body_bytes = 0  # of all requests
        self._begin_head()

    def _begin_head(self) -> None:
        self._url, self._headers, self._head_bytes = b"", list[tuple[bytes, bytes]](), 0

    # --- asyncio and uvicorn ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client_ip = str(peer[0]) if isinstance(peer, tuple) else "unknown"
        self.scheme = b"https" if transport.get_extra_info("sslcontext") else b"http"
        if len(self.server_state.connections) >= conf().MAX_CONNECTIONS:
            self.fail(BadRequest("Too many connections.", 503))
            return
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.worker.connections.add(self)
        self.arm()

    def connection_lost(self, error: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self.worker.connections.discard(self)
        self.waiting.clear()
        if self.exchange is not None:
            self.exchange.abort()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        if self.exchange is None and not self.head_started:
            self.head_started = time.monotonic()  # also for bytes that the parser skips
        try:
            before = self._body_bytes
            self.parser.feed_data(data)
            self._bound_overhead(len(data), has_progress=self._body_bytes != before)
        except httptools.HttpParserUpgrade:
            self.deaf = True  # passed on without the upgrade, and nothing after it on this connection
            last = self.waiting[-1] if self.waiting else self.exchange
            if last is not None:
                last.keep = False
        except httptools.HttpParserError as error:
            self._refuse_input(error.__context__)
        except BadRequest as error:
            self.fail(error)
        self.arm()

    def _bound_overhead(self, size_bytes: int, *, has_progress: bool) -> None:
        """The parser collects an unfinished header or trailer by itself: bound what it holds."""
        if self.reading is not None:
            self._head_bytes = (
                0 if has_progress or not self.reading.chunked else self._head_bytes + size_bytes
            )
        elif self._url or self._head_bytes:
            self._head_bytes += size_bytes
        if self._head_bytes > conf().MAX_HEADER_BYTES + conf().MAX_URL_BYTES:
            raise BadRequest("The headers are too large.", 431)

    def pause_writing(self) -> None:
        self.stalled = True
        self.deadline = time.monotonic() + conf().WRITE_TIMEOUT_S
        if self.exchange is not None and self.exchange.up is not None:
            self.exchange.up.pause_reading()

    def resume_writing(self) -> None:
        self.stalled = False
        if self.exchange is not None and self.exchange.up is not None:
            self.exchange.up.resume_reading()
        self.arm()

    def hold(self) -> None:
        if not self.held and not self.transport.is_closing():
            self.held = True
            self.transport.pause_reading()

    def release(self) -> None:
        if self.held and not self.waiting and not self.transport.is_closing():
            self.held = False
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """The edge stops: answer what is being answered, then close."""
        self.draining = True
        self.waiting.clear()
        if self.exchange is not None:
            self.exchange.keep = False
        elif not self.head_started:
            self.transport.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.server_state.tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self.server_state.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("exchange_failed", exc_info=task.exception())
            self.fail(BadRequest("The gateway failed.", 500), instead_of=self.exchange)

    # --- time ---

    def arm(self) -> None:
        """Set the deadline of whoever is waited for now. A stalled client's stands until it reads again."""
        if self.stalled or self.lingering:
            return
        now, exchange = time.monotonic(), self.exchange
        if exchange is None:
            started = self.head_started
            self.deadline = started + conf().HEADER_TIMEOUT_S if started else now + conf().IDLE_TIMEOUT_S
        elif exchange.sent or (self.held and not exchange.over):
            self.deadline = now + exchange.timeout_s
        else:
            self.deadline = now + conf().BODY_TIMEOUT_S

    def expire(self) -> None:
        """Called by the worker once the deadline has passed."""
        exchange = self.exchange
        if self.lingering or self.stalled or self.transport.is_closing():
            self.transport.abort()
        elif exchange is None:
            if self.head_started:
                self.fail(BadRequest("The request's headers did not arrive in time.", 408))
            else:
                self.transport.close()
        elif exchange.over:
            self.transport.close()
        elif exchange.sent or self.held:
            exchange.timed_out()
        else:
            self.fail(BadRequest("The request's body did not arrive in time.", 408))

    # --- httptools ---

    def on_message_begin(self) -> None:
        if self.draining or len(self.waiting) >= conf().MAX_PIPELINED:
            raise _Full
        self.head_started = time.monotonic()

    def on_url(self, part: bytes) -> None:
        self._url += part
        if len(self._url) > conf().MAX_URL_BYTES:
            raise BadRequest(f"The request target is longer than {conf().MAX_URL_BYTES} bytes.", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading is not None:
            return  # a trailer: not passed on
        self._head_bytes += len(name) + len(value) + 4
        self._headers.append((name, value))
        limits = conf()
        if self._head_bytes > limits.MAX_HEADER_BYTES or len(self._headers) > limits.MAX_HEADERS:
            raise BadRequest("The headers are too large or too many.", 431)

    def on_headers_complete(self) -> None:
        parser = self.parser
        exchange = self.reading = Exchange(
            self, parser.get_method().decode("latin-1"), parser.get_http_version(),
            parser.should_keep_alive(), self._url, self._headers,
        )  # fmt: skip
        self.head_started = 0.0
        self._begin_head()
        if self.exchange is None:
            self.exchange = exchange
            exchange.start()
        else:
            self.waiting.append(exchange)
            self.hold()

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self.reading is not None:
            self.reading.body(data)

    def on_message_complete(self) -> None:
        reading, self.reading, self._head_bytes = self.reading, None, 0
        if reading is not None:
            reading.end()

    # --- the line of requests ---

    def next(self) -> None:
        """Called when an exchange got its answer or its end: go on with the first one that needs work."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while (done := self.exchange) is not None and done.over:
                if not done.keep or self.draining:
                    self._farewell(read_to_the_end=done.sent and not self.fault)
                    return
                if not done.sent:
                    return  # its body is still coming; end() calls again
                self.exchange = self.waiting.popleft() if self.waiting else None
                if self.exchange is not None:
                    self.exchange.start()
        finally:
            self._advancing = False
        if self.exchange is None and self.fault is not None:
            self._say_fault()
        else:
            self.release()
            self.arm()

    def _farewell(self, *, read_to_the_end: bool) -> None:
        self.deaf = self.lingering = True
        self.waiting.clear()
        self.deadline = time.monotonic() + conf().WRITE_TIMEOUT_S  # for the answer to leave
        if read_to_the_end or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        # Closing with unread input would reset the connection, answer and all.
        self.transport.write_eof()
        self.release()
        self.deadline = time.monotonic() + conf().LINGER_S

    # --- input that cannot be answered as asked ---

    def _refuse_input(self, cause: BaseException | None) -> None:
        last = self.waiting[-1] if self.waiting else self.exchange
        if isinstance(cause, _Full):
            self.deaf = True
            if last is not None:
                last.keep = False
            elif self.exchange is None:
                self.transport.close()
        elif last is not None and not last.keep and last.sent:
            self.deaf = True  # it said `Connection: close` and then more: nobody expects an answer to that
        elif cause is None or isinstance(cause, BadRequest):
            self.fail(cause or BadRequest("The request is malformed."))
        else:
            log.error("edge_failed", exc_info=cause)
            self.fail(BadRequest("The gateway failed.", 500))

    def fail(self, fault: BadRequest, *, instead_of: Exchange | None = None) -> None:
        """Nothing from here on can be trusted. What was asked before is still answered, then this, then the
        end.

        instead_of: the exchange that this answers; by default the one whose body is being read, if any.
        """
        self.deaf = True
        self.fault = fault
        spoilt, self.reading = instead_of or self.reading, None
        if spoilt is not None and spoilt is self.exchange:
            if spoilt.over:  # answered already, its body was only being read away
                self._farewell(read_to_the_end=False)
                return
            began = spoilt.status != 0
            spoilt.abort()
            self.exchange = None
            if began:
                self.transport.abort()
                return
        elif spoilt is not None and spoilt in self.waiting:
            self.waiting.remove(spoilt)
        if self.exchange is None:
            self._say_fault()

    def _say_fault(self) -> None:
        fault = self.fault
        if fault is None or self.transport.is_closing():
            return
        id_ = request_id.new()
        body = problem(fault.status, fault.detail, id_)
        headers = (("X-Request-Id", id_),)
        self.transport.write(
            answer(fault.status, problems.CONTENT_TYPE, len(body), headers, keep=False) + body
        )
        self.worker.tally.finished("", "other", fault.status, 0.0)
        if conf().ACCESS_LOG:
            log.info("request_refused", request_id=id_, status=fault.status, reason=fault.detail)
        self._farewell(read_to_the_end=False)
