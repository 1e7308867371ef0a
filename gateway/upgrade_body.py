"""The body of a request that asks for another protocol: the parser passes over it, although nobody may switch before it has
come (RFC 9110 section 7.8). A target that was told of its length and never saw it would take the next request for it.
Java's HttpClient asks for h2c with every body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from .edge import Edge
    from .exchange import Exchange


class UpgradeBody:
    """parser: reads what is left of the connection's input, and tells the edge as its own would."""

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
