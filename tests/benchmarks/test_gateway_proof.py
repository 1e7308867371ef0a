from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.gateway import proof
from benchmarks.gateway.load import Outcome
from benchmarks.processes import Broken

Answer = Callable[["Gateway"], tuple[int, str]]


class Gateway(ThreadingHTTPServer):
    """What a gateway under test would answer, and what its upstream would have counted."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked, self.reached = answer, 0, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def settled(self) -> int:
        return self.reached


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Gateway

    def do_GET(self) -> None:
        self.server.asked += 1
        status, text = self.server.answer(self.server)
        self.server.reached += status == 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Callable[[Answer], Gateway]]:
    started = []

    def start(answer: Answer) -> Gateway:
        started.append(Gateway(answer))
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


def outcome(answered: int = 1000, *, refused: int = 0, broken: int = 0) -> Outcome:
    return Outcome(answered, refused, broken, seconds=1.0, p50_us=100.0, p99_us=200.0)


@pytest.mark.parametrize("served", [1000, 1032])
def test_shortfall__all_reached_the_upstream__is_none(served: int) -> None:
    assert proof.shortfall(outcome(), served, connections=32) == ""


@pytest.mark.parametrize(
    ("seen", "served", "reason"),
    [
        (outcome(), 999, "only 999 of them reached"),
        (outcome(), 1033, "1033 reached"),
        (outcome(refused=1), 1000, "1 answers of 400"),
        (outcome(broken=2), 1000, "2 broken connections"),
        (outcome(0), 0, "no request was answered"),
    ],
)
def test_shortfall__answers_that_are_not_the_upstreams__are_told(
    seen: Outcome, served: int, reason: str
) -> None:
    assert reason in proof.shortfall(seen, served, connections=32)


def test_refuses_bad_tokens__401_and_nothing_behind__passes_and_200_does_not(
    gateway: Callable[[Answer], Gateway],
) -> None:
    strict, open_ = gateway(lambda _: (401, "")), gateway(lambda _: (200, ""))
    proof.refuses_bad_tokens(strict.server_port, strict)  # type: ignore[arg-type]
    assert strict.asked == 2
    with pytest.raises(Broken, match="a forged token got 200"):
        proof.refuses_bad_tokens(open_.server_port, open_)  # type: ignore[arg-type]


def test_refuses_bad_tokens__401_but_the_upstream_was_asked__is_broken(
    gateway: Callable[[Answer], Gateway],
) -> None:
    def leaky(server: Gateway) -> tuple[int, str]:
        server.reached += 1
        return 401, ""

    leaking = gateway(leaky)
    with pytest.raises(Broken, match="reached the upstream"):
        proof.refuses_bad_tokens(leaking.server_port, leaking)  # type: ignore[arg-type]


def test_refuses_over_limit__some_pass_and_some_do_not__passes(gateway: Callable[[Answer], Gateway]) -> None:
    limited = gateway(lambda server: (200 if server.asked <= 5 else 429, ""))
    proof.refuses_over_limit(limited.server_port, low=5)


@pytest.mark.parametrize("status", [200, 429, 503])
def test_refuses_over_limit__all_alike__is_broken(gateway: Callable[[Answer], Gateway], status: int) -> None:
    with pytest.raises(Broken, match=f"40 × {status}"):
        proof.refuses_over_limit(gateway(lambda _: (status, "")).server_port, low=5)


def test_balances__every_port_seen__passes_and_one_missing_does_not(
    gateway: Callable[[Answer], Gateway],
) -> None:
    proof.balances(gateway(lambda server: (200, str(server.asked % 3))).server_port)
    with pytest.raises(Broken, match="2 of 3"):
        proof.balances(gateway(lambda server: (200, str(server.asked % 2))).server_port)


def test_serves__answers_other_than_200__are_not_ready_yet(gateway: Callable[[Answer], Gateway]) -> None:
    later = gateway(lambda server: (200 if server.asked > 1 else 503, ""))
    ready = proof.serves(later.server_port)
    assert (ready(), ready()) == (False, True)
