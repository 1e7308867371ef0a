"""An upstream for tests: echoes what it got as JSON, and misbehaves as the last segment of the path tells it
to."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from typing import BinaryIO

COOKIES = (b"a=1; Path=/; Priority=High", b"a=2; Path=/p", b"b=x y; HttpOnly", b"c@d=1; Secure; Partitioned")
BIG_BYTES = 32 * 1024 * 1024


class OddUpstream:
    """One thread a connection. `seen`: what happened from this side, in order; `requests`: heads read; `at_work`: threads
    with a request, which may have something to say about it yet."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self.listener = listener or socket.create_server(("127.0.0.1", 0), backlog=128)
        address = self.listener.getsockname()
        self.port: int = address[1] if isinstance(address, tuple) else 0
        self.name = f"127.0.0.1:{self.port}"
        self.seen: list[str] = []
        self.requests = self.connections = 0
        self.release = threading.Event()  # ends whatever waits
        self.go = threading.Event()  # lets `events` go on
        self.at_work: set[threading.Thread] = set()
        self._open: list[socket.socket] = []
        self._grave: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """Refuses connections from now on. Its port stays ours: else another process may get it, and answer."""
        self.close()
        self._grave = socket.socket()
        self._grave.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._grave.bind(("127.0.0.1", self.port))

    def close(self) -> None:
        if self._grave is not None:
            self._grave.close()
        self.release.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves a blocked accept() listening
        self.listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def drop_connections(self) -> None:
        """As a server does with those that it finds idle."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        thread = threading.current_thread()
        try:
            with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as reader:
                while line := reader.readline():
                    self.at_work.add(thread)
                    self.requests += 1
                    if not self._served(line, reader, connection):
                        return
                    self.at_work.discard(thread)
        finally:
            self.at_work.discard(thread)

    def _served(self, line: bytes, reader: BinaryIO, connection: socket.socket) -> bool:
        """Whether the connection may carry another request."""
        method, target, _ = line.split()
        headers = _headers(reader)
        what = target.partition(b"?")[0].rpartition(b"/")[2].decode()
        if self._misbehaved(what, connection):
            return False
        received = self._read_body(reader, headers)
        return received is not None and self._answered(what, method, target, headers, received, connection)

    def _wait(self, connection: socket.socket) -> None:
        """Until the other side has left, or we."""
        gone = select.poll()
        gone.register(connection, select.POLLRDHUP)  # it hears of resets and of close() in any case
        gone.poll(60_000)

    def _misbehaved(self, what: str, connection: socket.socket) -> bool:
        """Things done before the request's body is read; the connection ends after them."""
        if what == "early":
            connection.sendall(b"HTTP/1.1 413 Big\r\nContent-Length: 5\r\n\r\nearly")
            self.release.wait(0.2)
            while connection.recv(65_536):  # closing with unread input would reset it, answer and all
                pass
        elif what == "die" or (what == "die-once" and "die-once" not in self.seen):
            self.seen.append(what)
        elif what == "hang" or what == "deaf":
            self._wait(connection)
        elif what == "garbage":
            connection.sendall(b"NOT HTTP\r\n\r\n")
        elif what == "double-length":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
        elif what == "endless-length":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nabcd")
        elif what == "odd-coding":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd")
        elif what == "drip":
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nX-Drip: ")
            while not self.release.wait(0.05):
                connection.sendall(b"y")
        elif what == "endless-head":
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"y" * 200_000)
            self._wait(connection)
        else:
            return False
        return True

    def _read_body(self, reader: BinaryIO, headers: dict[str, list[str]]) -> tuple[int, int] | None:
        """(bytes, checksum), None when the request was cut off."""
        count = total = 0
        try:
            if "transfer-encoding" in headers:
                while size := int(reader.readline(), 16):
                    piece = reader.read(size)
                    count, total = count + len(piece), total + sum(piece)
                    reader.readline()
                while (line := reader.readline()) not in (b"\r\n", b""):
                    self.seen.append(line.decode().strip())
                return count, total
            left = int(headers.get("content-length", ["0"])[0])
            while left:
                piece = reader.read(min(left, 262_144))
                if not piece:
                    raise ValueError("cut")
                left, count = left - len(piece), count + len(piece)
                total += sum(piece) if count < 1_000_000 else 0
        except (ValueError, OSError):
            self.seen.append("cut")
            return None
        return count, total

    def _answered(
        self, what: str, method: bytes, target: bytes, headers: dict[str, list[str]], received: tuple[int, int],
        connection: socket.socket,
    ) -> bool:  # fmt: skip
        """Whether the connection may carry another request."""
        echo = {
            "method": method.decode(),
            "target": target.decode(),
            "bytes": received[0],
            "sum": received[1],
        }
        body = json.dumps(echo | {"headers": headers, "port": self.port}).encode()
        send = connection.sendall
        if what == "chunked":
            send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n")
            for i in range(0, len(body), 7):
                send(b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]))
            send(b"0\r\nT: x\r\n\r\n")
        elif what == "trailers":
            self.seen.append(f"trailers {headers.get('te')}")
            send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n2\r\nok\r\n0\r\n"
            )
            send(b"X-Sum: 7\r\nSet-Cookie: evil=1\r\n\r\n")
        elif what == "events":
            return self._tell(connection)
        elif what == "websocket":
            return self._mirror(connection)
        elif what == "json":
            sent = json.dumps({"id": 10**20, "price": 1.10, "secret": "s", "caller": "?"}).encode()
            send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent)
                + sent
            )
        elif what == "close":
            send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            return False
        elif what == "interim":
            send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif what == "nothing":
            send(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif what in ("half", "half-json", "stall", "stall-json"):
            kind = b"Content-Type: application/json\r\n" if what.endswith("-json") else b""
            send(b"HTTP/1.1 200 OK\r\n%bContent-Length: 100\r\n\r\nhalf" % kind)
            if what.startswith("stall"):
                self._wait(connection)
            return False
        elif what == "excess":
            send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
            )
        elif what.startswith("status-"):
            send(b"HTTP/1.1 %b Odd\r\nContent-Length: 3\r\n\r\nodd" % what[7:].encode())
        elif what == "busy":
            send(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
        elif what == "hop":
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n")
            send(
                b"Keep-Alive: timeout=5\r\nX-Upstream: lie\r\nX-Request-Id: lie\r\nSet-Cookie: a=1\r\n\r\nok"
            )
        elif what == "cookies":
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
            send(b"".join(b"Set-Cookie: %b\r\n" % cookie for cookie in COOKIES) + b"\r\nok")
        elif what == "big":
            return self._pour(connection)
        else:
            head = b"" if method == b"HEAD" else body
            send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                + head
            )
        return True

    def _tell(self, connection: socket.socket) -> bool:
        """Server-sent events, the next one only when `go` says so."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            connection.sendall(b"data: %d\n\n" % number)
            while not self.go.wait(0.05):
                if self.release.is_set():
                    return False
            self.go.clear()
        return False

    def _mirror(self, connection: socket.socket) -> bool:
        """A WebSocket as far as a gateway sees one: what comes goes back."""
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        connection.sendall(b"Sec-WebSocket-Accept: x\r\n\r\nhello")
        while piece := connection.recv(65536):
            connection.sendall(piece)
        self.seen.append("websocket closed")
        return False

    def _pour(self, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG_BYTES)
        try:
            for _ in range(BIG_BYTES // 262_144):
                connection.sendall(b"y" * 262_144)
        except OSError:
            self.seen.append("big cut")
            return False
        return True


def _headers(reader: BinaryIO) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


@contextlib.contextmanager
def running(count: int = 1) -> Iterator[list[OddUpstream]]:
    upstreams = [OddUpstream() for _ in range(count)]
    try:
        yield upstreams
    finally:
        for upstream in upstreams:
            upstream.close()
