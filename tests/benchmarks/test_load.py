from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import burst
from benchmarks.processes import Broken


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]] = []

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.seen.append((self.command, self.headers["X-API-Key"], body))
        self.send_response(429 if self.path == "/refused" else 200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", "2")
        if self.path == "/closing":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Answers.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/plain", "/chunked", "/closing"])
def test_burst__each_form_of_answer__sends_exactly_the_count(url: str, path: str) -> None:
    done = burst("GET", url + path, count=20, connections=4, key="k", expect=200)
    assert done.statuses == {200: 20}
    assert done.per_second > 0
    assert [seen[:2] for seen in Answers.seen] == [("GET", "k")] * 20


def test_burst__post__carries_the_body(url: str) -> None:
    burst("POST", f"{url}/plain", count=3, connections=1, key="k", body=b'{"a": 1}', expect=200)
    assert [seen[2] for seen in Answers.seen] == [b'{"a": 1}'] * 3


def test_burst__other_status__is_no_figure(url: str) -> None:
    with pytest.raises(Broken, match="429"):
        burst("GET", f"{url}/refused", count=2, connections=1, key="k", expect=200)
