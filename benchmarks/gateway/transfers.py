"""A client that sends and receives large bodies with no regard for the other side's pace."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

from benchmarks.processes import Broken

from .body_upstream import BODY_BYTES, PIECE_BYTES

TIMEOUT_S = 60.0  # for a whole transfer
UNREAD_S = 3.0  # how long an answered client goes on pushing its body


def down(port: int, path: str, token: str, *, pause_s: float = 0.0) -> None:
    """Raises Broken unless the whole body came. pause_s: between the request and the first look at the answer."""
    with _connected(port) as connection:
        connection.sendall(_head("GET", path, token))
        time.sleep(pause_s)
        head, received = _read_head(connection)
        if (
            not head.startswith(b"HTTP/1.1 200")
            or f"content-length: {BODY_BYTES}" not in head.decode().lower()
        ):
            raise Broken(f"GET {path}: {head[:200]!r}")
        while received < BODY_BYTES:
            piece = connection.recv(PIECE_BYTES)
            if not piece:
                raise Broken(f"GET {path}: {received} of {BODY_BYTES} bytes came")
            received += len(piece)


def up(port: int, path: str, token: str) -> None:
    """Raises Broken unless the upstream says that it read the whole body."""
    with _connected(port) as connection:
        connection.sendall(_head("POST", path, token, BODY_BYTES))
        piece = bytes(PIECE_BYTES)
        for _ in range(BODY_BYTES // PIECE_BYTES):
            connection.sendall(piece)
        answer = connection.recv(65536)
        while not answer.endswith(b"%d" % BODY_BYTES):
            more = connection.recv(65536)
            if not more:
                raise Broken(f"POST {path}: {answer[-200:]!r}")
            answer += more


def up_answered_early(port: int, path: str, token: str) -> int:
    """How many bytes of the body the gateway took. The client pushes for a while after it was answered.

    Raises Broken unless the upstream's answer came.
    """
    connection = _connected(port)
    piece, sent, answer, stop_at = bytes(PIECE_BYTES), 0, b"", time.monotonic() + TIMEOUT_S
    with connection, selectors.DefaultSelector() as ready:
        connection.sendall(_head("POST", path, token, BODY_BYTES))
        connection.setblocking(False)
        ready.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        with contextlib.suppress(ConnectionError):  # the gateway may end what it does not want to read
            while sent < BODY_BYTES and time.monotonic() < stop_at:
                for _, events in ready.select(0.1):
                    if events & selectors.EVENT_READ:
                        received = connection.recv(65536)
                        if not received:
                            raise ConnectionResetError
                        if not answer:
                            stop_at = time.monotonic() + UNREAD_S
                        answer += received
                    if events & selectors.EVENT_WRITE:
                        sent += connection.send(piece)
    if not (answer.startswith(b"HTTP/1.1 200") and b"early" in answer):
        raise Broken(f"POST {path}: the early answer did not come: {answer[:100]!r}")
    return sent


def idle(port: int, path: str, token: str, count: int) -> list[socket.socket]:
    """Connections that have each had an answer and stay open; the caller closes them."""
    opened = []
    for _ in range(count):
        connection = _connected(port)
        opened.append(connection)
        connection.sendall(_head("GET", path, token))
        head, _ = _read_head(connection)
        if not head.startswith(b"HTTP/1.1 200"):
            raise Broken(f"GET {path} on connection {len(opened)}: {head[:30]!r}")
    return opened


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def _head(method: str, path: str, token: str, size: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}"]
    if size is not None:
        lines.append(f"Content-Length: {size}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read_head(connection: socket.socket) -> tuple[bytes, int]:
    """The head, and how much of the body came with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            raise Broken(f"the connection ended in {received[:100]!r}")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, len(rest)
