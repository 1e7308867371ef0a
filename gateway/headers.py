"""What happens to each header on its way through: hop-by-hop ones end here (RFC 9110 section 7.6.1), what a client may
not claim is taken off, and what the gateway knows is put on.

A name is judged once and remembered: on the hot path a header costs one look-up. Header lists are (name, value) pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from urllib.parse import quote_from_bytes

from .auth import Identity

Headers = list[tuple[bytes, bytes]]

# What a name is. PASS is 0, so that the usual case is one test for truth.
(
    PASS, DROP, HOST, LENGTH, CODING, CONNECTION, EXPECT, AUTHORIZATION, KEY, REQUEST_ID, TRACE, VIA, UPGRADE, TE,
    FORWARDED, TRAILER, LIMIT, HOPS, TRACESTATE,
) = range(19)  # fmt: skip

# proxy: a CGI program would find it in its environment as HTTP_PROXY (CVE-2016-5385).
_REQUEST = {
    b"host": HOST, b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION,
    b"expect": EXPECT, b"authorization": AUTHORIZATION, b"x-request-id": REQUEST_ID, b"traceparent": TRACE,
    b"via": VIA, b"upgrade": UPGRADE, b"te": TE, b"trailer": TRAILER, b"forwarded": FORWARDED,
    b"x-forwarded-for": FORWARDED, b"x-forwarded-proto": FORWARDED, b"x-forwarded-host": FORWARDED,
    b"keep-alive": DROP, b"proxy-authenticate": DROP, b"proxy-authorization": DROP, b"proxy-connection": DROP,
    b"proxy": DROP, b"x-real-ip": DROP, b"max-forwards": HOPS, b"tracestate": TRACESTATE,
}  # fmt: skip
# Nobody but the gateway says these to a target.
_OUR_PREFIXES = (b"x-forwarded-", b"x-consumer-", b"x-credential-")
_RESPONSE = {
    b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION, b"trailer": TRAILER,
    b"keep-alive": DROP, b"proxy-authenticate": DROP, b"proxy-authorization": DROP, b"proxy-connection": DROP,
    b"te": DROP, b"upgrade": UPGRADE, b"x-request-id": DROP, b"x-upstream": DROP, b"x-brain-error": DROP,
    b"ratelimit": LIMIT, b"ratelimit-policy": LIMIT,
}  # fmt: skip
# What `Connection: X` cannot take off: without these a message means something else.
_END_TO_END = frozenset(
    b"host content-length content-type content-encoding content-range authorization cookie set-cookie range"
    b" cache-control location www-authenticate retry-after date".split()
)
# RFC 9110 section 6.5.1: a trailer does not frame, route, authenticate or describe the message.
_NO_TRAILERS = _END_TO_END | frozenset(
    b"transfer-encoding trailer te connection keep-alive upgrade expect max-forwards pragma proxy-authorization"
    b" set-cookie2 age expires vary etag last-modified if-match if-none-match if-modified-since"
    b" if-unmodified-since if-range content-location accept-encoding".split()
)
LONGEST = (1 << 63) - 1  # of a Content-Length: a peer that counts with a sign may take more for anything
_REMEMBERED = 4096  # names, so that strangers cannot fill the memory,
_REMEMBERED_BYTES = 100  # and of names so long; all that mean something to us are shorter

_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '%,;"\\')


class Names(dict[bytes, int]):
    """Spelling of a name → what it is. Names with an underscore are dropped: a CGI or WSGI target could not tell
    `X_Consumer_Id` from `X-Consumer-Id`."""

    def __init__(self, known: dict[bytes, int], *, is_request: bool) -> None:
        super().__init__()
        self._known, self._is_request = known, is_request

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        kind = self._known.get(lower, PASS)
        if kind == PASS and self._is_request and (b"_" in lower or lower.startswith(_OUR_PREFIXES)):
            kind = DROP
        if len(name) > _REMEMBERED_BYTES:
            return kind
        if len(self) >= _REMEMBERED:
            self.clear()  # else whoever comes first with that many keeps all others' names out for good
        self[name] = kind
        return kind


def of_requests(api_key_header: bytes) -> Names:
    """api_key_header: in lower case; it is never passed on."""
    return Names({**_REQUEST, api_key_header: KEY}, is_request=True)


OF_RESPONSES = Names(_RESPONSE, is_request=False)


def listed(values: Iterable[bytes]) -> frozenset[bytes]:
    """The names that Connection headers list, in lower case, without those that they cannot take off."""
    tokens = {token.strip().lower() for value in values for token in value.split(b",")}
    return frozenset(tokens - _END_TO_END)


def is_event_stream(content_type: bytes) -> bool:
    """Whether such a response goes on for as long as somebody listens."""
    return content_type.lower().startswith(b"text/event-stream")


def trailers(fields: Iterable[tuple[bytes, bytes]], names: Names) -> bytes:
    """Those of a message's trailer fields that may be passed on, as they go over the wire."""
    kept = (
        b"%b: %b\r\n" % (name, value)
        for name, value in fields
        if not names[name] and name.lower() not in _NO_TRAILERS
    )
    return b"".join(kept)


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


def consumer(identity: Identity) -> Headers:
    """Who the gateway found the caller to be. Characters that a header cannot carry are percent-encoded."""
    return _consumer(identity.subject, identity.name, identity.roles)


@functools.lru_cache(maxsize=4096)
def consumer_lines(subject: str, name: str, roles: frozenset[str]) -> bytes:
    """The same as it goes over the wire. A caller comes again with another token, and is the same."""
    return lines(_consumer(subject, name, roles))


def _consumer(subject: str, name: str, roles: frozenset[str]) -> Headers:
    return [
        (b"X-Consumer-Id", safe(subject)),
        (b"X-Consumer-Username", safe(name)),
        (b"X-Consumer-Roles", _joined(roles)),
    ]


@functools.lru_cache(maxsize=1024)
def _joined(roles: frozenset[str]) -> bytes:
    return b",".join(safe(role) for role in sorted(roles))


def safe(text: str) -> bytes:
    # Nearly all names; quoting takes twenty times as long as this look.
    if text.isascii() and text.replace(":", "").replace("-", "").isalnum():
        return text.encode()
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe=_SAFE).encode()


def first(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """name: in lower case."""
    return next((value for header, value in headers if header.lower() == name), None)


def cookie(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of one cookie of a request (RFC 6265 section 4.2)."""
    for header, value in headers:
        if header.lower() == b"cookie":
            for pair in value.split(b";"):
                key, _, given = pair.strip().partition(b"=")
                if key == name:
                    return given
    return None


def hash_key(hash_on: str, client_ip: str, fields: Headers) -> bytes | None:
    """What consistent hashing goes by. hash_on: "", "ip", "header:NAME" or "cookie:NAME"."""
    kind, _, name = hash_on.partition(":")
    if kind == "ip":
        return client_ip.encode()
    if kind == "header":
        return first(fields, name.lower().encode())
    if not name:
        return None
    return cookie(fields, name.encode())


def stripped(uri: bytes, segments: int) -> bytes:
    """A request target without its first segments, however each is spelt."""
    if not segments:
        return uri
    path, mark, query = uri.partition(b"?")
    rest = path.split(b"/", segments + 1)[segments + 1 :]
    return b"/" + b"".join(rest) + mark + query
