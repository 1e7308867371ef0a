"""What the edge does on the less usual paths: other kinds of targets, tunnels, trailers, proxies before us, retries with
bodies, transformations, fallbacks, deadlines."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import dial, edits, forwarding, hooks, keys
from gateway.calls import Refusal
from gateway.conf import conf
from gateway.dial import Dial
from gateway.plugins import Failure, Reply, Request, Response
from gateway.pool import Target
from gateway.transforming import Transforms

from . import certificates
from .client import eventually, request
from .conftest import RunningEdge, route, service, target
from .odd_upstream import OddUpstream, running


def dialled(name: str, way: Dial) -> Target:
    made = Target("odd", name)
    made.dial = way
    return made


# --- other ways to a target
# ------------------------------------------------------------------------------------------
@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[OddUpstream, str]]:
    """An upstream over TLS as odd.test, and its authority."""
    pem, context = certificates.make(tmp_path)
    listener = context.wrap_socket(
        socket.create_server(("127.0.0.1", 0), backlog=16), server_side=True, do_handshake_on_connect=False
    )
    upstream = OddUpstream(listener)
    yield upstream, pem
    upstream.close()


def test_edge__target_over_tls__verified_by_name_and_authority(
    start_edge: Callable[..., RunningEdge], secure: tuple[OddUpstream, str]
) -> None:
    upstream, pem = secure
    address = ("127.0.0.1", upstream.port)
    ways = {
        "/good": Dial(address, b"odd.test", dial.context(pem), "odd.test"),
        "/name": Dial(address, b"odd.test", dial.context(pem), "other.test"),
        "/authority": Dial(address, b"odd.test", dial.context(""), "odd.test"),
    }
    edge = start_edge([route(path, [dialled(path, way)]) for path, way in ways.items()])
    good = edge.ask(request("/good/x", method="POST", body=b"z" * 100_000))
    assert (good.status, good.json()["bytes"]) == (200, 100_000)
    assert good.json()["headers"]["host"] == ["odd.test"]
    for path in ("/name", "/authority"):
        answer = edge.ask(request(f"{path}/x"))
        assert (answer.status, answer.headers["x-brain-error"]) == (502, "tls_failed")


def test_edge__target_at_a_unix_socket__served(
    start_edge: Callable[..., RunningEdge], tmp_path: Path
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "odd.sock"))
    listener.listen()
    upstream = OddUpstream(listener)
    edge = start_edge([route("/api", [dialled("unix", Dial(str(tmp_path / "odd.sock"), b"localhost"))])])
    assert edge.ask(request("/api/x")).json()["headers"]["host"] == ["localhost"]
    upstream.close()


def test_edge__host_prefix_and_credentials__as_the_route_says(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    to = service([target(upstream.port)])
    edge = start_edge([
        route("/api/v1", to, strip=2, keeps_host=True, hides_credentials=False),
        route("/{any}/tail", to, path_kind="template"),
    ])  # fmt: skip
    seen = edge.ask(request("/api/v1/a%20b?q=1")).json()
    assert (seen["target"], seen["headers"]["host"]) == ("/a%20b?q=1", ["edge.test"])
    assert seen["headers"]["x-api-key"] == ["good-key"]
    assert edge.ask(request("/%61pi/v1")).json()["target"] == "/"
    assert edge.ask(request("/x/tail")).json()["target"] == "/x/tail"
    assert edge.ask(request("/x/tail/more")).status == 404


# --- tunnels
# ------------------------------------------------------------------------------------------------------------------
UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: abc")


def test_edge__websocket__bytes_go_both_ways_until_either_side_ends(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    with edge.client() as client:
        client.send(request("/api/websocket", *UPGRADE) + b"early ")
        answer = client.answer(head=True)
        assert answer is not None
        assert (answer.status, answer.headers["upgrade"], answer.headers["sec-websocket-accept"]) == (
            101,
            "websocket",
            "x",
        )
        assert client.reader.read(11) == b"helloearly "
        data = b"x" * 3_000_000  # more than any buffer on the way
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        assert client.reader.read(len(data)) == data
        sender.join()
        assert edge.worker.tally.tunnels == 1
    assert eventually(lambda: "websocket closed" in behind.seen)
    assert eventually(lambda: (edge.inflight(), edge.worker.tally.tunnels) == (0, 0))
    assert eventually(lambda: bool(edge.worker.tally.cells))
    (cell,) = edge.worker.tally.cells.values()
    assert (cell.received, cell.sent) == (3_000_006, 3_000_011)


def test_edge__websocket__much_sent_before_the_target_agrees__all_of_it_arrives(
    start_edge: Callable[..., RunningEdge],
) -> None:
    data = bytes(i % 251 for i in range(400_000))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        edge = start_edge([route("/api", [target(listener.getsockname()[1])])])
        with edge.client() as client:
            client.send(request("/api/x", *UPGRADE))
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as reader:
                while reader.readline() != b"\r\n":
                    pass
                sender = threading.Thread(target=client.send, args=(data,))
                sender.start()
                (held,) = edge.worker.connections
                assert eventually(lambda: held.held)
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )
                assert reader.read(len(data)) == data
                sender.join()


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("chunked", [False, True])
def test_edge__upgrade_of_a_request_with_a_body__answered_without_it_and_the_target_sees_the_body(
    edge: RunningEdge, behind: OddUpstream, protocol: str, method: str, chunked: bool
) -> None:
    asked = ("Connection: Upgrade", f"Upgrade: {protocol}")
    if chunked:
        data = request("/api/x", *asked, "Transfer-Encoding: chunked", method=method)
        data += b"3\r\nabc\r\n0\r\nT: x\r\n\r\n"
    else:
        data = request("/api/x", *asked, method=method, body=b"abc")
    smuggled = request("/api/smuggled")
    for i in (1, len(data) - 20, len(data) - 3, len(data) - 2, len(data)):
        with edge.client() as client:
            answer = client.send(data[:i]).send(data[i:] + smuggled).answer()
            assert answer is not None
            seen = answer.json()
            assert (answer.headers["connection"], seen["target"], seen["bytes"]) == ("close", "/api/x", 3)
            assert "upgrade" not in seen["headers"]
            assert client.ended()
    assert behind.seen == (["T: x"] * 5 if chunked else [])
    assert edge.ask(request("/api/y")).json()["target"] == "/api/y"


def test_edge__upgrade_of_a_request_with_a_body_that_is_refused__connection_ends(edge: RunningEdge) -> None:
    asked = ("Connection: Upgrade", "Upgrade: h2c")
    assert edge.ask(request("/api/x", *asked, key=None, body=b"abc")).status == 401
    bad = request("/api/x", *asked, "Transfer-Encoding: chunked", method="POST") + b"3\r\nabcd\r\n"
    assert edge.ask(bad).status == 400
    assert edge.ask(request("/api/x", *UPGRADE, method="POST")).status == 200
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__websocket__refused_without_credentials_and_answered_by_a_target_that_knows_none(
    edge: RunningEdge,
) -> None:
    assert edge.ask(request("/api/websocket", *UPGRADE, key=None)).status == 401
    with edge.client() as client:
        answer = client.send(request("/api/x", *UPGRADE)).answer()
        assert answer is not None
        assert answer.json()["headers"]["upgrade"] == ["websocket"]
        assert client.ended()


def test_edge__websocket__ends_by_its_own_bound_when_silent(
    edge: RunningEdge, gateway_conf: Callable[..., None], behind: OddUpstream
) -> None:
    gateway_conf(TUNNEL_IDLE_S=0.1)
    with edge.client() as client:
        client.send(request("/api/websocket", *UPGRADE))
        assert client.answer(head=True) is not None
        client.reader.read(5)
        assert client.ended()
    assert eventually(lambda: (edge.inflight(), edge.worker.tally.tunnels) == (0, 0))
    assert eventually(lambda: "websocket closed" in behind.seen)
    assert edge.targets[0].failures == 0


def test_edge__websocket__idle_one_outlives_the_timeouts(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    with edge.client() as client:
        client.send(request("/api/websocket", *UPGRADE))
        assert client.answer(head=True) is not None
        client.reader.read(5)
        (connection,) = edge.worker.connections
        gateway_conf(IDLE_TIMEOUT_S=0.05, BODY_TIMEOUT_S=0.05)  # not earlier: it has become a tunnel in time
        connection.limits = conf()
        time.sleep(0.2)
        client.send(b"still here")
        assert client.reader.read(10) == b"still here"


def test_edge__upgrade_to_anything_else__not_passed_on(edge: RunningEdge) -> None:
    with edge.client() as client:
        answer = client.send(
            request("/api/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
        ).answer()
        assert answer is not None
        assert "upgrade" not in answer.json()["headers"]


# --- trailers
# -----------------------------------------------------------------------------------------------------------------
def test_edge__trailers_of_a_request__passed_on_without_those_that_route_or_frame(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nAuthorization: x\r\nX-Consumer-Id: root\r\n\r\n"
    answer = edge.ask(request("/api/x", "Transfer-Encoding: chunked", method="POST") + body)
    assert (answer.status, answer.json()["bytes"]) == (200, 3)
    assert [line for line in behind.seen if ":" in line] == ["X-Sum: 7"]


def test_edge__trailers_of_a_response__for_clients_that_take_them(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    with edge.client() as client:
        client.send(request("/api/trailers", "TE: trailers, deflate", "Connection: TE, close"))
        whole = client.reader.read()
    assert whole.endswith(b"2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
    with edge.client() as client:
        client.send(request("/api/trailers", "Connection: close"))
        assert client.reader.read().endswith(b"2\r\nok\r\n0\r\n\r\n")
    assert behind.seen == ["trailers ['trailers']", "trailers None"]


# --- proxies before us, and traces
# -----------------------------------------------------------------------------------------------------------------
def test_edge__trusted_proxy__its_word_about_the_client_is_taken(edge: RunningEdge) -> None:
    headers = (
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
    )
    untrusted = edge.ask(request("/api/x", *headers)).json()["headers"]
    assert (untrusted["x-forwarded-for"], untrusted["x-forwarded-proto"]) == (["127.0.0.1"], ["http"])
    edge.worker.trusted = forwarding.networks(["127.0.0.0/8"])
    try:
        trusted = edge.ask(request("/api/x", *headers)).json()["headers"]
    finally:
        edge.worker.trusted = ()
    assert trusted["x-forwarded-for"] == ["6.6.6.6, 203.0.113.9, 127.0.0.1"]
    assert (trusted["x-forwarded-proto"], trusted["x-forwarded-host"]) == (["https"], ["shop.example"])


def test_edge__traceparent__kept_with_a_span_of_ours_or_begun(edge: RunningEdge) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    kept = edge.ask(request("/api/x", f"traceparent: {given}")).json()["headers"]["traceparent"][0]
    assert (kept[:36], kept[-3:]) == (given[:36], "-00")
    assert kept != given
    states = ("tracestate: a=1", "tracestate: b=2")
    assert edge.ask(request("/api/x", f"traceparent: {given}", *states)).json()["headers"]["tracestate"] == [
        "a=1", "b=2",
    ]  # fmt: skip
    for lost in ((), ("traceparent: 00-0-0-0",), (f"traceparent: {given}",) * 2):
        assert "tracestate" not in edge.ask(request("/api/x", *lost, *states)).json()["headers"]
    begun = edge.ask(request("/api/x", "traceparent: 00-0-0-0")).json()["headers"]["traceparent"][0]
    assert begun.startswith("00-") and begun.endswith("-01") and len(begun) == 55  # noqa: PT018


def test_edge__via_of_many_gateways__508(edge: RunningEdge) -> None:
    four = ", ".join(["1.1 brain"] * 4)
    assert edge.ask(request("/api/x", f"Via: {four}")).json()["headers"]["via"] == [f"{four}, 1.1 brain"]
    for five in ((f"Via: {four}, 1.1 brain",), (f"Via: {four}", "Via: 1.1 brain", "Via: 1.1 haproxy")):
        answer = edge.ask(request("/api/x", *five))
        assert (answer.status, answer.headers["x-brain-error"]) == (508, "loop_detected")
    lines = edge.ask(request("/api/x", "Via: 1.1 brain", "Via: 1.1 haproxy")).json()["headers"]["via"]
    assert lines == ["1.1 brain, 1.1 haproxy, 1.1 brain"]


def test_edge__max_forwards__counted_down_for_options_and_answered_at_zero(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    seen = edge.ask(request("/api/x", "Max-Forwards: 3", method="OPTIONS")).json()
    assert seen["headers"]["max-forwards"] == ["2"]
    assert edge.ask(request("/api/x", "Max-Forwards: 3")).json()["headers"]["max-forwards"] == ["3"]
    before = behind.requests
    last = edge.ask(request("/api/x", "Max-Forwards: 0", method="OPTIONS"))
    assert (last.status, "OPTIONS" in last.headers["allow"], behind.requests) == (204, True, before)


def test_edge__server_sent_events__each_arrives_before_the_next_is_sent(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    with edge.client() as client:
        client.send(request("/api/events"))
        for number in range(3):
            while (line := client.reader.readline()) != b"data: %d\n" % number:
                assert line, "the stream ended"
            behind.go.set()


# --- trying again
# -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "status"), [("PUT", 200), ("POST", 502)])
@pytest.mark.parametrize("chunked", [False, True])
def test_edge__small_body__sent_again_where_that_does_no_harm(
    start_edge: Callable[..., RunningEdge], method: str, status: int, chunked: bool
) -> None:
    with running(2) as (first, second):
        second.seen.append("die-once")
        edge = start_edge([route("/api", [target(first.port), target(second.port)])])
        if chunked:
            data = (
                request("/api/die-once", "Transfer-Encoding: chunked", method=method)
                + b"3\r\nabc\r\n0\r\n\r\n"
            )
        else:
            data = request("/api/die-once", method=method, body=b"abc")
        answer = edge.ask(data)
        assert answer.status == status
        if status == 200:
            assert answer.json()["bytes"] == 3
        assert eventually(lambda: edge.inflight() == 0)


def test_edge__connection_closed_while_idle__tried_anew_for_nothing(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    assert edge.ask(request("/api/x")).status == 200
    upstream.drop_connections()
    assert edge.ask(request("/api/x")).status == 200
    assert edge.targets[0].breaker.state == "closed"


@pytest.mark.parametrize(("method", "status"), [("PUT", 200), ("POST", 502)])
def test_edge__connection_closed_as_a_body_comes__sent_anew_for_nothing_where_that_does_no_harm(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream, method: str, status: int
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    assert edge.ask(request("/api/x")).status == 200
    answer = edge.ask(request("/api/die-once", method=method, body=b"abc"))
    assert answer.status == status
    assert status != 200 or answer.json()["bytes"] == 3
    assert edge.targets[0].failures == (status != 200)


def test_edge__connection_closed_and_nobody_told_yet__not_used_for_what_cannot_be_sent_again(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    with edge.client() as client:
        assert client.send(request("/api/x")).answer() is not None
        (one,) = edge.worker.connections
        stands_still, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            stands_still.set()
            go_on.wait(30)

        one.loop.call_soon_threadsafe(stand_still)
        assert stands_still.wait(30)
        client.send(request("/api/y", method="POST", body=b"abc"))  # before the other in the loop's queue
        upstream.drop_connections()
        go_on.set()
        answer = client.answer()
    assert answer is not None
    assert (answer.status, upstream.connections) == (200, 2)


def test_edge__total_time__over_however_the_target_drips(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)], total_timeout_s=0.2)])
    answer = edge.ask(request("/api/hang"))
    assert (answer.status, answer.headers["x-brain-error"]) == (504, "total_timeout")
    assert eventually(lambda: edge.inflight() == 0)


# --- when no target is left
# -----------------------------------------------------------------------------------------------------------------
def test_edge__fallback__static_answer_when_no_target_is_left(start_edge: Callable[..., RunningEdge]) -> None:
    with running(1) as (dead,):
        dead.die()
        static = Refusal(200, "no_target", "", body=b'{"items": []}', content_type="application/json")
        edge = start_edge([route("/api", [target(dead.port)], fallback=static)])
        answers = [edge.ask(request("/api/x")) for _ in range(5)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b'{"items": []}')}
    assert {answer.headers["x-brain-error"] for answer in answers} == {"no_target"}


def test_edge__stale_answer__given_to_the_same_caller_when_no_target_is_left(
    start_edge: Callable[..., RunningEdge],
) -> None:
    with running(1) as (one,):
        edge = start_edge([
            route("/api", [target(one.port)], stale_s=60.0),
            route("/open", [target(one.port)], stale_s=60.0, auth_required=False),
        ])  # fmt: skip
        first = edge.ask(request("/api/x?a=1"))
        one.die()
        assert eventually(lambda: not any(up.alive for up in edge.targets[0].idle))
        again = edge.ask(request("/api/x?a=1"))
        assert (again.status, again.body) == (200, first.body)
        assert (again.headers["x-brain-error"], int(again.headers["age"]) < 30) == ("connect_failed", True)
        assert edge.ask(request("/api/x?a=2")).status == 502
        assert edge.ask(request("/open/x?a=1")).status == 502
        known: Any = edge.worker.snapshot.identities._keys
        other = replace(known[keys.digest(b"good-key")], key_digest=keys.digest(b"other-key"))
        known[other.key_digest] = other  # the same consumer's
        assert edge.ask(request("/api/x?a=1", key="other-key")).status == 503  # the fifth failure


def test_edge__stale_answer__before_the_static_one_and_not_in_place_of_a_plugins(
    start_edge: Callable[..., RunningEdge],
) -> None:
    class Closing:
        def on_request(self, request: Request) -> Reply | None:
            return Reply(503, b"closed") if request.header("x-flag") == "off" else None

    plugged = hooks.Hooks([hooks.Hook("closing", "on_request", Closing().on_request, False)], hooks.Watch())
    static = Refusal(200, "no_target", "", body=b"later", content_type="text/plain")
    with running(1) as (one,):
        edge = start_edge([
            route("/api", [target(one.port)], stale_s=60.0, fallback=static, transforms=Transforms(None, plugged)),
        ])  # fmt: skip
        first = edge.ask(request("/api/x"))
        assert edge.ask(request("/api/x", "X-Flag: off")).body == b"closed"
        one.die()
        assert eventually(lambda: not any(up.alive for up in edge.targets[0].idle))
        assert edge.ask(request("/api/x")).body == first.body
        assert edge.ask(request("/api/never-asked")).body == b"later"


# --- transformations
# ----------------------------------------------------------------------------------------------------------------
class Stamp:
    """A plugin with all three hooks."""

    def on_request(self, request: Request) -> Reply | None:
        if request.header("x-flag") == "off":
            return Reply(403, b"switched off", {"Content-Type": "text/plain", "X-Why": "flag"})
        request.set_header("X-Stamp", request.consumer_name)
        return None

    def on_response(self, request: Request, response: Response) -> None:
        response.set_header("X-Seen", request.path.decode())

    def on_error(self, request: Request, failure: Failure) -> Reply | None:
        return Reply(200, f"instead of {failure.code}".encode())


EDITS = edits.Spec(
    request={
        "headers": {"set": {"X-Caller": "{consumer.name}"}, "remove": ["X-Old"]},
        "path": {"template": "/v2/{path.id}"},
        "query": {"set": {"from": "gateway"}},
        "body": {"set": {"by": "{consumer.name}"}},
    },
    response={
        "headers": {"set": {"X-New": "1"}},
        "body": {"remove": ["secret"], "set": {"caller": "{consumer.name}"}},
    },
)


PREFIXED = edits.Spec(request={"path": {"add_prefix": "/v3"}})


@pytest.fixture
def changing(start_edge: Callable[..., RunningEdge], upstream: OddUpstream) -> RunningEdge:
    plugged = hooks.Hooks(
        [
            hooks.Hook("stamp", kind, getattr(Stamp(), kind), True)
            for kind in ("on_request", "on_response", "on_error")
        ],
        hooks.Watch(),
    )
    to = service([target(upstream.port)])
    return start_edge([
        route("/things/{id}", to, path_kind="template", transforms=Transforms(edits.compile([EDITS]), plugged)),
        route("/plugged", to, transforms=Transforms(None, plugged)),
        route("/cut/off", to, strip=2, transforms=Transforms(edits.compile([PREFIXED]))),
    ])  # fmt: skip


def test_edge__transformed_request__head_and_body(changing: RunningEdge) -> None:
    body = json.dumps({"n": 1}).encode()
    data = request(
        "/things/json-echo", "Content-Type: application/json", "X-Old: 1", method="POST", body=body
    )
    seen = changing.ask(data)
    told = seen.json()
    assert told["target"] == "/v2/json-echo?from=gateway"
    assert told["headers"]["x-caller"] == told["headers"]["x-stamp"] == ["tester"]
    assert "x-old" not in told["headers"]
    assert told["bytes"] == len(b'{"n":1,"by":"tester"}')
    assert (seen.headers["x-new"], seen.headers["x-seen"]) == ("1", "/v2/json-echo")


def test_edge__stripped_prefix__is_off_before_the_path_is_edited(changing: RunningEdge) -> None:
    assert changing.ask(request("/cut/off/a?b=1")).json()["target"] == "/v3/a?b=1"


def test_edge__large_body__changed_by_a_thread_and_the_loop_goes_on(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edited = edits.compile([edits.Spec(request={"body": {"set": {"by": "us"}}})])
    assert edited is not None
    threads: list[str] = []

    class Seen(edits.Edits):
        def request_body(self, body: bytes, head: edits.RequestHead) -> bytes:
            threads.append(threading.current_thread().name)
            return super().request_body(body, head)

    seen = Seen(edited._requests, edited._responses)
    edge = start_edge([route("/api", [target(upstream.port)], transforms=Transforms(seen))])
    for size in (10, 100_000):
        body = json.dumps({"n": "x" * size}).encode()
        answer = edge.ask(request("/api/x", "Content-Type: application/json", method="POST", body=body))
        assert answer.json()["bytes"] == len(body) + len(',"by":"us"') - 1  # json.dumps writes a space
    assert [name.startswith("gateway-edits") for name in threads] == [False, True]


def test_edge__transformed_body_in_chunks_byte_by_byte__the_same(changing: RunningEdge) -> None:
    head = request("/things/7", "Content-Type: application/json", "Transfer-Encoding: chunked", method="POST")
    with changing.client() as client:
        for piece in (head, b'4\r\n{"n"\r\n', b"3\r\n:1}\r\n", b"0\r\n\r\n"):
            client.send(piece)
            time.sleep(0.01)
        answer = client.answer()
    assert answer is not None
    assert answer.json()["bytes"] == len(b'{"n":1,"by":"tester"}')


def test_edge__transformed_response__numbers_survive(changing: RunningEdge) -> None:
    answer = changing.ask(request("/things/json"))
    assert json.loads(answer.body) == {"id": 10**20, "price": 1.1, "caller": "tester"}
    assert b"1.1" in answer.body


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (
            request("/things/7", "Content-Type: application/json", method="POST", body=b"{"),
            400,
            "body_malformed",
        ),
        (request("/plugged/x", "X-Flag: off"), 403, "plugin_reply"),
    ],
)
def test_edge__transformation_that_refuses__answered_and_nothing_sent(
    changing: RunningEdge, upstream: OddUpstream, data: bytes, status: int, code: str
) -> None:
    answer = changing.ask(data)
    assert (answer.status, answer.headers["x-brain-error"]) == (status, code)
    assert upstream.requests == 0
    assert eventually(lambda: changing.inflight() == 0)


def test_edge__edited_body_above_its_limit__413(
    changing: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(MAX_EDITED_BYTES=100)
    body = json.dumps({"n": "x" * 200}).encode()
    for extra in ((), ("Expect: 100-continue",)):
        data = request("/things/7", "Content-Type: application/json", *extra, method="POST", body=body)
        assert changing.ask(data).status == 413
    chunked = request(
        "/things/7", "Content-Type: application/json", "Transfer-Encoding: chunked", method="POST"
    )
    assert changing.ask(chunked + b"d2\r\n" + body[:210] + b"\r\n0\r\n\r\n").status == 413
    assert eventually(lambda: changing.inflight() == 0)


def test_edge__edited_response_above_its_limit__goes_on_as_it_is_and_is_told(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(MAX_EDITED_BYTES=100)
    told: list[str] = []
    edited = edits.compile([edits.Spec(response={"body": {"set": {"a": 1}}})])
    edge = start_edge(
        [route("/api", [target(upstream.port)], transforms=Transforms(edited, untouched=told.append))]
    )
    answer = edge.ask(request("/api/x"))
    assert answer.status == 200
    assert "a" not in answer.json()
    assert told == ["too large"]


def test_edge__failure_with_a_plugin__the_plugins_answer(changing: RunningEdge) -> None:
    answer = changing.ask(request("/plugged/garbage"))
    assert (answer.status, answer.body) == (200, b"instead of upstream_malformed")
    assert answer.headers["x-brain-error"] == "upstream_malformed"


def test_edge__plugin_that_fails_on_the_response__502_and_the_place_is_given_back(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    plugged = hooks.Hooks([hooks.Hook("bad", "on_response", fails, True)], hooks.Watch())
    edge = start_edge([route("/api", [target(upstream.port)], transforms=Transforms(None, plugged))])
    answer = edge.ask(request("/api/x"))
    assert (answer.status, answer.headers["x-brain-error"]) == (502, "plugin_failed")
    assert eventually(lambda: edge.inflight() == 0)


# --- reloads
# -------------------------------------------------------------------------------------------------------------------
def test_edge__snapshot_swapped__requests_and_tunnels_under_way_go_on(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)])])
    with edge.client() as client, edge.client() as slow:
        client.send(request("/api/websocket", *UPGRADE))
        assert client.answer(head=True) is not None
        client.reader.read(5)
        slow.send(request("/api/up", "Content-Length: 6", method="POST") + b"abc")
        assert eventually(lambda: edge.inflight() == 2)
        edge.worker.holder.snapshot = replace(
            edge.worker.snapshot, router=type(edge.worker.snapshot.router)([]), routes=()
        )
        assert edge.ask(request("/api/x")).status == 404
        slow.send(b"def")
        answer = slow.answer()
        assert answer is not None
        assert answer.json()["bytes"] == 6
        client.send(b"ping")
        assert client.reader.read(4) == b"ping"
    assert eventually(lambda: edge.inflight() == 0)
