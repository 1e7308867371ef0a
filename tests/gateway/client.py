"""A client that sends the bytes it is given, and reads the answers strictly."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def eventually(claim: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Within which a busy machine gets to it, too: only what fails waits so long."""
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Client:
    def __init__(self, port: int, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(("127.0.0.1", port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="edge.test")
        except OSError:
            self.socket.close()
            raise
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def answer(self, *, head: bool = False) -> Answer | None:
        """The next answer, None when the connection ended. head: it answers HEAD, so it has no body."""
        try:
            line = self.reader.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (raw := self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = raw.decode("latin-1").partition(":")
            assert name.lower() not in headers or name.lower() == "set-cookie", f"{name} twice"
            headers[name.lower()] = value.strip()
        return Answer(status, headers, b"" if head or status < 200 or status == 204 else self._body(headers))

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.reader.readline(), 16):
                body += self.reader.read(size)
                assert self.reader.readline() == b"\r\n"
            assert self.reader.readline() == b"\r\n", "a trailer leaked"
            return body
        if "content-length" in headers:
            return self.reader.read(int(headers["content-length"]))
        return self.reader.read()

    def ended(self) -> bool:
        """Whether the server closes the connection without another byte."""
        try:
            return self.reader.read(1) == b""
        except ConnectionResetError:
            return True


def request(
    path: str,
    *extra: str,
    method: str = "GET",
    body: bytes = b"",
    key: str | None = "good-key",
    host: str = "edge.test",
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *extra]
    if key is not None:
        lines.append(f"X-API-Key: {key}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
