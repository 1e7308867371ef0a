"""Faults in the middle of things: each of these once hung a target, broke an answer or stopped a worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import bucket, edits, forwarding, hooks, overdue, stale
from gateway.edge import Edge
from gateway.transforming import Transforms
from gateway.worker import Worker

from .client import Client, eventually, request
from .conftest import RunningEdge, route, service, target
from .odd_upstream import OddUpstream

HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")


@contextlib.contextmanager
def saying(answer: bytes, *later: bytes, then_close: bool = False) -> Iterator[int]:
    """The port of a target that reads the head of each request and says this, and then waits or hangs up. later: what it
    says without being asked, in pieces."""
    listener, done = socket.create_server(("127.0.0.1", 0)), threading.Event()
    threads = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                if line != b"\r\n":  # not the head's end, or in the body, which may come in pieces
                    continue
                connection.sendall(answer)
                for piece in later:
                    time.sleep(0.02)
                    connection.sendall(piece)
                if then_close:
                    return
            done.wait(10)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True))
                threads[-1].start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_edge__chunked_body_of_nothing__is_ended_at_the_target(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)], timeout_s=15.0)])
    head = request("/api/echo", "Transfer-Encoding: chunked", method="POST")
    with edge.client() as client:
        for _ in range(2):  # the second one on the connection that the first one left
            answer = client.send(head + b"0\r\n\r\n").answer()
            assert answer is not None
            assert (answer.status, answer.json()["bytes"]) == (200, 0)


def test_edge__bad_chunk_after_the_responses_head__connection_cut_and_nothing_written_into_the_body(
    start_edge: Callable[..., RunningEdge],
) -> None:
    with saying(HALF) as port:
        edge = start_edge([route("/api", [target(port)])])
        head = request("/api/x", "Transfer-Encoding: chunked", method="POST")
        with edge.client() as client:
            client.send(head + b"1\r\na\r\n")
            seen = b""
            while not seen.endswith(b"\r\n\r\n{"):
                seen += client.socket.recv(65536)
            client.send(b"zz\r\n")
            with contextlib.suppress(ConnectionResetError):
                while piece := client.socket.recv(65536):
                    seen += piece
        assert seen.count(b"HTTP/1.1 ") == 1
        assert eventually(lambda: edge.inflight() == 0)


def test_edge__refused_upgrade__says_that_the_connection_ends_and_ends_it(edge: RunningEdge) -> None:
    with edge.client() as client:
        answer = client.send(request("/api/x", *UPGRADE, key=None)).answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert client.ended()


def _is_cut(client: Client) -> bool:
    try:
        client.socket.sendall(b"x")
    except OSError:
        return True
    return False


def test_edge__one_connection_too_many__told_and_then_let_go(
    start_edge: Callable[..., RunningEdge], gateway_conf: Callable[..., None], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    gateway_conf(MAX_CONNECTIONS=1, LINGER_S=0.1)
    with edge.client() as first, edge.client() as second:
        assert first.send(request("/api/x")).answer() is not None
        answer = second.answer()
        assert answer is not None
        assert (answer.status, answer.headers["x-brain-error"]) == (503, "overloaded")
        assert eventually(lambda: _is_cut(second)), "it keeps its file descriptor for as long as it likes"


def test_edge__edited_response_breaks_off__502_as_none_of_it_has_left(
    start_edge: Callable[..., RunningEdge],
) -> None:
    edited = Transforms(edits.compile([edits.Spec(response={"body": {"set": {"a": 1}}})]))
    with saying(HALF, then_close=True) as port:
        edge = start_edge([route("/api", [target(port)], transforms=edited)])
        answer = edge.ask(request("/api/x"))
        assert (answer.status, answer.headers["x-brain-error"]) == (502, "upstream_closed")
        assert answer.json()["code"] == "upstream_closed"
        assert eventually(lambda: edge.inflight() == 0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_edge__edited_body_that_came_while_the_limits_were_asked__edited_and_sent(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream, framing: str
) -> None:
    """With a length it waited for an end that had come, up to 504; in chunks it went past the edits."""
    edited = Transforms(edits.compile([edits.Spec(request={"body": {"remove": ["cvv"]}})]))
    limits = (bucket.per_window("minute", 600, 60, capacity=100),)
    edge = start_edge(
        [route("/api", [target(upstream.port)], transforms=edited, limits=limits, timeout_s=15.0)]
    )
    body = b'{"cvv":1}'
    head = ("Content-Type: application/json",)
    if framing == "length":
        data = request("/api/echo", *head, method="POST", body=body)
    else:
        data = request("/api/echo", *head, "Transfer-Encoding: chunked", method="POST")
        data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    answers = [edge.ask(data) for _ in range(3)]
    assert [(answer.status, answer.json()["bytes"]) for answer in answers] == [(200, len(b"{}"))] * 3


def test_edge__edited_response_kept_for_worse_times__with_its_body(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edited = Transforms(edits.compile([edits.Spec(response={"body": {"set": {"edited": True}}})]))
    edge = start_edge([route("/api", [target(upstream.port)], transforms=edited, stale_s=60.0)])
    good = edge.ask(request("/api/x"))
    upstream.die()
    old = edge.ask(request("/api/x"))
    assert (old.status, old.body) == (200, good.body)
    assert old.json()["edited"] is True
    assert "age" in old.headers


def test_edge__answer_too_large_to_be_kept__no_copy_grows_while_it_passes(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale, "MAX_BODY_BYTES", 5)
    edge = start_edge([route("/api", [target(upstream.port)], stale_s=60.0)])
    with edge.client() as client:
        seen = b""
        client.send(request("/api/events"))
        while b"data: 0" not in seen:
            seen += client.socket.recv(65536)
        (connection,) = edge.worker.connections
        assert connection.exchange is not None
        assert connection.exchange._copy is None


def test_edge__open_route_and_an_edit_of_authorization__the_target_sees_one(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    one = service([target(upstream.port)])
    setting = edits.compile([edits.Spec(request={"headers": {"set": {"Authorization": "Basic b3Vycw=="}}})])
    removing = edits.compile([edits.Spec(request={"headers": {"remove": ["Authorization"]}})])
    edge = start_edge([
        route("/set", one, auth_required=False, transforms=Transforms(setting)),
        route("/remove", one, auth_required=False, transforms=Transforms(removing)),
        route("/plain", one, auth_required=False),
    ])  # fmt: skip
    seen = {
        path: edge.ask(request(path, "Authorization: Basic dGhlaXJz", key=None)).json()["headers"].get("authorization")
        for path in ("/set/x", "/remove/x", "/plain/x")
    }  # fmt: skip
    assert seen == {"/set/x": ["Basic b3Vycw=="], "/remove/x": None, "/plain/x": ["Basic dGhlaXJz"]}


def test_edge__method_that_neither_of_two_routes_takes__allow_names_both(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    one = service([target(upstream.port)])
    edge = start_edge([
        route("/api", one, methods=frozenset({"GET", "HEAD"})), route("/api", one, methods=frozenset({"POST"})),
    ])  # fmt: skip
    answer = edge.ask(request("/api", method="DELETE"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_edge__trusted_proxy_that_writes_forwarded__x_forwarded_for_of_the_client_is_not_believed(
    edge: RunningEdge,
) -> None:
    edge.worker.trusted = forwarding.networks(["127.0.0.0/8"])
    try:
        told = edge.ask(request("/api/x", "Forwarded: for=203.0.113.9", "X-Forwarded-For: 6.6.6.6"))
    finally:
        edge.worker.trusted = ()
    assert told.json()["headers"]["x-forwarded-for"] == ["203.0.113.9, 127.0.0.1"]


def test_edge__answer_to_head_with_a_body__connection_is_not_used_again(
    start_edge: Callable[..., RunningEdge],
) -> None:
    with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as port:
        edge = start_edge([route("/api", [target(port)])])
        with edge.client() as client:
            answer = client.send(request("/api/x", method="HEAD")).answer(head=True)
        assert answer is not None
        assert answer.status == 200
        assert not edge.targets[0].idle


def test_edge__answer_with_the_beginning_of_another__nobody_gets_the_other(
    start_edge: Callable[..., RunningEdge],
) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    rest = b"l: 1\r\nContent-Length: 4\r\n\r\nEVIL"
    with saying(whole + b"HTTP/1.1 200 OK\r\nX-Evi", rest) as port:
        edge = start_edge([route("/api", [target(port)])])
        for _ in range(2):
            assert edge.ask(request("/api/x")).body == b"ok"
        assert not edge.targets[0].idle


@pytest.mark.parametrize(
    "agreed",
    [b"", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"],
)
def test_edge__101_that_agrees_to_no_websocket__502_and_no_tunnel(
    start_edge: Callable[..., RunningEdge], agreed: bytes
) -> None:
    with saying(b"HTTP/1.1 101 Switching Protocols\r\n" + agreed + b"\r\n") as port:
        edge = start_edge([route("/api", [target(port)])])
        answer = edge.ask(request("/api/x", *UPGRADE))
    assert (answer.status, answer.headers["x-brain-error"]) == (502, "upstream_malformed")
    assert edge.worker.tally.tunnels == 0


def test_edge__coding_that_the_parser_does_not_read_as_chunked__502(
    start_edge: Callable[..., RunningEdge],
) -> None:
    with saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n") as port:
        answer = start_edge([route("/api", [target(port)])]).ask(request("/api/x"))
    assert (answer.status, answer.headers["x-brain-error"]) == (502, "upstream_malformed")


@pytest.mark.parametrize("endless", [b"X-Filler: " + b"y" * 200_000, b"2;" + b"y" * 200_000])
def test_edge__target_that_sends_trailers_or_extensions_without_end__cut(
    start_edge: Callable[..., RunningEdge], endless: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
    with saying(head + (b"0\r\n" if endless.startswith(b"X") else b""), endless, endless, endless) as port:
        edge = start_edge([route("/api", [target(port)])])
        with edge.client() as client:
            client.send(request("/api/x"))
            with contextlib.suppress(ConnectionResetError):
                assert client.reader.read().endswith(b"2\r\nok\r\n")
        assert eventually(lambda: edge.inflight() == 0)


def test_edge__pipelined_for_two_hosts__each_target_hears_of_its_own(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(request("/api/a", host="good.test") + request("/api/b", host="evil.test"))
        for host in ("good.test", "evil.test"):
            answer = client.answer()
            assert answer is not None
            assert answer.json()["headers"]["x-forwarded-host"] == [host]


def test_edge__closes_while_its_client_goes_on_to_send__answer_is_not_lost_to_a_reset(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    before = behind.requests
    with edge.client(receive_buffer=4096) as client:
        pad = "X-Pad: " + "p" * 30_000  # comes back, and stays in the edge's kernel for the most part
        client.send(request("/api/x", "Connection: Upgrade", "Upgrade: h2c", pad))
        assert eventually(lambda: behind.requests > before and edge.inflight() == 0)
        with contextlib.suppress(OSError):
            client.send(b"x" * 100_000)
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.json()["headers"]["x-pad"]) == (200, ["p" * 30_000])


def test_edge__pipelined_in_one_piece_with_the_beginning_of_another__bounds_go_by_each_request(
    edge: RunningEdge,
) -> None:
    large = request("/api/x", method="POST", body=b"z" * 60_000)
    with edge.client() as client:
        client.send(large + request("/api/y")[:20])
        assert client.answer() is not None
        answer = client.send(request("/api/y")[20:]).answer()
        assert answer is not None
        assert answer.json()["target"] == "/api/y"


@pytest.mark.parametrize("close", [(), ("Connection: close",)])
def test_edge__own_failure__500_and_the_end(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch, close: tuple[str, ...]
) -> None:
    with edge.client() as client:
        assert client.send(request("/api/x")).answer() is not None  # one like it needs no parser
        monkeypatch.setattr("gateway.pipeline.decide", None)
        answer = client.send(request("/api/x", *close)).answer()
        assert answer is not None
        assert (answer.status, answer.json()["code"]) == (500, "gateway_failed")
        assert client.ended()


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_edge__client_gone_while_nothing_is_read_of_it__target_given_back_without_a_word_against_it(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream, how: str
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    client = edge.client()
    client.send(request("/api/hang") + request("/api/x"))  # the second makes it stop reading
    assert eventually(lambda: edge.inflight() == 1)
    if how == "reset":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert eventually(lambda: (edge.inflight(), len(edge.worker.connections)) == (0, 0))
    assert edge.targets[0].failures == 0


def test_edge__client_that_goes_on_to_send__is_not_what_keeps_a_silent_target(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)], timeout_s=0.3)])
    with edge.client() as client:
        client.send(request("/api/hang"))
        done, sender = threading.Event(), b"GET /api/" + b"b" * 4000  # for more than a minute

        def drip() -> None:
            for i in range(len(sender)):
                if done.wait(0.02):
                    return
                client.send(sender[i : i + 1])

        thread = threading.Thread(target=drip)
        thread.start()
        answer = client.answer()
        done.set()
        thread.join()
        assert answer is not None
        assert (answer.status, answer.headers["x-brain-error"]) == (504, "response_timeout")


def test_edge__client_that_reads_slowly__is_not_one_that_does_not_read() -> None:
    sizes = iter((9_000, 8_000, 8_000))
    transport = SimpleNamespace(get_write_buffer_size=lambda: next(sizes))
    limits = SimpleNamespace(WRITE_TIMEOUT_S=1.0)
    slow: Any = SimpleNamespace(
        exchange=None, held=False, limits=limits, lingering=False, stalled=True, tunnel=None, last_seen=9_500, moved_at=0.0,
        transport=transport,
    )  # fmt: skip
    assert [overdue.is_overdue(slow, now) for now in (2.0, 4.0, 6.0)] == [False, False, True]


def test_edge__tunnel_with_a_bound__goes_by_what_it_carried() -> None:
    exchange = SimpleNamespace(bytes_in=0, up=SimpleNamespace(carried=5))
    limits = SimpleNamespace(TUNNEL_IDLE_S=1.0)
    one: Any = SimpleNamespace(
        exchange=exchange, held=False, limits=limits, lingering=False, stalled=False, tunnel=object(), last_seen=0,
        moved_at=0.0, transport=SimpleNamespace(is_reading=lambda: True),
    )  # fmt: skip
    found = [overdue.is_overdue(one, 2.0)]
    exchange.bytes_in = 1
    found += [overdue.is_overdue(one, 4.0), overdue.is_overdue(one, 6.0)]
    limits.TUNNEL_IDLE_S = 0.0
    assert [*found, overdue.is_overdue(one, 8.0)] == [False, False, True, False]


def test_edge__client_stalls_at_the_last_bytes__connection_that_is_no_longer_its_own_is_left_alone() -> None:
    mine = SimpleNamespace()
    client: Any = SimpleNamespace(exchange=mine, transport=object())
    for receiver, tunnel, held in ((mine, None, True), (None, None, False), (object(), None, False)):
        mine.up = SimpleNamespace(receiver=receiver, tunnel=tunnel)
        assert (Edge._source(client) is mine.up) == held
    mine.up = SimpleNamespace(receiver=None, tunnel=client.transport)
    assert Edge._source(client) is mine.up


def test_worker__directory_of_the_figures_is_gone__goes_on(tmp_path: Path) -> None:
    asyncio.run(Worker(tmp_path / "gone")._publish())


class Silent(SimpleNamespace):
    __hash__ = object.__hash__


def test_worker__connection_that_cannot_be_ended_in_order__is_cut_and_the_others_are_looked_at() -> None:
    cut: list[str] = []

    def silent(name: str, close: Callable[[], None]) -> Any:
        transport = SimpleNamespace(
            abort=lambda: cut.append(name), close=close, is_closing=lambda: False, is_reading=lambda: True
        )
        limits = SimpleNamespace(IDLE_TIMEOUT_S=1.0)
        return Silent(
            exchange=None, held=False, head_started=0.0, limits=limits, lingering=False, moved_at=float("-inf"), stalled=False,
            transport=transport, tunnel=None,
        )  # fmt: skip

    def fails() -> None:
        raise UnicodeEncodeError("latin-1", "€", 0, 1, "no")

    async def sweep() -> None:
        worker = Worker()
        worker.connections = {silent("a", fails), silent("b", lambda: cut.append("expired"))}
        await worker._sweep()

    asyncio.run(sweep())
    assert sorted(cut) == ["a", "expired"]


@pytest.mark.parametrize(("value", "may"), [("plain", True), ("\u00e9", True), ("\u20ac", False)])
def test_hooks__header_of_a_reply__only_what_can_be_written(value: str, may: bool) -> None:
    assert hooks._may_be_set("X-A", value, "response") is may
