"""A target that lies: raw bytes in place of answers, chosen by the last segment of the path."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CUT, WHOLE = "cut", "whole"
MALFORMED, CLOSED = "502 upstream_malformed", "502 upstream_closed"
TOO_LARGE, LATE = "502 upstream_head_too_large", "504 response_timeout"
_OK = b"HTTP/1.1 200 OK\r\n"
_EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_STAY_S = 8.0


@dataclass(frozen=True, slots=True)
class Lie:
    """says: what is sent, in pieces, one every pause_s. then: "close", "reset" or "stay". truth: what the client is told at
    the end, one of them; CUT: its connection is cut in an answer that had begun. alone: what comes too late would be taken
    for the answer to the next request, if there was one by then."""

    says: Iterable[bytes]
    truth: tuple[str, ...]
    then: str = "close"
    pause_s: float = 0.0
    method: str = "GET"
    body_bytes: int = 0
    alone: bool = False


def _head(*lines: bytes) -> tuple[bytes, ...]:
    return (
        b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 2\r\n\r\nok",
    )


class Endless:
    """The same piece, for as long as somebody takes it."""

    def __init__(self, first: bytes, piece: bytes) -> None:
        self._first, self._piece = first, piece

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain((self._first,), itertools.repeat(self._piece))


LIES = {
    # --- about the length
    "length-too-long": Lie((_OK + b"Content-Length: 100\r\n\r\nhalf",), (CUT,)),
    "length-too-long-and-stays": Lie((_OK + b"Content-Length: 100\r\n\r\nhalf",), (CUT,), "stay"),
    "length-too-short": Lie((_OK + b"Content-Length: 2\r\n\r\nok" + b"EVIL" * 10,), (WHOLE,), "stay"),
    "length-too-short-late": Lie((_OK + b"Content-Length: 2\r\n\r\nok", _EVIL), (WHOLE,), "stay", 0.05, alone=True),
    "two-answers": Lie((_OK + b"Content-Length: 2\r\n\r\nok" + _EVIL,), (WHOLE,), "stay"),
    "two-lengths": Lie((_OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",), (MALFORMED,), "stay"),
    "length-and-chunked": Lie((_OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",), (MALFORMED,), "stay"),
    "length-negative": Lie((_OK + b"Content-Length: -1\r\n\r\nok",), (MALFORMED,), "stay"),
    "length-no-number": Lie((_OK + b"Content-Length: 2x\r\n\r\nok",), (MALFORMED,), "stay"),
    "length-overflow": Lie((_OK + b"Content-Length: 18446744073709551618\r\n\r\nok",), (MALFORMED,), "stay"),
    # --- about the end
    "closed-before-the-head": Lie((), (CLOSED,)),
    "reset-before-the-head": Lie((), (CLOSED,), "reset"),
    "half-a-head": Lie((b"HTTP/1.1 200 OK\r\nContent-Le",), (CLOSED,)),
    "reset-in-the-body": Lie((_OK + b"Content-Length: 100000\r\n\r\n", b"x" * 5000), (CUT,), "reset", 0.02),
    "closed-in-the-body": Lie((_OK + b"Content-Length: 100000\r\n\r\n", b"x" * 5000), (CUT,), "close", 0.02),
    "chunks-without-end": Lie((_CHUNKED + b"2\r\nok\r\n",), (CUT,)),
    "early-and-reset": Lie((b"HTTP/1.1 413 Too Big\r\nContent-Length: 3\r\n\r\nbig",), (WHOLE, CLOSED), "close", 0.0, "POST", 300_000),
    # --- about the head
    "garbage": Lie((bytes(range(256)),), (MALFORMED,), "stay"),
    "tls": Lie((b"\x15\x03\x01\x00\x02\x02\x46",), (MALFORMED,), "stay"),
    "no-http": Lie((b"NOT HTTP\r\n\r\n",), (MALFORMED,), "stay"),
    "http-9": Lie((b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok",), (MALFORMED,), "stay"),
    "status-2": Lie((b"HTTP/1.1 2 OK\r\nContent-Length: 2\r\n\r\nok",), (MALFORMED,), "stay"),
    "status-1000": Lie((b"HTTP/1.1 1000 OK\r\nContent-Length: 2\r\n\r\nok",), (MALFORMED,), "stay"),
    "status-none": Lie((b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",), (MALFORMED,), "stay"),
    "no-colon": Lie(_head(b"Header"), (MALFORMED,), "stay"),
    "no-name": Lie(_head(b": value"), (MALFORMED,), "stay"),
    "space-before-colon": Lie(_head(b"X-Space : value"), (MALFORMED,), "stay"),
    "space-in-name": Lie(_head(b"X Space: value"), (MALFORMED,), "stay"),
    "nul-in-value": Lie(_head(b"X-Nul: a\0b"), (MALFORMED,), "stay"),
    "cr-in-value": Lie(_head(b"X-Cr: a\rSet-Cookie: evil=1"), (MALFORMED,), "stay"),
    "control-in-value": Lie(_head(b"X-Control: a\x01b"), (MALFORMED,), "stay"),
    "folded": Lie(_head(b"X-Folded: a", b" b"), (MALFORMED, WHOLE), "stay"),
    "coding-unknown": Lie((_OK + b"Transfer-Encoding: gzip\r\n\r\nok",), (MALFORMED,)),
    "coding-twice": Lie((_OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",), (MALFORMED,), "stay"),
    "upgrade-unasked": Lie((b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",), (MALFORMED,), "stay"),
    "endless-header": Lie(Endless(_OK + b"X-Filler: ", b"y" * 8192), (TOO_LARGE,)),
    "endless-headers": Lie(Endless(_OK, b"X-Filler: yyyyyyyyyyyyyyyyyyyy\r\n" * 100), (TOO_LARGE,)),
    "endless-reason": Lie(Endless(b"HTTP/1.1 200 ", b"y" * 8192), (TOO_LARGE,)),
    # --- about the time
    "interim-flood": Lie(Endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100), (TOO_LARGE,)),
    "interim-drip": Lie(Endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), (LATE,), "stay", 0.2),
    "head-drip": Lie(Endless(_OK + b"X-Drip: ", b"y"), (LATE,), "stay", 0.2),
    "silence": Lie((), (LATE,), "stay"),
    # --- about the chunks
    "chunk-size-no-number": Lie((_CHUNKED, b"zz\r\nok\r\n"), (CUT,), "stay", 0.02),
    "chunk-size-negative": Lie((_CHUNKED, b"-2\r\nok\r\n"), (CUT,), "stay", 0.02),
    "chunk-size-overflow": Lie((_CHUNKED, b"fffffffffffffffff\r\nok\r\n"), (CUT,), "stay", 0.02),
    "chunk-too-long": Lie((_CHUNKED, b"2\r\nokEVIL\r\n0\r\n\r\n"), (CUT,), "stay", 0.02),
    "chunk-error-at-once": Lie((_CHUNKED + b"zz\r\nok\r\n",), (CUT, MALFORMED), "stay"),
    "trailer-malformed": Lie((_CHUNKED, b"2\r\nok\r\n0\r\nNo Colon\r\n\r\n"), (CUT,), "stay", 0.02),
    # --- about having no body
    "head-with-a-body": Lie((_OK + b"Content-Length: 4\r\n\r\nEVIL",), (WHOLE,), "stay", 0.0, "HEAD"),
    "204-with-a-body": Lie((b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL",), (WHOLE,), "stay"),
    "304-with-a-body": Lie((b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL",), (WHOLE,), "stay"),
}  # fmt: skip


class Liar:
    """One thread a connection. On each it answers one request, or as many as come where it stays."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(_STAY_S)
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    received += piece
                lie = LIES[received.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()]
                received = b""
                if not _told(connection, lie):
                    return


def _told(connection: socket.socket, lie: Lie) -> bool:
    """Whether the connection stays."""
    for piece in lie.says:
        connection.sendall(piece)
        time.sleep(lie.pause_s)
    if lie.then == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return lie.then == "stay"
