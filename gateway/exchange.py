"""One request and its response, between a client connection (edge.py) and an upstream connection
(upstream.py)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

import orjson
import structlog

from foundation import problems, request_id

from . import pipeline, routing, transform
from .auth import Credentials
from .conf import conf
from .errors import BadRequest
from .limiter import Limiter
from .pipeline import Call, Refusal, Step, TakeTokens, Target, UpstreamFailed
from .snapshot import Snapshot
from .transform import Arrival, Headers
from .upstream import BODILESS, Upstream

log = structlog.get_logger(__name__)

DRAIN_BYTES = (
    65536  # a request body up to this size is read to its end after an early answer, a larger one is cut off
)
_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


# status, body, content type
LocalAnswer = Callable[[], Awaitable[tuple[int, bytes, str]]]


class Surroundings(Protocol):
    """What an exchange asks of its process (worker.Worker)."""

    used_keys: set[bytes]

    @property
    def limiter(self) -> Limiter: ...
    @property
    def tally(self) -> pipeline.Recorder: ...
    @property
    def snapshot(self) -> Snapshot: ...
    def local_answer(self, path: bytes) -> LocalAnswer | None: ...


class Client(Protocol):
    """What an exchange asks of its client's connection (edge.Edge)."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    client_ip: str
    scheme: bytes
    stalled: bool

    @property
    def worker(self) -> Surroundings: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def arm(self) -> None: ...
    def next(self) -> None: ...
    def fail(self, fault: BadRequest, *, instead_of: Exchange | None = None) -> None: ...


class Exchange:
    """`sent`: the request has been read to its end. `over`: the response has left. `keep`: the client
    connection may carry another request. `pending`: body that waits for an upstream, None once there is one.
    """

    def __init__(
        self, edge: Client, method: str, version: str, keep: bool, target: bytes, headers: Headers
    ) -> None:
        """Raises BadRequest for what the parser lets through and we do not (RFC 9112; each line has bitten
        somebody)."""
        self.edge, self.method, self.http11, self.keep = (
            edge,
            method,
            version == "1.1",
            keep and version == "1.1",
        )
        if version not in ("1.0", "1.1"):
            raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.", 505)
        if method == "CONNECT":
            raise BadRequest("CONNECT is for forward proxies.", 501)
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        host = self._host(found.get(b"host", []))
        self.target, self.path = self._split(target, host)
        self.length, self.chunked = self._framing(found)
        self.expects = self._expects(found.get(b"expect", []))
        self.request_id = request_id.accept(_text(found.get(b"x-request-id")))
        self.arrival = Arrival(edge.client_ip.encode(), edge.scheme, host, self.request_id.encode())
        self.headers = [(n, v) for n, v in headers if n.lower() != b"content-length"]
        self.sent = not self.chunked and not self.length
        self.over = self.bodied = self.chunks_out = False
        self.received = 0  # body bytes
        self.status = 0  # of the response whose head has left
        self.up: Upstream | None = None
        self.upstream_name = ""
        self.pending: list[bytes] | None = []
        self.out: list[bytes] = []
        snapshot = edge.worker.snapshot
        key = found.get(snapshot.api_key_header, [])
        bearer = found.get(b"authorization", [])
        if len(key) > 1 or len(bearer) > 1:
            raise BadRequest("More than one credential of a kind.")
        self.call = Call(
            route=snapshot.router.match(self.path),
            method=method,
            credentials=Credentials(bearer[0] if bearer else None, key[0] if key else None),
            client_ip=edge.client_ip,
            started=time.monotonic(),
            recorder=edge.worker.tally,
        )

    @property
    def timeout_s(self) -> float:
        return self.call.route.timeout_s if self.call.route is not None else 30.0

    # --- reading the head ---

    def _host(self, values: list[bytes]) -> bytes:
        if len(values) > 1 or (self.http11 and not values):
            raise BadRequest("A request has exactly one Host header.")
        if values and _HOST.fullmatch(values[0]) is None:
            raise BadRequest("The Host header is not a host.")
        return values[0] if values else b""

    def _split(self, target: bytes, host: bytes) -> tuple[bytes, bytes]:
        """(origin form for the upstream, normal path for the router)."""
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None:
            if absolute[1].lower() != host.lower():
                raise BadRequest("The request target names another host than the Host header.")
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        if b"#" in target:
            raise BadRequest("A fragment in the request target.")
        try:
            return target, routing.normalise(target.partition(b"?")[0])
        except routing.BadPath as error:
            raise BadRequest(f"The path is ambiguous: {error}.") from error

    def _framing(self, found: dict[bytes, list[bytes]]) -> tuple[int, bool]:
        coding = found.get(b"transfer-encoding")
        if coding is not None:
            if not self.http11 or [value.strip().lower() for value in coding] != [b"chunked"]:
                raise BadRequest("The only transfer coding is a single 'chunked', in HTTP/1.1.")
            return 0, True
        length = int(found.get(b"content-length", [b"0"])[0])
        self._check_size(length)
        return length, False

    def _expects(self, values: list[bytes]) -> bool:
        if not values:
            return False
        if [value.lower() for value in values] != [b"100-continue"]:
            raise BadRequest("The only expectation is 100-continue.", 417)
        return self.http11

    def _check_size(self, size_bytes: int) -> None:
        limit = conf().MAX_BODY_BYTES
        if limit and size_bytes > limit:
            raise BadRequest(f"The body is larger than {limit} bytes.", 413)

    # --- following the rules ---

    def start(self) -> None:
        worker = self.edge.worker
        local = worker.local_answer(self.path)
        if local is not None:
            self.edge.spawn(self._answer_locally(local))
            return
        wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
        step = pipeline.decide(self.call, worker.snapshot, wall, self.call.started)
        identity = self.call.identity
        if identity is not None and identity.digest:
            worker.used_keys.add(identity.digest)
        self.follow(step)

    def follow(self, step: Step) -> None:
        if isinstance(step, Refusal):
            self.refuse(step)
        elif isinstance(step, TakeTokens):
            self.edge.spawn(self._take(step))
        else:
            up = _idle_connection(step)
            if up is not None:
                self._attach(up)
            else:
                self.edge.spawn(self._connect(step))

    async def _take(self, step: TakeTokens) -> None:
        taken = await self.edge.worker.limiter.atake(step)
        if not self.over:
            self.follow(pipeline.admitted(self.call, taken, time.monotonic()))

    async def _connect(self, target: Target) -> None:
        try:
            async with asyncio.timeout(conf().CONNECT_TIMEOUT_S):
                _, up = await self.edge.loop.create_connection(
                    lambda: Upstream(target), target.ip, target.port
                )
        except OSError as error:  # TimeoutError is one
            if not self.over:
                timed_out = isinstance(error, TimeoutError)
                self._fail(UpstreamFailed("connect", replayable=True, timed_out=timed_out))
            return
        if self.over:
            up.drop()
        else:
            self._attach(up)

    def _attach(self, up: Upstream) -> None:
        self.up, self.upstream_name = up, up.target.name
        pending, self.pending = self.pending or [], None
        if self.expects and not self.sent:
            self.edge.transport.write(_CONTINUE)
            self.expects = False
        if self.edge.stalled:
            up.pause_reading()
        up.begin(self, b"".join((self._head(up.target), *pending)))
        self.edge.release()
        self.edge.arm()

    def _head(self, target: Target) -> bytes:
        route = self.call.route
        sent = transform.to_upstream(
            self.headers,
            self.arrival,
            host=target.name.encode(),
            identity=self.call.identity,
            api_key_header=self.edge.worker.snapshot.api_key_header,
            hide_authorization=route is not None and route.auth_required,
        )
        if self.chunked:
            sent.append((b"Transfer-Encoding", b"chunked"))
        elif self.length or self.method in ("POST", "PUT", "PATCH"):
            sent.append((b"Content-Length", b"%d" % self.length))
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (self.method.encode(), self.target, _lines(sent))

    def _fail(self, failure: UpstreamFailed) -> None:
        self.up = None
        self.pending = self.pending or []
        self.follow(pipeline.failed(self.call, failure, time.monotonic()))

    # --- from the client ---

    def body(self, data: bytes) -> None:
        self.bodied = True
        self.received += len(data)
        if self.chunked:
            self._check_size(self.received)
        if not self.over:
            self._forward(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self) -> None:
        if self.sent:
            return
        self.sent = True
        if self.over:
            self.edge.next()
        elif self.chunked:
            self._forward(b"0\r\n\r\n")

    def _forward(self, data: bytes) -> None:
        if self.pending is not None:
            self.pending.append(data)
            self.edge.hold()
        elif self.up is not None:
            self.up.write(data)

    def abort(self) -> None:
        """The client is gone, or what it sends makes no sense: give everything back."""
        if self.over:
            return
        self.over = True
        if self.up is not None:
            self.up.drop()
        pipeline.abandoned(self.call, time.monotonic())
        self._log()

    def timed_out(self) -> None:
        """The upstream has been silent for the route's timeout."""
        if self.up is not None:
            self.up.drop()
        if self.status:
            self._break_off()
        elif self.call.target is not None:
            self._fail(UpstreamFailed("timeout", timed_out=True))
        else:  # the limiter or a local answer did not come back
            self.edge.fail(BadRequest("The gateway did not get to this in time.", 504), instead_of=self)

    # --- from the upstream ---

    def opened(self, status: int, reason: bytes, headers: Headers, *, has_length: bool) -> None:
        self.status = status
        ours = [(b"X-Request-Id", self.arrival.request_id), (b"X-Upstream", self.upstream_name.encode())]
        ours += [(name.encode(), value.encode()) for name, value in pipeline.limit_headers(self.call)]
        sent = transform.to_client(headers, ours)
        if status == 204:
            sent = [(name, value) for name, value in sent if name.lower() != b"content-length"]
        if not has_length and self.method != "HEAD" and status not in BODILESS:
            # A body without a length goes on in chunks, or up to the end of the connection for HTTP/1.0.
            self.chunks_out = self.http11
            if self.chunks_out:
                sent.append((b"Transfer-Encoding", b"chunked"))
            else:
                self.keep = False
        self._closes_early()
        if not self.keep:
            sent.append((b"Connection", b"close"))
        self.out.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, _lines(sent)))

    def wrote(self, data: bytes) -> None:
        if self.chunks_out:
            self.out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self.out.append(data)

    def flush(self) -> None:
        if self.out:
            self.edge.transport.write(b"".join(self.out))
            self.out.clear()
        self.edge.arm()

    def finished(self) -> None:
        self.over = True
        if self.chunks_out:
            self.edge.transport.write(b"0\r\n\r\n")
        pipeline.answered(self.call, self.status, time.monotonic())
        self._log()
        self.edge.release()
        self.edge.next()

    def lost(self, reason: str) -> None:
        if self.status:
            self._break_off()
            return
        safe = self.sent and not self.bodied and self.method in pipeline.IDEMPOTENT
        self._fail(UpstreamFailed(reason, replayable=safe))

    def _break_off(self) -> None:
        """The head is out: only a cut connection tells the client that the rest is missing."""
        self.over = True
        pipeline.broken(self.call, self.status, time.monotonic())
        self._log()
        self.edge.transport.abort()

    def hold(self) -> None:
        self.edge.hold()

    def release(self) -> None:
        self.edge.release()

    # --- answers of our own ---

    def refuse(self, refusal: Refusal) -> None:
        body = problem(refusal.status, refusal.detail, self.request_id)
        self.respond(refusal.status, body, problems.CONTENT_TYPE, refusal.headers)

    def respond(
        self, status: int, body: bytes, content_type: str, headers: pipeline.HeaderPairs = ()
    ) -> None:
        self.over, self.status = True, status
        self._closes_early()
        headers += (("X-Request-Id", self.request_id),)
        shown = b"" if self.method == "HEAD" else body
        self.edge.transport.write(answer(status, content_type, len(body), headers, keep=self.keep) + shown)
        self._log()
        self.edge.release()
        self.edge.next()

    async def _answer_locally(self, local: LocalAnswer) -> None:
        if self.method not in ("GET", "HEAD"):
            self.refuse(Refusal(405, "This takes GET, HEAD.", (("Allow", "GET, HEAD"),)))
            return
        status, body, content_type = await local()
        if not self.over:
            self.respond(status, body, content_type)

    def _closes_early(self) -> None:
        """The answer comes before the end of the request: is the rest worth reading?"""
        if not self.sent and (self.chunked or self.expects or self.length > DRAIN_BYTES):
            self.keep = False

    def _log(self) -> None:
        if conf().ACCESS_LOG:
            call = self.call
            log.info(
                "request",
                request_id=self.request_id,
                method=self.method,
                path=self.path.decode("latin-1"),
                route=call.route.path if call.route is not None else None,
                status=call.status or self.status,
                upstream=self.upstream_name or None,
                consumer=call.identity.name if call.identity is not None else None,
                duration_ms=round((time.monotonic() - call.started) * 1000, 1),
            )


def _idle_connection(target: Target) -> Upstream | None:
    oldest = time.monotonic() - conf().UPSTREAM_IDLE_S
    while target.idle:
        up: Upstream = target.idle.pop()
        if up.alive and not up.transport.is_closing() and up.idle_since > oldest:
            return up
        up.drop()
    return None


def answer(
    status: int, content_type: str, size_bytes: int, headers: pipeline.HeaderPairs, *, keep: bool
) -> bytes:
    """The head of a response that the edge makes itself."""
    pairs = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", content_type),
        ("Content-Length", str(size_bytes)),
        *headers,
    ]
    if not keep:
        pairs.append(("Connection", "close"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1")


def problem(status: int, detail: str, id_: str) -> bytes:
    return orjson.dumps(problems.document(status, detail=detail, request_id=id_))


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


def _text(values: list[bytes] | None) -> str | None:
    return values[0].decode("latin-1") if values else None
