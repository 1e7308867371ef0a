"""The client's side of the gateway: an HTTP/1.1 protocol class for uvicorn
(`uvicorn.Config(http=edge_class(worker))`).

Parses, bounds and times every request; an Exchange follows the rules with it. Responses leave in the order of
the requests. Nothing is ever read faster than it can be passed on.
"""

from __future__ import annotations

import asyncio
import re
import select
import time
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, cast

import httptools
import structlog

from foundation import problems

from . import answers, forwarding, tunnel
from .conf import conf
from .errors import BadRequest
from .exchange import Exchange
from .forwarding import Sender
from .headers import Headers
from .preambles import KNOWN_BYTES, REST, TRIES, Known, RequestPreamble

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from .upstream import Upstream
    from .worker import Worker

log = structlog.get_logger(__name__)

_EARLY_BYTES = 65536  # of a WebSocket's client that does not wait for the answer
# What needs no parser: no percent escape is looked into here, and what is unusual is the parser's to judge.
_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*) HTTP/1\.1")


class _Full(Exception):
    """More pipelined requests than we keep: the ones we have are answered, then the connection closes."""


def edge_class(worker: Worker) -> type[Edge]:
    """uvicorn makes the protocols itself, so what they share hangs on their class."""
    return type("WorkerEdge", (Edge,), {"worker": worker})


class Edge(asyncio.Protocol):
    """One client connection. `exchange` is being answered, `reading` is being read, `waiting` are read and
    wait.

    held: reading is paused. stalled: the client does not read. deaf: what still arrives is thrown away. tunnel: what
    arrives goes there as it is; early: what came before there was one. good_host: a Host header that is known to be one.
    peer: who is connected; forwarded, told: what targets are told of him, the latter with good_host. known: the last
    request, if it was plain and all that had come: the next one may be like it.
    """

    __slots__ = (
        "_advancing", "_body_bytes", "_head_bytes", "_headers", "_preamble", "_rest", "_trailers", "_tries", "_url", "client_ip",
        "deadline", "deaf", "draining", "early", "exchange", "fault", "forwarded", "good_host", "head_started", "held",
        "is_behind_proxy", "known", "last_seen", "limits", "lingering", "loop", "moved_at", "parser", "peer", "reading", "server_state",
        "stalled", "told", "transport", "tunnel", "waiting",
    )  # fmt: skip
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
        self.moved_at = 0.0  # monotonic, to TIMEOUT_CHECK_S: when a byte came or went last
        self.deadline = 0.0  # of a connection that is being closed
        self.tunnel: asyncio.Transport | None = None
        self.early = self.good_host = b""
        self.last_seen = 0  # bytes, at the last look at whoever may be slow but not silent
        self.known: Known | None = None
        self._tries, self._rest = TRIES, 0
        self._body_bytes = 0  # of all requests
        self.limits = conf()
        self._url, self._head_bytes = b"", 0
        self._headers: Headers = []
        self._preamble: RequestPreamble | None = None
        self._trailers: Headers = []

    # --- asyncio and uvicorn ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        ip = forwarding.plain(str(peer[0])) if isinstance(peer, tuple) else "unknown"
        self.peer = Sender(ip, b"https" if transport.get_extra_info("sslcontext") else b"http")
        self.is_behind_proxy = forwarding.is_trusted(ip, self.worker.trusted)
        self.forwarded = _forwarded(ip.encode(), self.peer.scheme)
        self.told = _told(self.forwarded, b"")
        self.worker.connections.add(self)  # one too many as well: it, too, has a deadline
        if len(self.server_state.connections) >= conf().MAX_CONNECTIONS:
            self.fail(BadRequest("overloaded", "Too many connections.", 503))
            return
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        self.moved_at = self.worker.now

    def connection_lost(self, error: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self.worker.connections.discard(self)
        self.waiting.clear()
        if self.exchange is not None:
            if self.tunnel is not None:
                tunnel.close(self.exchange)
            self.exchange.abort()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            self._pass_on(data)
            return
        exchange, now = self.exchange, self.worker.now
        if exchange is None or not exchange.sent:  # else it is the target that has to move
            self.moved_at = now
        is_first = exchange is None and not self.head_started
        try:
            if is_first:
                if self.known is not None and self._comes_again(data, self.known):
                    return
                self.head_started = now  # also for bytes that the parser skips
            before, headers = self._body_bytes, self._headers
            self.parser.feed_data(data)
            if (
                self.reading is not None or self._url or self._head_bytes
            ) and headers is self._headers:  # else most of it belongs to requests that have been read
                self._bound_overhead(len(data), has_progress=self._body_bytes != before)
            if self._rest:
                self._rest -= 1
            else:
                self.known = self._remembered(data) if is_first else None
            return
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._refuse_input(error.__context__)
            return
        except BadRequest as error:
            self.fail(error)
            return
        except Exception as error:  # noqa: BLE001  (without the parser's help; see _refuse_input)
            self._refuse_input(error)
            return
        self._upgrade_asked(rest)

    def _pass_on(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.write(data)
            if self.exchange is not None:
                self.exchange.bytes_in += len(data)
            return
        last = self.waiting[-1] if self.waiting else self.exchange
        if last is not None and last.wants_upgrade:
            self.early += data
            if len(self.early) >= _EARLY_BYTES:
                self.hold()  # until there is a tunnel, or the end

    def _comes_again(self, data: bytes, known: Known) -> bool:
        """A request that differs from the last one in its first line and credentials alone needs no parser, which has seen
        the last one to its end."""
        line = _LINE.match(data)
        if line is None or self.draining:
            return False
        authorization = known.credentials(data, line.end())
        if authorization is None or known.preamble.names is not self.worker.holder.snapshot.names:
            return False
        method, uri = line.groups()
        self.exchange = exchange = Exchange(self, method.decode(), uri, known.preamble, authorization)
        exchange.start()
        return True

    def _remembered(self, data: bytes) -> Known | None:
        """What was parsed just now, if it was one whole request and nothing else."""
        self._tries -= 1
        if not self._tries:
            self._tries, self._rest = TRIES, REST
            return None
        preamble, self._preamble = self._preamble, None
        # Small enough for any limit, whatever its length is made up of.
        most_bytes = min(KNOWN_BYTES, self.limits.MAX_HEADER_BYTES, self.limits.MAX_URL_BYTES)
        if preamble is None or not preamble.is_plain or len(data) > most_bytes:
            return None
        line = _LINE.match(data)
        if (
            line is None
            or data.find(b"\r\n\r\n") != len(data) - 4
            or not data.startswith(b"\r\n", line.end())
        ):
            return None
        return Known(data[line.end() :], preamble, most_bytes)

    def _upgrade_asked(self, rest: bytes) -> None:
        """Nothing more is parsed on this connection: it becomes a tunnel, or ends with the answer."""
        if self.reading is not None:
            self.parser = _Body(self, self.reading).parser
            self.data_received(rest)
            return
        self.deaf = True
        last = self.waiting[-1] if self.waiting else self.exchange
        if last is not None:
            last.keep = False
        self._pass_on(rest)

    def _introduce(self, preamble: RequestPreamble) -> None:
        """Say who sent it: the peer, or whom a trusted proxy names."""
        if not self.is_behind_proxy:
            preamble.client = self.peer
            if preamble.host != self.good_host:
                self.good_host, self.told = preamble.host, _told(self.forwarded, preamble.host)
            preamble.told = self.told
            return
        client = forwarding.sender(self.peer.ip, self.peer.scheme, preamble.fields, self.worker.trusted)
        preamble.client = client
        addresses = forwarding.chain(self.peer.ip, client, preamble.fields, self.worker.trusted)
        preamble.told = _told(_forwarded(addresses, client.scheme), client.host or preamble.host)

    def _bound_overhead(self, size_bytes: int, *, has_progress: bool) -> None:
        """The parser collects an unfinished header or trailer by itself: bound what it holds."""
        if self.reading is not None:
            self._head_bytes = (
                0 if has_progress or not self.reading.chunked else self._head_bytes + size_bytes
            )
        else:
            self._head_bytes += size_bytes
        if self._head_bytes > self.limits.MAX_HEADER_BYTES + self.limits.MAX_URL_BYTES:
            raise BadRequest("header_too_large", "The headers are too large.", 431)

    def pause_writing(self) -> None:
        self.stalled = True
        self.moved_at = time.monotonic()
        up = self._source()
        if up is not None:
            up.pause_reading()

    def resume_writing(self) -> None:
        self.stalled = False
        up = self._source()
        if up is not None:
            up.resume_reading()
        self.moved_at = time.monotonic()

    def _source(self) -> Upstream | None:
        """Whose data it is that the client does not take. An answer's last bytes may be written when its connection is
        somebody else's already: to hold that one back would be for good."""
        exchange = self.exchange
        up = exchange.up if exchange is not None else None
        return up if up is not None and (up.receiver is exchange or up.tunnel is self.transport) else None

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
            self.fail(_ours(), instead_of=self.exchange)

    # --- time ---

    def is_overdue(self, now: float) -> bool:
        """Whether whoever is waited for now has been waited for too long."""
        exchange, limits = self.exchange, self.limits
        if self.lingering:
            return now >= self.deadline
        if (self.held or self.tunnel is not None) and self._has_hung_up():
            return True
        if self.stalled:
            unsent = self.transport.get_write_buffer_size()
            if unsent != self.last_seen:  # it does read, if slowly
                self.last_seen, self.moved_at = unsent, now
            return now - self.moved_at > limits.WRITE_TIMEOUT_S
        if exchange is None:
            if self.head_started:
                return now - self.head_started > limits.HEADER_TIMEOUT_S
            return now - self.moved_at > limits.IDLE_TIMEOUT_S
        if self.tunnel is not None:
            return (
                limits.TUNNEL_IDLE_S > 0 and now - self._tunnel_moved_at(exchange, now) > limits.TUNNEL_IDLE_S
            )
        is_ours = exchange.sent or (self.held and not exchange.over)
        return (
            now - self.moved_at > (exchange.wait_s if is_ours else limits.BODY_TIMEOUT_S)
            or now >= exchange.deadline
        )

    def expire(self) -> None:
        """Called by the worker when `is_overdue`."""
        exchange = self.exchange
        if self.lingering or self.stalled or self.transport.is_closing() or self._has_hung_up():
            self.transport.abort()
        elif exchange is None:
            if self.head_started:
                self.fail(BadRequest("header_timeout", "The request's headers did not arrive in time.", 408))
            else:
                self.transport.close()
        elif exchange.over:
            self.transport.close()
        elif self.tunnel is not None:
            exchange.code = "tunnel_idle"
            self.transport.close()
        elif exchange.sent or self.held or time.monotonic() >= exchange.deadline:
            exchange.timed_out(time.monotonic())
        else:
            self.fail(BadRequest("body_timeout", "The request's body did not arrive in time.", 408))

    def _tunnel_moved_at(self, exchange: Exchange, now: float) -> float:
        """Looked at now and then, so that no frame costs more for it."""
        carried = exchange.bytes_in + (exchange.up.carried if exchange.up is not None else 0)
        if carried != self.last_seen:
            self.last_seen, self.moved_at = carried, now
        return self.moved_at

    def _has_hung_up(self) -> bool:
        """Whether the client is gone while nothing is read of it, and so nobody has heard of it."""
        transport = self.transport
        if transport.is_reading() or transport.is_closing():
            return False
        sock = transport.get_extra_info("socket")
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    # --- httptools ---

    def on_url(self, part: bytes) -> None:
        if not self._url:
            self._begin()
        self._url = url = self._url + part if self._url else part
        if len(url) > self.limits.MAX_URL_BYTES:
            raise BadRequest(
                "uri_too_long", f"The request target is longer than {self.limits.MAX_URL_BYTES} bytes.", 414
            )

    def _begin(self) -> None:
        self.limits = limits = conf()
        if self.draining or len(self.waiting) >= limits.MAX_PIPELINED:
            raise _Full
        self.head_started = self.worker.now

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading is not None:
            self._trailers.append((name, value))
            return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, []
        url, self._url = self._url, b""
        limits = self.limits
        size_bytes = 4 * len(headers)
        for name, value in headers:
            size_bytes += len(name) + len(value)
        if size_bytes > limits.MAX_HEADER_BYTES or len(headers) > limits.MAX_HEADERS:
            raise BadRequest("header_too_large", "The headers are too large or too many.", 431)
        exchange = self.reading = self._parsed(url, headers)
        self.head_started = 0.0
        self._head_bytes = 0
        if self.exchange is None:
            self.exchange = exchange
            exchange.start()
        else:
            self.waiting.append(exchange)
            self.hold()

    def _parsed(self, uri: bytes, headers: Headers) -> Exchange:
        parser = self.parser
        version, method = parser.get_http_version(), parser.get_method().decode("latin-1")
        if version not in ("1.0", "1.1"):
            raise BadRequest("version_unsupported", "Only HTTP/1.0 and HTTP/1.1 are spoken here.", 505)
        if method == "CONNECT":
            raise BadRequest("method_unsupported", "CONNECT is for forward proxies.", 501)
        is_11 = version == "1.1"
        names = self.worker.holder.snapshot.names
        preamble = RequestPreamble(headers, names, is_11, self.good_host)
        self._introduce(preamble)
        preamble.keep = is_11 and parser.should_keep_alive() and not parser.should_upgrade()
        self._preamble = preamble if preamble.keep else None
        return Exchange(self, method, uri, preamble)

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self.reading is not None:
            self.reading.body(data)

    def on_message_complete(self) -> None:
        reading, self.reading, self._head_bytes = self.reading, None, 0
        if reading is not None and not reading.sent:
            if self.parser.should_upgrade():
                self.reading = reading  # its body is still to come
                return
            trailers, self._trailers = self._trailers, []
            reading.end(trailers)

    # --- the line of requests ---

    def next(self) -> None:
        """Called when an exchange got its answer or its end: go on with the first one that needs work."""
        done = self.exchange
        if (
            done is not None
            and done.keep
            and done.sent
            and not self.waiting
            and not self.draining
            and not self.fault
        ):
            self.exchange = None
            self.moved_at = self.worker.now
            if self.held:
                self.release()
            return
        if self._advancing:
            return
        self._advancing = True
        try:
            while (done := self.exchange) is not None and done.over:
                if not done.keep or self.draining:
                    self._farewell(read_to_the_end=done.sent and not self.fault and not self.deaf)
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
            self.moved_at = self.worker.now
            if self.held:
                self.release()

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
        if cause is not None and not isinstance(cause, _Full | BadRequest):
            log.error("edge_failed", exc_info=cause)
            self.fail(_ours(), instead_of=self.reading or self.exchange)
        elif isinstance(cause, _Full):
            self.deaf = True
            if last is not None:
                last.keep = False
            elif self.exchange is None:
                self.transport.close()
        elif last is not None and not last.keep and last.sent:
            self.deaf = True  # it said `Connection: close` and then more: nobody expects an answer to that
        else:
            self.fail(cause or BadRequest("request_malformed", "The request is malformed."))

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
            self.exchange = None
            if spoilt.head_sent:
                spoilt.abort(fault.code)
                self.transport.abort()
                return
            spoilt.abort(fault.code, fault.status)
        elif spoilt is not None and spoilt in self.waiting:
            self.waiting.remove(spoilt)
        if self.exchange is None:
            self._say_fault(spoilt)

    def _say_fault(self, spoilt: Exchange | None = None) -> None:
        """spoilt: the request that it answers, if it was one."""
        fault = self.fault
        if fault is None or self.transport.is_closing():
            return
        id_ = (spoilt.request_id if spoilt is not None else self.worker.next_id()).decode()
        body = answers.problem(fault.status, fault.code, fault.detail, id_)
        headers = (("X-Brain-Error", fault.code), ("X-Request-Id", id_))
        self.transport.write(
            answers.head(fault.status, problems.CONTENT_TYPE, len(body), headers, keep=False) + body
        )
        if spoilt is not None and spoilt.status:
            self.worker.tally.refused(fault.code)
        else:
            self.worker.refused(fault, self.peer.ip, id_)
        self._farewell(read_to_the_end=False)


class _Body:
    """Reads the body of a request that asks for another protocol: the parser passes over it, although nobody may switch
    before it has come (RFC 9110 section 7.8). A target that was told of its length and never saw it would take the next
    request for it. Java's HttpClient asks for h2c with every body."""

    def __init__(self, edge: Edge, reading: Exchange) -> None:
        self._edge, self._has_begun = edge, False
        self.parser = httptools.HttpRequestParser(self)
        length = b"Transfer-Encoding: chunked" if reading.chunked else b"Content-Length: %d" % reading.length
        self.parser.feed_data(b"POST / HTTP/1.1\r\nConnection: close\r\n%b\r\n\r\n" % length)

    def on_headers_complete(self) -> None:
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_begun:
            self._edge.on_header(name, value)

    def on_body(self, data: bytes) -> None:
        self._edge.on_body(data)

    def on_message_complete(self) -> None:
        self._edge.on_message_complete()


def _forwarded(addresses: bytes, scheme: bytes) -> bytes:
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (addresses, scheme)


def _told(addresses: bytes, host: bytes) -> bytes:
    return b"%bX-Forwarded-Host: %b\r\nX-Request-Id: " % (addresses, host)


def _ours() -> BadRequest:
    return BadRequest("gateway_failed", "The gateway failed.", 500)
