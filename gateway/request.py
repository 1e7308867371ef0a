"""A client's request: read strictly (RFC 9112), written out for a target, its body passed on as it comes."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from random import getrandbits
from typing import TYPE_CHECKING

from foundation import request_id

from . import headers as heads
from . import routing, trace, tunnel
from .calls import Call
from .errors import BadRequest
from .forwarding import bare_host
from .headers import Headers
from .pool import Target
from .preambles import RequestPreamble
from .retry import IDEMPOTENT
from .routing import Asked

if TYPE_CHECKING:
    from .auth import Identity
    from .edge import Edge
    from .identities import Grounds
    from .transforming import Transformation
    from .upstream import Upstream

REPLAY_BYTES = 65536  # of a body that is kept to be sent again
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))


class Request(Call, ABC):
    """`sent`: it has been read to its end. `over`: its answer has left. `keep`: the client's connection may carry another.
    `pending`: body that waits for an upstream, None once there is one. `kept`: body that was passed on and could be sent
    again. `collected`: body that is to be changed before anything is sent.
    """

    __slots__ = (
        "_end_of_chunks", "_hops_line", "changes", "chunked", "collected", "edge", "expects", "grounds", "http11", "is_for_us", "keep",
        "kept", "length", "lines", "over", "path", "pending", "preamble", "request_id", "sent", "takes_trailers", "target_uri",
        "traceparent", "up", "wait_s", "wants_upgrade",
    )  # fmt: skip
    grounds: Grounds  # set by ongoing.py, of the few that are still under way when it looks

    def __init__(
        self,
        edge: Edge,
        method: str,
        uri: bytes,
        preamble: RequestPreamble,
        authorization: bytes | None = None,
    ) -> None:
        """authorization: where it is another than the preamble's. Raises BadRequest."""
        Call.__init__(self)
        self.length = 0
        self.sent = True
        self.chunked = self.expects = self.wants_upgrade = self.takes_trailers = False
        self.is_for_us = self.over = False
        self.up: Upstream | None = None
        self.kept: list[bytes] | None = None
        self.collected: list[bytes] | None = None
        self.changes: Transformation | None = None
        self.pending: list[bytes] | None = []
        self.wait_s = 30.0  # that whoever is waited for may be silent
        self._hops_line, self._end_of_chunks = b"", b"0\r\n\r\n"
        self.edge, self.preamble = edge, preamble
        self.http11, self.keep = preamble.http11, preamble.keep
        worker = edge.worker
        router = worker.holder.snapshot.router
        mark = uri.find(b"?")
        path = uri if mark < 0 else uri[:mark]
        route = router.known.get(path)
        if route is None or (mark >= 0 and b"#" in uri):
            self.target_uri, self.path = _split(uri, preamble.host)
        else:
            self.target_uri, self.path = uri, path
        given_trace, given_id = preamble.given_trace, preamble.given_id
        self.traceparent = trace_ = (
            worker.new_trace() if given_trace is None else trace.carry_on(given_trace, getrandbits)
        )
        if given_id is not None:
            self.request_id = request_id.accept(given_id.decode("latin-1")).encode()
        else:  # a trace of ours has an id that nobody else has
            self.request_id = trace_[3:35] if given_trace is None else worker.next_id()
        self.lines = preamble.lines
        if not preamble.is_plain:
            self._expect_more(preamble, method)
        self.authorization = authorization or preamble.authorization
        client = preamble.client
        if route is None:
            asked = Asked(method, bare_host(client.host or preamble.host), self.fields)
            route = router.match(self.path, asked)
        self.route, self.method, self.client_ip = route, method, client.ip
        self.api_key, self.recorder = preamble.api_key, worker.tally
        self.started = now = time.monotonic()
        if route is not None:
            self.wait_s = route.response_timeout_s
            self.deadline = now + route.total_timeout_s
            if route.service.hash_on:
                self.key = heads.hash_key(route.service.hash_on, client.ip, self.fields)

    def _expect_more(self, preamble: RequestPreamble, method: str) -> None:
        most = self.edge.limits.MAX_BODY_BYTES
        if preamble.length > heads.LONGEST:
            raise BadRequest("request_malformed", "No body is as long as the Content-Length says.")
        if most and preamble.length > most:
            raise too_large(most)
        self.length, self.chunked, self.expects = preamble.length, preamble.chunked, preamble.expects
        # RFC 6455 section 4.1. With a body, target and gateway might not agree on where the frames begin.
        self.wants_upgrade = preamble.wants_upgrade and method == "GET"
        self.takes_trailers = preamble.takes_trailers
        if self.chunked or self.length:
            self.sent = self.wants_upgrade = False
            if method in IDEMPOTENT:
                self.kept = []
        if preamble.hops is not None:
            self._count_hops(preamble.hops, method)

    def _count_hops(self, value: bytes, method: str) -> None:
        """RFC 9110 section 7.6.2: for OPTIONS (and TRACE, which no route takes); with others it means nothing."""
        if method == "OPTIONS" and value.isdigit():
            hops = int(value[:9])
            self.is_for_us = hops == 0
            value = b"%d" % (hops - 1)
        self._hops_line = b"Max-Forwards: %b\r\n" % value

    @property
    def fields(self) -> Headers:
        """The headers as they came. Those of the preamble may have come with other credentials."""
        preamble, given = self.preamble, self.authorization
        if given is preamble.authorization or given is None:
            return preamble.fields
        names = preamble.names
        return [(n, given if names[n] == heads.AUTHORIZATION else v) for n, v in preamble.fields]

    @property
    def host(self) -> str:
        return self.preamble.host.decode("latin-1")

    def takes(self) -> frozenset[str]:
        preamble = self.preamble
        host = bare_host(preamble.client.host or preamble.host)
        return self.edge.worker.snapshot.router.methods(self.path, Asked(self.method, host, self.fields))

    @property
    def trace_id(self) -> str:
        return trace.trace_id(self.traceparent)

    def body_so_far(self, pending: Iterable[bytes]) -> bytes:
        """What an earlier target has been sent, and what waited for this one."""
        body = b"".join(map(chunk, pending) if self.chunked else pending)
        again = b"".join(self.kept) if self.kept is not None else b""
        self._keep_for_replay(body)
        if self.sent and self.chunked and not again.endswith(self._end_of_chunks):
            self._keep_for_replay(self._end_of_chunks)
            body += self._end_of_chunks
        return again + body

    def head_for(self, target: Target) -> bytes:
        route, preamble, dial = self.route, self.preamble, target.dial
        assert route is not None  # noqa: S101  (it led to the target)
        uri = self.target_uri
        if route.strip and self.changes is None:  # edits begin with what is left of the path
            uri = heads.stripped(uri, route.strip)
        head = [
            b"%b %b HTTP/1.1\r\n" % (self.method.encode(), uri),
            b"Host: %b\r\n" % preamble.host if route.keeps_host and preamble.host else dial.host_line,
            *self.lines, self._hops_line, preamble.told, self.request_id, b"\r\ntraceparent: ", self.traceparent, b"\r\n",
            preamble.via,
        ]  # fmt: skip
        identity = self.identity
        if identity is not None:
            head.append(identity.lines or _identity_lines(identity))
        if self.changes is None and (
            identity is None or not route.hides_credentials
        ):  # else the edits had them
            for name, value in self.credentials(self.edge.worker.snapshot.api_key_header):
                head += (name, b": ", value, b"\r\n")
        if self.chunked:
            head.append(b"Transfer-Encoding: chunked\r\n")
        elif self.length or self.method in _WITH_BODY:
            head.append(b"Content-Length: %d\r\n" % self.length)
        if self.wants_upgrade:
            head.append(tunnel.REQUEST_LINES)
        elif self.takes_trailers:
            head.append(b"TE: trailers\r\nConnection: TE\r\n")
        head.append(b"\r\n")
        return b"".join(head)

    def body(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self.collected is not None:
            self._collect(data)
            return
        if self.chunked:
            most = self.edge.limits.MAX_BODY_BYTES
            if most and self.bytes_in > most:
                raise too_large(most)
        if self.over:
            return
        if self.pending is not None:
            self.pending.append(data)
            self.edge.hold()
        else:
            self._pass_on(chunk(data) if self.chunked else data)

    @abstractmethod
    def collected_whole(self, body: bytes) -> None: ...

    def _collect(self, data: bytes) -> None:
        if self.collected is not None:
            self.collected.append(data)
        if self.bytes_in > self.edge.limits.MAX_EDITED_BYTES:
            raise too_large(self.edge.limits.MAX_EDITED_BYTES)

    def _collected(self) -> None:
        body, self.collected = b"".join(self.collected or ()), None
        self.collected_whole(body)

    def end(self, trailers: Headers) -> None:
        if self.sent:
            return
        self.sent = True
        if self.over:
            self.edge.next()
        elif self.collected is not None:
            self._collected()
        elif self.chunked:
            if trailers:
                names = self.edge.worker.snapshot.names
                self._end_of_chunks = b"0\r\n%b\r\n" % heads.trailers(trailers, names)
            if self.pending is None:
                self._pass_on(self._end_of_chunks)

    def _pass_on(self, data: bytes) -> None:
        if self.up is not None:
            self._keep_for_replay(data)
            self.up.transport.write(data)

    def _keep_for_replay(self, data: bytes) -> None:
        """Of a small body, in case that it has to be sent to another target."""
        if self.kept is not None:
            if self.bytes_in <= REPLAY_BYTES:
                self.kept.append(data)
            else:
                self.kept = None


def _split(uri: bytes, host: bytes) -> tuple[bytes, bytes]:
    """(origin form for the target, normal path for the router)."""
    if uri[:1] != b"/":
        absolute = _ABSOLUTE.fullmatch(uri)
        if absolute is not None:
            if absolute[1].lower() != host.lower():
                raise BadRequest(
                    "host_ambiguous", "The request target names another host than the Host header."
                )
            uri = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if b"#" in uri:
        raise BadRequest("path_ambiguous", "A fragment in the request target.")
    mark = uri.find(b"?")
    try:
        return uri, routing.normalise(uri if mark < 0 else uri[:mark])
    except routing.BadPath as error:
        raise BadRequest("path_ambiguous", f"The path is ambiguous: {error}.") from error


def _identity_lines(identity: Identity) -> bytes:
    identity.lines = heads.consumer_lines(identity.subject, identity.name, identity.roles)
    return identity.lines


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def too_large(most: int) -> BadRequest:
    return BadRequest("body_too_large", f"The body is larger than {most} bytes.", 413)
