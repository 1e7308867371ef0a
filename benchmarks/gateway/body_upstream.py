"""`python -m benchmarks.gateway.body_upstream PORT`: an upstream for large bodies; the path's last part says what it does.

down: answers with BODY_BYTES. up: reads the body and answers with its size. early: answers at once and never reads the
body. Anything else: a short answer. A thread for each connection; ends with the benchmark.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from typing import BinaryIO

BODY_BYTES = 100 * 1024 * 1024
PIECE_BYTES = 262_144
EARLY_S = 5.0  # how long a connection stays open whose body is not read


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_talk, args=(connection,), daemon=True).start()


def _talk(connection: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as reader:
        while line := reader.readline():
            what = line.split()[1].rpartition(b"/")[2]
            headers = _headers(reader)
            if what == b"early":
                _answer(connection, b"early")
                _wait_for_end(connection)
                return
            size = _read_body(reader, headers)
            if what == b"down":
                _send_large(connection)
            else:
                _answer(connection, b"%d" % size)


def _headers(reader: BinaryIO) -> dict[bytes, bytes]:
    found = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        found[name.strip().lower()] = value.strip()
    return found


def _read_body(reader: BinaryIO, headers: dict[bytes, bytes]) -> int:
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        read = 0
        while size := int(reader.readline(), 16):
            read += _skip(reader, size)
            reader.readline()
        reader.readline()
        return read
    return _skip(reader, int(headers.get(b"content-length", b"0")))


def _skip(reader: BinaryIO, size: int) -> int:
    left = size
    while left:
        piece = reader.read(min(left, PIECE_BYTES))
        if not piece:
            raise ConnectionResetError("the body broke off")
        left -= len(piece)
    return size


def _answer(connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _send_large(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
    piece = bytes(PIECE_BYTES)
    for _ in range(BODY_BYTES // PIECE_BYTES):
        connection.sendall(piece)


def _wait_for_end(connection: socket.socket) -> None:
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    waiting.poll(EARLY_S * 1000)


if __name__ == "__main__":
    serve(socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256))
