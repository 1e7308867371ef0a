"""The headers of a request and of a response, read strictly and once (RFC 9112): what they say, and how they go on.

A connection tends to send the same ones again and again; HPACK (RFC 7541) lives off that. What an edge or an upstream
connection has read last is kept there, and bytes that are equal to it are not read again.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from . import headers as heads
from . import trace, tunnel
from .errors import BadRequest
from .forwarding import HOST, Sender
from .headers import Headers, Names

KNOWN_BYTES = 4096  # of a message that is remembered
TRIES, REST = 8, 64  # so many messages have to differ from the one before, until so many are not remembered
MAX_GATEWAYS = 5  # of ours on a request's way
_VIA = b"Via: 1.1 brain\r\n"
_NONE: frozenset[bytes] = frozenset()
_NO_HEADERS: Headers = []
_CREDENTIALS = re.compile(
    rb"[A-Za-z]+ [A-Za-z0-9._~+/-]+=*"
)  # a token68 (RFC 9110 section 11.4); others are parsed
_CALM = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
# Our own words for each status: a reason phrase means nothing (RFC 9112 section 4), and a target's could say anything.
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class RequestPreamble:
    """Never changed once it is read, and shared by all requests that bring the same headers.

    fields: as they came, read by `names`. lines: those that go on, in pieces as they go over the wire. client, told: who
    sent them, and what targets are told of him up to the request's id; set by the edge. hops: Max-Forwards. is_plain: a
    request without a body that asks for nothing but an answer.
    """

    __slots__ = (
        "api_key", "authorization", "chunked", "client", "expects", "fields", "given_id", "given_trace", "hops", "host",
        "http11", "is_plain", "keep", "length", "lines", "named", "names", "states", "takes_trailers", "told", "via", "wants_upgrade",
    )  # fmt: skip
    client: Sender
    told: bytes

    def __init__(self, fields: Headers, names: Names, http11: bool, good_host: bytes = b"") -> None:
        """good_host: a Host header that is known to be one. Raises BadRequest for what the parser lets through and we do
        not; each line has bitten somebody."""
        self.fields, self.names, self.http11 = fields, names, http11
        self.keep = http11  # the connection may carry another request; the edge knows more about it
        self.lines: list[bytes] = []
        lines = self.lines
        self.given_id: bytes | None = None
        self.given_trace: bytes | None = None
        self.hops: bytes | None = None
        self.length = 0
        self.chunked = self.expects = self.wants_upgrade = self.takes_trailers = False
        self.via, self.named = _VIA, _NONE
        self.states: Headers = _NO_HEADERS  # of the caller's trace, where that goes on
        self.is_plain = True
        host: bytes | None = None
        authorization: bytes | None = None
        api_key: bytes | None = None
        for name, value in fields:
            kind = names[name]
            if not kind:
                lines += (name, b": ", value, b"\r\n")
            elif kind == heads.HOST:
                if host is not None:
                    raise BadRequest("host_ambiguous", "A request has exactly one Host header.")
                host = value
            elif kind == heads.AUTHORIZATION:
                if authorization is not None:
                    raise BadRequest("credentials_ambiguous", "More than one Authorization header.")
                authorization = value
            elif kind == heads.KEY:
                if api_key is not None:
                    raise BadRequest("credentials_ambiguous", "More than one API key.")
                api_key = value
            elif kind == heads.LENGTH:
                self.length = int(value)  # the parser has seen to it that it is one number
                self.is_plain = not self.length and self.is_plain
            elif kind == heads.REQUEST_ID:
                self.given_id = value
            elif kind == heads.TRACE:
                self.given_trace = value if self.given_trace is None else b""  # two are none
            elif kind == heads.CONNECTION:
                if value not in _CALM:
                    self.named |= heads.listed((value,))
            elif kind != heads.DROP:
                self._note(kind, value)
        if host is None:
            if http11:
                raise BadRequest("host_ambiguous", "A request has exactly one Host header.")
            host = b""
        elif (host != good_host or not host) and HOST.fullmatch(host) is None:
            raise BadRequest("host_malformed", "The Host header is not a host.")
        self.host, self.authorization, self.api_key = host, authorization, api_key
        if self.named:
            self.lines = _without(lines, self.named, 0)

    def settle(self) -> None:
        """It will be used again: put its lines together."""
        self.lines = [b"".join(self.lines)]

    def passed(self) -> Headers:
        """The headers of `lines`."""
        names, named = self.names, self.named
        kept = [pair for pair in self.fields if not names[pair[0]] and pair[0].lower() not in named]
        return kept + self.states

    def _note(self, kind: int, value: bytes) -> None:
        """The rarer headers that the gateway reads."""
        self.is_plain = self.is_plain and kind in (heads.VIA, heads.TRACESTATE)
        if kind == heads.CODING:
            if self.chunked or not self.http11 or value.strip(b" ").lower() != b"chunked":
                raise BadRequest(
                    "coding_unsupported", "The only transfer coding is a single 'chunked', in HTTP/1.1."
                )
            self.chunked = True
        elif kind == heads.EXPECT:
            if self.expects or value.lower() != b"100-continue":
                raise BadRequest("expectation_unknown", "The only expectation is 100-continue.", 417)
            self.expects = self.http11
        elif kind == heads.VIA:
            # Some proxies write a line of their own: all of them count, and go on.
            value = b", ".join(given for name, given in self.fields if self.names[name] == kind)
            if value.count(b" brain") >= MAX_GATEWAYS:
                raise BadRequest("loop_detected", "The request goes round in a circle of gateways.", 508)
            self.via = b"Via: %b, 1.1 brain\r\n" % value
        elif kind == heads.UPGRADE:
            self.wants_upgrade = tunnel.is_asked_for(value, self.fields) and self.http11
        elif kind == heads.TE:
            self.takes_trailers = b"trailers" in value.lower()
        elif kind == heads.HOPS:
            self.hops = value
        elif kind == heads.TRACESTATE:
            given = [trace_ for name, trace_ in self.fields if self.names[name] == heads.TRACE]
            if len(given) == 1 and trace.is_valid(given[0]):
                self.states = [*self.states, (b"tracestate", value)]
                self.lines += (b"tracestate", b": ", value, b"\r\n")


class Known:
    """What one plain request brought after its first line, to hold the next one against: the same bytes, but for credentials,
    which may be others."""

    __slots__ = ("_after", "_before", "_most_bytes", "_rest", "preamble")

    def __init__(self, rest: bytes, preamble: RequestPreamble, most_bytes: int) -> None:
        """most_bytes: of a whole request that may be taken for one like it."""
        preamble.settle()
        self._rest, self.preamble, self._most_bytes = rest, preamble, most_bytes
        self._before = self._after = b""
        given = preamble.authorization
        if given is not None:
            name = next(name for name, _ in preamble.fields if preamble.names[name] == heads.AUTHORIZATION)
            before, found, after = rest.partition(b"\r\n%b: %b\r\n" % (name, given))
            if found:  # else it was written in an unusual way
                self._before, self._after = before + b"\r\n%b: " % name, b"\r\n" + after

    def credentials(self, data: bytes, begin: int) -> bytes | None:
        """The Authorization of a request whose first line ends at `begin`, b"" without one; None: it differs in more."""
        rest, before, after = self._rest, self._before, self._after
        if len(data) - begin == len(rest) and data.endswith(rest) and begin <= self._most_bytes:
            return self.preamble.authorization or b""
        if (
            not after
            or len(data) > self._most_bytes
            or not data.startswith(before, begin)
            or not data.endswith(after)
        ):
            return None
        given = data[begin + len(before) : -len(after)]
        return given if _CREDENTIALS.fullmatch(given) is not None else None


class ResponsePreamble:
    """The same of a response. lines: its status line and the headers that go on; limits: those of them that a limit of ours
    takes the place of."""

    __slots__ = ("fields", "is_chunked", "length", "limits", "lines", "named", "status", "upgrade")

    def __init__(self, status: int, fields: Headers) -> None:
        """Raises ValueError for a response that cannot be passed on."""
        self.status, self.fields = status, fields
        self.limits, self.upgrade, self.named = b"", b"", _NONE
        self.length: int | None = None
        self.is_chunked = False
        names = heads.OF_RESPONSES
        self.lines = lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in fields:
            kind = names[name]
            if not kind:
                lines += (name, b": ", value, b"\r\n")
            elif kind == heads.LENGTH:
                self.length = int(value)  # the parser has seen to it that it is one number
                if self.length > heads.LONGEST:
                    raise ValueError("no body is as long as that")
                if status not in (101, 204):  # RFC 9110 section 8.6
                    lines += (name, b": ", value, b"\r\n")
            elif kind == heads.CODING:
                # A tab after it is no part of it, but the parser would not read it as chunked.
                if self.is_chunked or value.strip(b" ").lower() != b"chunked":
                    raise ValueError("a transfer coding that could not be passed on")
                self.is_chunked = True
            elif kind == heads.CONNECTION:
                if value not in _CALM and status != 101:
                    self.named |= heads.listed((value,))
            elif kind == heads.LIMIT:
                self.limits += b"%b: %b\r\n" % (name, value)
            elif kind == heads.UPGRADE and status == 101:
                self.upgrade = value.lower()
                lines += (name, b": ", value, b"\r\nConnection: Upgrade\r\n")
        if self.named:
            self.lines = _without(lines, self.named, 1)

    def settle(self) -> None:
        self.lines = [b"".join(self.lines)]


def _without(lines: list[bytes], named: frozenset[bytes], first: int) -> list[bytes]:
    """Header lines are four pieces each, from the first one on."""
    kept = lines[:first]
    for i in range(first, len(lines), 4):
        if lines[i].lower() not in named:
            kept += lines[i : i + 4]
    return kept
