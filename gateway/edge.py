"""The client's side of the gateway: an HTTP/1.1 protocol class for uvicorn
(`uvicorn.Config(http=edge_class(worker))`).

Parses, bounds and times every request; an Exchange follows the rules with it. Responses leave in the order of
the requests. Nothing is ever read faster than it can be passed on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, cast

import httptools
import structlog

from . import forwarding, parting, tunnel
from .conf import conf
from .errors import BadRequest
from .exchange import Exchange
from .forwarding import Sender
from .headers import Headers
from .preambles import KNOWN_BYTES, REST, TRIES, Known, RequestPreamble
from .upgrade_body import UpgradeBody

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from .upstream import Upstream
    from .worker import Worker

log = structlog.get_logger(__name__)

_EARLY_BYTES = 65536  # of a WebSocket's client that does not wait for the answer
# What needs no parser: no percent escape is looked into here, and what is unusual is the parser's to judge.
_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*) HTTP/1\.1")


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
            parting.fail(self, BadRequest("overloaded", "Too many connections.", 503))
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
            parting.refuse(self, error.__context__)
            return
        except BadRequest as error:
            parting.fail(self, error)
            return
        except Exception as error:  # noqa: BLE001  (without the parser's help; see parting.refuse)
            parting.refuse(self, error)
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
            self.parser = UpgradeBody(self, self.reading).parser
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
            parting.fail(self, parting.ours(), instead_of=self.exchange)

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
            raise parting.Full
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
                    parting.farewell(self, read_to_the_end=done.sent and not self.fault and not self.deaf)
                    return
                if not done.sent:
                    return  # its body is still coming; end() calls again
                self.exchange = self.waiting.popleft() if self.waiting else None
                if self.exchange is not None:
                    self.exchange.start()
        finally:
            self._advancing = False
        if self.exchange is None and self.fault is not None:
            parting.say_fault(self)
        else:
            self.moved_at = self.worker.now
            if self.held:
                self.release()


def _forwarded(addresses: bytes, scheme: bytes) -> bytes:
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (addresses, scheme)


def _told(addresses: bytes, host: bytes) -> bytes:
    return b"%bX-Forwarded-Host: %b\r\nX-Request-Id: " % (addresses, host)
