"""A real HTTP server on this host that takes webhooks, and answers as its script says."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found


class Receiver:
    """answers: statuses, the next request takes the first; 200 when none is left; "hang": none until `close`.

    refuses: a text → the status for the requests whose body has it. headers: of every answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[int | str] = []
        self.refuses: dict[str, int] = {}
        self.headers: dict[str, str] = {}
        self.received: list[Received] = []
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # a handshake that the client ends
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self._server.server_port}/hook/secret-path?token=secret"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, body: str) -> int | str:
        refused = next((status for text, status in self.refuses.items() if text in body), None)
        if refused is not None:
            return refused
        return self.answers.pop(0) if self.answers else 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(Received(self.path, dict(self.headers), raw))
                answer = outer._answer(raw.decode())
                if answer == "drip":
                    with contextlib.suppress(OSError):
                        while not outer._released.wait(0.05):
                            self.wfile.write(b"H")
                    return
                if answer == "hang":
                    outer._released.wait(30)
                    return
                self.send_response(int(answer))
                if 300 <= int(answer) < 400:
                    self.send_header("Location", outer.url)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Not to the tests' output."""

        return Handler


@contextlib.contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    one = Receiver(tls)
    try:
        yield one
    finally:
        one.close()
