"""Connections to targets for blocking callers: the request goes out in one piece with its head written by us, the response
comes in through the parser that the edge uses. A third of what urllib3 costs."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Protocol

import httptools

from .calls import Route, UpstreamFailed
from .dial import Dial
from .errors import BadRequest
from .headers import CODING, LENGTH, LONGEST, OF_RESPONSES, Headers
from .pool import Target
from .upstream import BODILESS, MAX_HEAD_BYTES

CONNECTIONS = 64  # kept for each target
PIECE_BYTES = 65536


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Connection:
    """One keep-alive connection. Used by one thread at a time."""

    __slots__ = (
        "_chunks", "_complete", "_excess", "_head_done", "_headers", "_keep", "_parser", "_socket", "idle_since",
        "status", "used",
    )  # fmt: skip

    def __init__(self, dial: Dial, timeout_s: float) -> None:
        """Raises OSError."""
        self._socket = _connected(dial, timeout_s)
        self.idle_since = 0.0
        self.used = 0
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self.status = 0
        self._head_done = self._complete = self._excess = self._keep = False

    def is_usable(self, oldest: float) -> bool:
        """Not closed by the target, nothing unasked in it, and not idle since before `oldest` (monotonic)."""
        if self.idle_since <= oldest:
            return False
        poll = select.poll()  # select() takes no descriptor above 1,023
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(
                socket.SHUT_RDWR
            )  # wakes a thread that waits in recv(), which close() does not
        self._socket.close()

    def __del__(self) -> None:  # idle ones of a target that has left the configuration
        if hasattr(self, "_socket"):
            self._socket.close()

    def send(
        self, head: bytes, body: Readable | bytes | None, size_bytes: int, timeout_s: float, deadline: float
    ) -> None:
        """body: read up to size_bytes. timeout_s: for each piece. Raises OSError, and BadRequest when the client broke off."""
        self.used += 1
        if isinstance(body, bytes) or body is None:
            self._wait_until(min(time.monotonic() + timeout_s, deadline))
            self._socket.sendall(head + (body or b""))
            return
        piece, left = head, size_bytes
        while True:
            self._wait_until(min(time.monotonic() + timeout_s, deadline))
            self._socket.sendall(piece)
            if left <= 0:
                return
            piece = _read(body, min(left, PIECE_BYTES))
            left -= len(piece)

    def receive_head(self, ends_at: float) -> Headers:
        """Sets `status`. All of it has to be there by ends_at (monotonic): a target may not drip. Raises OSError, or ValueError
        for what is no response that could be passed on."""
        taken = 0
        while not self._head_done:
            self._wait_until(ends_at)
            data = self._socket.recv(PIECE_BYTES)
            if not data:
                raise ConnectionResetError
            taken += len(data)
            self._feed(data)
            if not self._head_done and taken > MAX_HEAD_BYTES:
                raise ValueError("upstream_head_too_large")
        return self._headers

    def _wait_until(self, ends_at: float) -> None:
        left_s = ends_at - time.monotonic()
        if left_s <= 0.0:
            raise TimeoutError
        self._socket.settimeout(left_s)

    def pieces(self, method: str, timeout_s: float, deadline: float) -> Iterator[bytes]:
        """The body, as it comes. timeout_s: between two pieces. Raises OSError or ValueError when it breaks off."""
        if method == "HEAD" or self.status in BODILESS:
            self._complete = True
            return
        while True:
            chunks, self._chunks = self._chunks, []
            yield from chunks
            if self._complete:
                return
            self._wait_until(min(time.monotonic() + timeout_s, deadline))
            data = self._socket.recv(PIECE_BYTES)
            if data:
                self._feed(data)
            elif self._ends_with_connection():
                return
            else:
                raise ConnectionResetError

    def finish(self, method: str) -> bool:
        """Whether it may carry another request, once the body has been read to its end."""
        keep = self._complete and self._keep and not self._excess
        if keep:
            self._renew()
            self.idle_since = time.monotonic()
        return keep

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        self._keep = False
        return not names & {b"content-length", b"transfer-encoding"}

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                raise ValueError("upstream_malformed") from error
            self._excess = True

    # --- httptools ---

    def on_message_begin(self) -> None:
        if self._complete:  # more than one answer: the first is good, the connection is not
            self._excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else a trailer, which this door does not pass on
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError("an upgrade that nobody asked for")
            self._headers = []
            return
        codings = [value for name, value in self._headers if OF_RESPONSES[name] == CODING]
        # A tab after it is no part of it, but the parser would not read it as chunked.
        if codings and [value.strip(b" ").lower() for value in codings] != [b"chunked"]:
            raise ValueError("a transfer coding that could not be passed on")
        if any(int(value) > LONGEST for name, value in self._headers if OF_RESPONSES[name] == LENGTH):
            raise ValueError("no body is as long as that")
        self.status, self._head_done = status, True
        self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True


class Response:
    """headers: as they came. `pieces` once, then `release`; `close` at any time instead. deadline: when all of it has to be
    over (monotonic)."""

    __slots__ = ("_connection", "_method", "_target", "_timeout_s", "deadline", "headers", "status")

    def __init__(
        self, connection: Connection, target: Target, method: str, headers: Headers, timeout_s: float, deadline: float
    ) -> None:  # fmt: skip
        self._connection, self._target, self._method, self._timeout_s = connection, target, method, timeout_s
        self.status, self.headers, self.deadline = connection.status, headers, deadline

    def pieces(self) -> Iterator[bytes]:
        """Raises OSError or ValueError when the target breaks off."""
        return self._connection.pieces(self._method, self._timeout_s, self.deadline)

    def release(self) -> None:
        """The body has been read to its end, or there is none."""
        connection, kept = self._connection, self._target.idle
        if self._method == "HEAD" or self.status in BODILESS:
            for _ in self.pieces():
                pass
        if (
            self._method != "HEAD"
            and connection.finish(self._method)
            and len(kept) < CONNECTIONS
            and not self._target.retired
        ):
            kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        self._connection.close()


def send(
    target: Target, route: Route, method: str, uri: bytes, headers: Headers, body: Any, size_bytes: int, *, left_s: float,
    idle_s: float, replayable: bool,
) -> Response:  # fmt: skip
    """body: None, bytes or a file. left_s: seconds until the whole call has to be over. idle_s: as UPSTREAM_IDLE_S. Raises
    UpstreamFailed, and BadRequest when the client broke off."""
    deadline = time.monotonic() + left_s
    connection = _idle(target, time.monotonic() - idle_s) or _new(
        target, min(route.connect_timeout_s, left_s)
    )
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (
        method.encode(),
        uri,
        b"".join(b"%b: %b\r\n" % pair for pair in headers),
    )
    try:
        connection.send(head, body, size_bytes, route.response_timeout_s, deadline)
        received = connection.receive_head(min(time.monotonic() + route.response_timeout_s, deadline))
    except BadRequest:
        connection.close()
        raise
    except TimeoutError as error:
        connection.close()
        code = "total_timeout" if time.monotonic() >= deadline else "response_timeout"
        raise UpstreamFailed(code, timed_out=True) from error
    except OSError as error:
        connection.close()
        stale = connection.used > 1
        raise UpstreamFailed("upstream_closed", stale=stale, replayable=replayable) from error
    except ValueError as error:
        connection.close()
        code = str(error) if str(error).startswith("upstream_") else "upstream_malformed"
        raise UpstreamFailed(code, replayable=replayable) from error
    return Response(connection, target, method, received, route.idle_timeout_s, deadline)


def _read(body: Readable, size_bytes: int) -> bytes:
    """Whoever does not send what it announced is at fault, and not the target."""
    try:
        piece = body.read(size_bytes)
    except OSError as error:  # Django's UnreadablePostError is one
        raise BadRequest("body_incomplete", "The request's body could not be read.") from error
    if not piece:
        raise BadRequest("body_incomplete", "The request's body is shorter than its Content-Length.")
    return piece


def _idle(target: Target, oldest: float) -> Connection | None:
    while target.idle:
        try:
            connection: Connection = target.idle.pop()
        except IndexError:  # another thread was quicker
            return None
        if connection.is_usable(oldest):
            return connection
        connection.close()
    return None


def _new(target: Target, timeout_s: float) -> Connection:
    try:
        return Connection(target.dial, timeout_s)
    except TimeoutError as error:
        raise UpstreamFailed("connect_timeout", written=False) from error
    except OSError as error:
        is_tls = type(error).__module__ == "ssl"
        raise UpstreamFailed("tls_failed" if is_tls else "connect_failed", written=False) from error


def _connected(dial: Dial, timeout_s: float) -> socket.socket:
    if isinstance(dial.address, str):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(timeout_s)
        try:
            made.connect(dial.address)
        except OSError:
            made.close()
            raise
        return made
    made = socket.create_connection(dial.address, timeout_s)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if dial.tls is None:
        return made
    try:
        return dial.tls.wrap_socket(made, server_hostname=dial.server_name or None)
    except OSError:
        made.close()
        raise
