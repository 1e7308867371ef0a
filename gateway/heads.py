"""The heads of a request and of its response while they pass through: what edits and plugins read and change.

Bytes are as they go over the wire. Where a text is asked for, UTF-8 is read first and Latin-1 otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

Headers = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class RequestHead:
    """A request as its target will see it. path: as it goes over the wire, without the query. params: what stood in
    the places of the route's placeholders, decoded. consumer_name, consumer_id: "" when nobody signed in."""

    __slots__ = (
        "client_ip", "consumer_id", "consumer_name", "headers", "method", "params", "path", "query", "request_id",
    )  # fmt: skip

    def __init__(
        self,
        method: str = "GET",
        path: bytes = b"/",
        query: bytes = b"",
        headers: Headers | None = None,
        params: Mapping[str, str] | None = None,
        client_ip: str = "",
        request_id: str = "",
        consumer_name: str = "",
        consumer_id: str = "",
    ) -> None:
        self.method, self.path, self.query = method, path, query
        self.headers: Headers = [] if headers is None else headers
        self.params: Mapping[str, str] = {} if params is None else params
        self.client_ip, self.request_id = client_ip, request_id
        self.consumer_name, self.consumer_id = consumer_name, consumer_id

    def header(self, name: str) -> str | None:
        """All values of that name, joined by ", "."""
        return joined(self.headers, name.lower().encode())

    def set_header(self, name: str, value: str) -> None:
        """In place of any of that name. Raises ValueError for what a header cannot carry."""
        self.headers[:] = replaced(self.headers, name, value)

    def remove_header(self, name: str) -> None:
        self.headers[:] = without(self.headers, frozenset((name.lower().encode(),)))

    def query_value(self, name: str) -> str | None:
        """The first parameter of that name, decoded."""
        wanted = name.encode()
        for pair in self.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if form_decoded(key) == wanted:
                return text_of(form_decoded(value))
        return None


class ResponseHead:
    """A response as the client will see it. untouched: why its body was left as it was, "" when it was not."""

    __slots__ = ("headers", "status", "untouched")

    def __init__(self, status: int = 200, headers: Headers | None = None) -> None:
        self.status = status
        self.headers: Headers = [] if headers is None else headers
        self.untouched = ""

    def header(self, name: str) -> str | None:
        """All values of that name, joined by ", "."""
        return joined(self.headers, name.lower().encode())

    def set_header(self, name: str, value: str) -> None:
        """In place of any of that name. Raises ValueError for what a header cannot carry."""
        self.headers[:] = replaced(self.headers, name, value)

    def remove_header(self, name: str) -> None:
        self.headers[:] = without(self.headers, frozenset((name.lower().encode(),)))


def joined(headers: Headers, lower: bytes) -> str | None:
    values = [value for name, value in headers if name.lower() == lower]
    return text_of(b", ".join(values)) if values else None


def without(headers: Headers, lower: frozenset[bytes]) -> Headers:
    return [pair for pair in headers if pair[0].lower() not in lower]


def replaced(headers: Headers, name: str, value: str) -> Headers:
    pair = (name.encode("latin-1", "replace"), value.encode())
    if not is_sound(pair):
        raise ValueError(f"{name!r} is not a header's name, or its value holds a control character")
    return [*without(headers, frozenset((pair[0].lower(),))), pair]


def is_sound(pair: object) -> bool:
    """Whether a header can be sent without becoming two (RFC 9110 section 5.5)."""
    if type(pair) is not tuple or len(pair) != 2:
        return False
    name, value = pair
    if type(name) is not bytes or type(value) is not bytes:
        return False
    return _NAME.fullmatch(name) is not None and _CONTROL.search(value) is None


def form_decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
