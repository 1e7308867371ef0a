"""Headers on their way through: hop-by-hop ones end here (RFC 9110 section 7.6.1), what the client may not
claim is taken off, and what the gateway knows is put on. Header lists are (name, value) pairs of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from .auth import Identity

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
# What `Connection: X` cannot take off: without these a message means something else.
_END_TO_END = frozenset(
    b"host content-length content-type content-encoding content-range authorization cookie set-cookie range"
    b" cache-control location www-authenticate retry-after date".split()
)
# Nobody but the gateway says these to an upstream; Expect is answered at the edge.
_OURS_TO_UPSTREAM = frozenset(b"host expect forwarded x-real-ip x-request-id via".split())
_OUR_PREFIXES = (b"x-forwarded-", b"x-consumer-")
_OURS_TO_CLIENT = frozenset(b"x-request-id x-upstream".split())
_LIMITS = frozenset((b"ratelimit", b"ratelimit-policy"))

VISIBLE = bytes(range(0x21, 0x7F))
_SAFE = "".join(chr(c) for c in VISIBLE if chr(c) not in '%,;"\\')


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came in. host: the client's Host header."""

    client_ip: bytes
    scheme: bytes
    host: bytes
    request_id: bytes


def to_upstream(
    headers: Iterable[tuple[bytes, bytes]],
    arrival: Arrival,
    *,
    host: bytes,
    identity: Identity | None,
    api_key_header: bytes,
    hide_authorization: bool,
) -> Headers:
    """The request's headers for the upstream, framing (Content-Length) included as it came.

    host: the target's own. api_key_header: in lower case, never passed on. Names with an underscore are
    dropped: a CGI or WSGI upstream could not tell `X_Consumer_Id` from `X-Consumer-Id`.
    """
    headers = list(headers)
    drop = _dropped(headers) | _OURS_TO_UPSTREAM | {api_key_header}
    if hide_authorization:
        drop |= {b"authorization"}
    sent = [(b"Host", host)]
    via = b"1.1 brain"
    for name, value in headers:
        lower = name.lower()
        if lower == b"via":
            via = value + b", " + via
        if lower not in drop and b"_" not in lower and not lower.startswith(_OUR_PREFIXES):
            sent.append((name, value))
    sent += [
        (b"X-Forwarded-For", arrival.client_ip),
        (b"X-Forwarded-Host", arrival.host),
        (b"X-Forwarded-Proto", arrival.scheme),
        (b"X-Request-Id", arrival.request_id),
        (b"Via", via),
    ]
    if identity is not None:
        sent += consumer_headers(identity)
    return sent


def consumer_headers(identity: Identity) -> Headers:
    """Who the gateway found the caller to be. Characters that a header cannot carry are percent-encoded."""
    return [
        (b"X-Consumer-Id", header_safe(identity.subject)),
        (b"X-Consumer-Username", header_safe(identity.name)),
        (b"X-Consumer-Roles", b",".join(header_safe(role) for role in sorted(identity.roles))),
    ]


def to_client(headers: Iterable[tuple[bytes, bytes]], ours: Headers) -> Headers:
    """The upstream's headers for the client, then ours: X-Request-Id, X-Upstream and, where limits apply,
    RateLimit."""
    headers = list(headers)
    drop = _dropped(headers) | _OURS_TO_CLIENT
    if any(name.lower() in _LIMITS for name, _ in ours):
        drop |= _LIMITS
    return [(name, value) for name, value in headers if name.lower() not in drop] + ours


def header_safe(text: str) -> bytes:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe=_SAFE).encode()


def _dropped(headers: Headers) -> frozenset[bytes]:
    named = [value for name, value in headers if name.lower() == b"connection"]
    if not named:
        return HOP_BY_HOP
    tokens = {token.strip().lower() for value in named for token in value.split(b",")}
    return HOP_BY_HOP | (tokens - _END_TO_END)
