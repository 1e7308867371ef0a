from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import tokens
from gateway.access_log import AccessLog

from .client import eventually, request
from .conftest import SECRET, RunningEdge, route, target
from .odd_upstream import BIG_BYTES, OddUpstream, running

# --- the rules, over a socket
# ---------------------------------------------------------------------------------------


def test_edge__good_key__request_and_answer_pass_through(edge: RunningEdge) -> None:
    answer = edge.ask(request("/api/echo?q=1", "X-Keep: 1", method="POST", body=b"abc"))
    seen = answer.json()
    assert (answer.status, seen["target"], seen["bytes"], seen["sum"]) == (
        200,
        "/api/echo?q=1",
        3,
        sum(b"abc"),
    )
    assert seen["headers"]["x-keep"] == ["1"]
    assert answer.headers["x-upstream"] == edge.targets[0].name


def test_edge__identity__told_to_the_upstream_and_credentials_hidden(edge: RunningEdge) -> None:
    claimed = (
        "X-Consumer-Id: root",
        "X_Consumer_Id: root",
        "X-Forwarded-For: 6.6.6.6",
        "Connection: X-Secret",
        "X-Secret: 1",
    )
    headers = edge.ask(request("/api/x", *claimed)).json()["headers"]
    assert headers["x-consumer-id"] == ["key:tester"]
    assert headers["x-consumer-roles"] == ["operator"]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["host"] == [edge.targets[0].name]
    assert headers["x-forwarded-host"] == ["edge.test"]
    assert not {"x-api-key", "x_consumer_id", "x-secret"} & set(headers)


@pytest.mark.parametrize("given", ["abc-1", None, "bad id", "x" * 200])
def test_edge__request_id__valid_one_kept_else_a_new_one(edge: RunningEdge, given: str | None) -> None:
    extra = [f"X-Request-Id: {given}"] if given else []
    answer = edge.ask(request("/api/x", *extra))
    sent = answer.json()["headers"]["x-request-id"]
    assert sent == [answer.headers["x-request-id"]]
    assert (sent == [given]) == (given == "abc-1")


def test_edge__refusals__problem_json_with_the_request_id(edge: RunningEdge) -> None:
    cases = {
        401: request("/api/x", key=None),
        403: request("/admins/x"),
        404: request("/nowhere"),
        405: request("/reading", method="POST", body=b"x"),
    }
    for status, data in cases.items():
        answer = edge.ask(data)
        problem = answer.json()
        assert answer.status == problem["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["request_id"] == answer.headers["x-request-id"]
        assert problem["code"] == answer.headers["x-brain-error"]
    assert "Bearer" in edge.ask(cases[401]).headers["www-authenticate"]
    assert edge.ask(cases[405]).headers["allow"] == "GET"


def test_edge__token__accepted_and_not_passed_on(edge: RunningEdge) -> None:
    claims = {
        "sub": "7",
        "username": "ada",
        "roles": ["viewer"],
        "iss": "brain",
        "exp": int(time.time()) + 60,
    }
    token = tokens.sign(claims, "HS256", SECRET)
    headers = edge.ask(request("/api/x", f"Authorization: Bearer {token}", key=None)).json()["headers"]
    assert headers["x-consumer-id"] == ["jwt:brain:7"]
    assert headers["x-consumer-username"] == ["ada"]
    assert "authorization" not in headers
    assert edge.ask(request("/api/x", f"Authorization: Bearer {token}x", key=None)).status == 401


def test_edge__limit__headers_on_every_answer_and_429_in_the_end(edge: RunningEdge) -> None:
    answers = [edge.ask(request("/limited/x")) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"hour";q=60;w=3600'
    assert answers[0].headers["ratelimit"] == '"hour";r=2;t=60'
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[3].headers["ratelimit"].startswith('"hour";r=0;')
    assert answers[3].json()["status"] == 429


def test_edge__three_targets__round_robin_visible_in_a_header(start_edge: Callable[..., RunningEdge]) -> None:
    with running(3) as upstreams:
        edge = start_edge([route("/api", [target(one.port) for one in upstreams])])
        names = [edge.ask(request("/api/x")).headers["x-upstream"] for _ in range(6)]
    assert names[:3] == names[3:] == [one.name for one in upstreams]


def test_edge__dead_target__next_one_serves_and_the_breaker_opens(
    start_edge: Callable[..., RunningEdge],
) -> None:
    with running(2) as (living, dead):
        dead.die()
        edge = start_edge([route("/api", [target(dead.port), target(living.port)])])
        answers = [edge.ask(request("/api/x", method="POST", body=b"b")) for _ in range(8)]
    assert {(answer.status, answer.headers["x-upstream"]) for answer in answers} == {(200, living.name)}
    assert edge.targets[0].breaker.state == "open"
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__no_target_left__502_then_503_with_retry_after(start_edge: Callable[..., RunningEdge]) -> None:
    with running(1) as (dead,):
        dead.die()
        edge = start_edge([route("/api", [target(dead.port)])])
        answers = [edge.ask(request("/api/x")) for _ in range(4)]
    assert [answer.status for answer in answers] == [502, 502, 502, 503]
    assert int(answers[3].headers["retry-after"]) >= 1


def test_edge__health_and_metrics__answered_by_the_edge(edge: RunningEdge) -> None:
    edge.ask(request("/api/x"))
    edge.ask(request("/api/x", key=None))
    health = edge.ask(request("/gateway/health", key=None)).json()
    assert (health["status"], health["snapshot_version"]) == ("ok", 1)
    assert health["targets"][0]["breaker"] == "closed"
    text = edge.ask(request("/gateway/metrics", key=None)).body.decode()
    assert f'service="odd",target="{edge.targets[0].name}",method="GET",status="2xx",plan=""}} 1.0' in text
    assert 'service="odd",target="",method="GET",status="4xx",plan=""} 1.0' in text
    assert 'brain_gateway_request_duration_seconds_count{route="/api"} 2.0' in text
    assert edge.ask(request("/gateway/health", method="POST", body=b"x")).status == 405
    assert edge.ask(request("/gateway/other")).status == 404


# --- the shape of requests and answers
# -------------------------------------------------------------------------------


def stream() -> bytes:
    chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\nT: x\r\n\r\n"
    chunked = request("/api/c", "Transfer-Encoding: chunked", method="POST") + chunks
    return (
        request("/api/one?q=1")
        + request("/nowhere")
        + request("/api/b", method="POST", body=b"z" * 90)
        + chunked
    )


def check_stream(edge: RunningEdge, pieces: list[bytes], pause_s: float = 0.0) -> None:
    with edge.client() as client:
        for piece in pieces:
            client.send(piece)
            if pause_s:
                time.sleep(pause_s)
        answers = [client.answer() for _ in range(4)]
    assert all(answers)
    assert [answer.status for answer in answers if answer] == [200, 404, 200, 200]
    echoes = [answer.json() for answer in answers if answer and answer.status == 200]
    assert [echo["target"] for echo in echoes] == ["/api/one?q=1", "/api/b", "/api/c"]
    assert [(echo["bytes"], echo["sum"]) for echo in echoes] == [
        (0, 0),
        (90, 90 * 122),
        (11, sum(b"hello world")),
    ]


def test_edge__request_stream_cut_at_every_position__same_answers(edge: RunningEdge) -> None:
    data = stream()
    for i in range(1, len(data)):
        check_stream(edge, [data[:i], data[i:]], pause_s=0.0005)


def test_edge__request_stream_byte_by_byte__same_answers(edge: RunningEdge) -> None:
    data = stream()
    check_stream(edge, [data[i : i + 1] for i in range(len(data))])


def test_edge__pipelined__answers_in_order(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(b"".join(request(f"/api/{i}") if i % 3 else request(f"/missing/{i}") for i in range(20)))
        for i in range(20):
            answer = client.answer()
            assert answer is not None
            assert answer.status == (200 if i % 3 else 404)
            assert not i % 3 or answer.json()["target"] == f"/api/{i}"


def test_edge__too_many_pipelined__those_kept_are_answered_then_the_end(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(MAX_PIPELINED=4)
    with edge.client() as client:
        client.send(request("/api/x") * 50)
        answers = []
        while (answer := client.answer()) is not None:
            answers.append(answer)
    assert len(answers) == 5
    assert answers[-1].headers["connection"] == "close"


@pytest.mark.parametrize("kind", ["chunked", "close", "plain"])
def test_edge__response_framings__whole_body_arrives(edge: RunningEdge, kind: str) -> None:
    with edge.client() as client:
        for _ in range(2):
            answer = client.send(request(f"/api/{kind}")).answer()
            assert answer is not None
            assert answer.json()["target"] == f"/api/{kind}"


def test_edge__response_without_length_to_http_1_0__ends_with_the_connection(edge: RunningEdge) -> None:
    with edge.client() as client:
        answer = client.send(b"GET /api/chunked HTTP/1.0\r\nX-API-Key: good-key\r\n\r\n").answer()
        assert answer is not None
        assert answer.json()["target"] == "/api/chunked"
        assert "transfer-encoding" not in answer.headers


def test_edge__bodiless_answers__connection_goes_on(edge: RunningEdge) -> None:
    with edge.client() as client:
        head = client.send(request("/api/x", method="HEAD")).answer(head=True)
        assert head is not None
        assert int(head.headers["content-length"]) > 0
        refused = client.send(request("/nowhere", method="HEAD")).answer(head=True)
        assert refused is not None
        assert refused.status == 404
        for what, status in (("nothing", 204), ("interim", 200), ("x", 200)):
            answer = client.send(request(f"/api/{what}")).answer()
            assert answer is not None
            assert answer.status == status


def test_edge__hop_by_hop_and_false_headers_of_the_upstream__do_not_get_through(edge: RunningEdge) -> None:
    headers = edge.ask(request("/api/hop")).headers
    assert not {"x-hop", "keep-alive"} & set(headers)
    assert headers["set-cookie"] == "a=1"
    assert headers["x-upstream"] == edge.targets[0].name
    assert headers["x-request-id"] != "lie"


def test_edge__expect_continue__asked_for_the_body_after_the_rules_only(edge: RunningEdge) -> None:
    expecting = ("Expect: 100-continue", "Content-Length: 3")
    with edge.client() as client:
        interim = client.send(request("/api/e", *expecting, method="POST")).answer()
        assert interim is not None
        assert interim.status == 100
        answer = client.send(b"abc").answer()
        assert answer is not None
        assert answer.json()["bytes"] == 3
    refused = edge.ask(request("/api/e", *expecting, method="POST", key=None))
    assert (refused.status, refused.headers["connection"]) == (401, "close")


def test_edge__absolute_form__served_for_its_own_host_only(edge: RunningEdge) -> None:
    assert edge.ask(request("http://edge.test/api/x?y")).json()["target"] == "/api/x?y"
    assert edge.ask(request("http://other.test/api/x")).status == 400


# --- malformed, ambiguous, too large
# ---------------------------------------------------------------------------------

HEAD = "POST /api/x HTTP/1.1\r\nHost: a\r\nX-API-Key: good-key\r\n"
SMUGGLING = {
    "no host": "GET /api/x HTTP/1.1\r\n\r\n",
    "two hosts": "GET /api/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "strange host": "GET /api/x HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "length and chunked": HEAD + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "same length twice": HEAD + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "length list": HEAD + "Content-Length: 4, 4\r\n\r\nabcd",
    "signed length": HEAD + "Content-Length: +4\r\n\r\nabcd",
    "hex length": HEAD + "Content-Length: 0x4\r\n\r\nabcd",
    "empty length": HEAD + "Content-Length: \r\n\r\n",
    "length beyond 63 bits": HEAD + "Content-Length: 9223372036854775808\r\n\r\n",
    "huge length": HEAD + "Content-Length: 99999999999999999999\r\n\r\n",
    "gzip, chunked": HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": HEAD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": "POST /api/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": "GET /api/x HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space before colon": "GET /api/x HTTP/1.1\r\nHost : a\r\n\r\n",
    "bare LF": "GET /api/x HTTP/1.1\nHost: a\n\n",
    "bare LF in headers": "GET /api/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare CR": "GET /api/x HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "NUL": "GET /api/x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "empty name": "GET /api/x HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "bad name": "GET /api/x HTTP/1.1\r\nHost: a\r\nX(y: b\r\n\r\n",
    "bad method": "G(T /api/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunk size 0x": HEAD + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size negative": HEAD + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk size overflow": HEAD + "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\nabc\r\n",
    "chunk longer than said": HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "dot segment": "GET /api/../admins HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded dot segment": "GET /api/%2e%2E/admins HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded slash": "GET /api%2Fx HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty segment": "GET //api/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "backslash": "GET /api\\x HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": "GET /api/x#y HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment after a query": "GET /api/x?a#b HTTP/1.1\r\nHost: a\r\nX-API-Key: good-key\r\n\r\n",
    "empty host": "GET /api/x HTTP/1.1\r\nHost:\r\nX-API-Key: good-key\r\n\r\n",
    "host with two ports": "GET /api/x HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
    "host with an escape": "GET /api/x HTTP/1.1\r\nHost: a%00b\r\n\r\n",
    "tab after chunked": HEAD + "Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "chunk size with a bare LF": HEAD + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "chunk that ends in a bare LF": HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
    "chunk extension with a bare CR": HEAD + "Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
    "length in a trailer": HEAD + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two keys": "GET /api/x HTTP/1.1\r\nHost: a\r\nX-API-Key: good-key\r\nX-API-Key: other\r\n\r\n",
    "garbage": "garbage\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_edge__malformed__400_and_the_end_alone_and_after_a_good_request(
    edge: RunningEdge, name: str
) -> None:
    bad = SMUGGLING[name].encode("latin-1")
    for good in (0, 1):
        with edge.client() as client:
            client.send(request("/api/first") * good + bad)
            for _ in range(good):
                first = client.answer()
                assert first is not None
                assert first.status == 200
            answer = client.answer()
            assert answer is not None
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert answer.headers["content-type"] == "application/problem+json"
            assert client.answer() is None
    assert eventually(lambda: edge.inflight() == 0)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /api/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /api/x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /api/x HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 120 + b"\r\n", 431),
        (b"GET /api/x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300_000, 431),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /api/x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /api/x HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
    ],
)  # fmt: skip
def test_edge__out_of_bounds__its_own_status_and_the_end(edge: RunningEdge, data: bytes, status: int) -> None:
    with edge.client() as client:
        with contextlib.suppress(OSError):
            client.send(data)
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.json()["status"]) == (status, status)
        assert client.answer() is None


def test_edge__endless_trailer__431_and_the_upstream_is_let_go(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(request("/api/x", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(60):
                client.send(b"y" * 1000)
                time.sleep(0.001)
        answer = client.answer()
    assert answer is not None
    assert answer.status == 431
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__malformed_body__one_line_in_the_log_with_the_requests_own_id(
    edge: RunningEdge, tmp_path: Path
) -> None:
    edge.worker.access_log = AccessLog(str(tmp_path / "access.log"))
    try:
        answer = edge.ask(
            request("/api/x", "Transfer-Encoding: chunked", "X-Request-Id: abc-1", method="POST") + b"zz\r\n"
        )
        assert eventually(lambda: not edge.worker.connections)
        edge.worker.access_log.close(30.0)
    finally:
        edge.worker.access_log = None
    assert (answer.status, answer.json()["request_id"]) == (400, "abc-1")
    (line,) = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert (line["status"], line["reason"], line["path"], line["request_id"]) == (
        400, "request_malformed", "/api/x", "abc-1",
    )  # fmt: skip
    assert edge.worker.tally.refusals == {"request_malformed": 1}
    assert [key[4] for key in edge.worker.tally.cells] == [4]


def test_edge__malformed_body_while_an_earlier_request_is_answered__both_get_their_answer(
    edge: RunningEdge,
) -> None:
    bad = request("/api/y", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n"
    with edge.client() as client:
        client.send(request("/api/x") + bad)
        answers = client.answer(), client.answer()
        assert [answer.status for answer in answers if answer] == [200, 400]
        assert client.ended()


def test_edge__client_that_never_takes_its_refusal__closed_in_the_end(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(LINGER_S=0.05, WRITE_TIMEOUT_S=0.05)
    with edge.client() as client:
        client.send(b"garbage\r\n\r\n")
        assert eventually(lambda: not edge.worker.connections)


@pytest.mark.parametrize("chunked", [False, True])
def test_edge__body_above_the_limit__413(
    edge: RunningEdge, gateway_conf: Callable[..., None], chunked: bool
) -> None:
    gateway_conf(MAX_BODY_BYTES=1000)
    body = b"x" * 2000
    data = request("/api/x", method="POST", body=body)
    if chunked:
        data = (
            request("/api/x", "Transfer-Encoding: chunked", method="POST")
            + b"7d0\r\n"
            + body
            + b"\r\n0\r\n\r\n"
        )
    answer = edge.ask(data)
    assert answer.status == 413
    assert eventually(lambda: edge.inflight() == 0)


# --- upstreams that misbehave
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["die", "garbage", "double-length", "endless-length", "odd-coding", "endless-head"]
)
def test_edge__upstream_without_a_usable_answer__502(edge: RunningEdge, kind: str) -> None:
    assert edge.ask(request(f"/api/{kind}", method="POST", body=b"x")).status == 502
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__upstream_breaks_off__the_client_sees_a_cut_connection(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(request("/api/half"))
        with contextlib.suppress(ConnectionResetError):
            assert b"half" in client.reader.read()
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__upstream_sends_a_second_answer__first_is_good_and_nobody_gets_the_second(
    edge: RunningEdge,
) -> None:
    with edge.client() as client:
        for _ in range(3):
            answer = client.send(request("/api/excess")).answer()
            assert answer is not None
            assert answer.body == b"ok"


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
def test_edge__answer_that_never_came__asked_again_only_when_that_does_no_harm(
    start_edge: Callable[..., RunningEdge], method: str, status: int
) -> None:
    with running(2) as (first, second):
        second.seen.append("die-once")
        edge = start_edge([route("/api", [target(first.port), target(second.port)])])
        assert edge.ask(request("/api/die-once", method=method)).status == status
        assert first.seen == ["die-once"]


def test_edge__early_answer_to_a_large_body__arrives_whole(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(request("/api/early", "Content-Length: 30000000", method="POST"))
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.send(b"x" * 262_144)
        answer = client.answer()
    assert answer is not None
    assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"early", "close")
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__refused_with_a_short_body__connection_goes_on(edge: RunningEdge) -> None:
    with edge.client() as client:
        client.send(request("/api/x", method="POST", body=b"q" * 9, key=None) + request("/api/ok"))
        answers = client.answer(), client.answer()
    assert [answer.status for answer in answers if answer] == [401, 200]


def test_edge__client_gone__upstream_is_let_go(edge: RunningEdge, behind: OddUpstream) -> None:
    for data, seen in (
        (request("/api/up", "Content-Length: 1000000", method="POST") + b"x" * 5000, "cut"),
        (request("/api/big"), "big cut"),
    ):
        client = edge.client().send(data)
        if seen == "big cut":
            client.reader.read(100_000)
        else:
            assert eventually(lambda: edge.inflight() == 1)
        client.close()
        assert eventually(lambda seen=seen: seen in behind.seen)  # type: ignore[misc]
        assert eventually(lambda: edge.inflight() == 0)
    assert edge.targets[0].breaker.state == "closed"


def test_edge__busy_upstream__passed_on_and_counted_by_the_breaker(edge: RunningEdge) -> None:
    answers = [edge.ask(request("/api/busy")) for _ in range(4)]
    assert [answer.body for answer in answers[:3]] == [b"busy"] * 3
    assert answers[3].json()["detail"] == "No healthy upstream is left."


# --- time
# ------------------------------------------------------------------------------------------------------------


def test_edge__idle_connection__closed_without_a_word(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    with edge.client() as client:
        client.send(request("/api/x"))
        assert client.answer() is not None
        gateway_conf(
            IDLE_TIMEOUT_S=0.1
        )  # from the next request on: it must not end the wait for the first one
        client.send(request("/api/x", "X-Other: 1"))
        assert client.answer() is not None
        assert client.ended()
    with edge.client() as client:
        assert client.ended()


@pytest.mark.parametrize("data", [b"GET /api/x HTTP/1.1\r\nHost: a\r\n", b"\r\n", b"GET /ap"])
def test_edge__slow_headers__408(edge: RunningEdge, gateway_conf: Callable[..., None], data: bytes) -> None:
    gateway_conf(HEADER_TIMEOUT_S=0.1)
    answer = edge.ask(data)
    assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_edge__slow_body__408_and_the_upstream_is_let_go(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(BODY_TIMEOUT_S=0.1)
    answer = edge.ask(request("/api/x", "Content-Length: 100", method="POST") + b"some")
    assert answer.status == 408
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__silent_upstream__504_after_the_routes_timeout(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    to = [target(upstream.port)]
    edge = start_edge([route("/api", to, timeout_s=0.15), route("/later", to, idle_timeout_s=0.15)])
    began = time.monotonic()
    answer = edge.ask(request("/api/hang", method="POST", body=b"x"))
    assert answer.status == answer.json()["status"] == 504
    assert 0.1 < time.monotonic() - began < 20.0
    assert edge.ask(request("/api/drip")).status == 504  # an answer is one when its head is whole
    with edge.client() as client:  # silent in the middle of the body: cut
        client.send(request("/later/stall"))
        with contextlib.suppress(ConnectionResetError):
            assert b"half" in client.reader.read()
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__upstream_that_does_not_read__504(
    start_edge: Callable[..., RunningEdge], upstream: OddUpstream
) -> None:
    edge = start_edge([route("/api", [target(upstream.port)], timeout_s=0.2)])
    with edge.client() as client:
        client.send(request("/api/deaf", "Content-Length: 50000000", method="POST"))
        with contextlib.suppress(OSError):
            for _ in range(190):
                client.send(b"x" * 262_144)
        answer = client.answer()
    assert answer is not None
    assert answer.status == 504
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__client_that_does_not_read__cut_off(
    edge: RunningEdge, behind: OddUpstream, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(WRITE_TIMEOUT_S=0.2)
    with edge.client(receive_buffer=4096) as client:
        client.send(request("/api/big"))
        assert eventually(lambda: "big cut" in behind.seen)
        assert eventually(lambda: edge.inflight() == 0)


# --- memory and the end
# ----------------------------------------------------------------------------------------------


def test_edge__slow_reader__response_waits_at_the_upstream(edge: RunningEdge) -> None:
    with edge.client(receive_buffer=4096) as client:
        client.send(request("/api/big"))
        assert eventually(lambda: any(c.stalled for c in list(edge.worker.connections)))
        (connection,) = edge.worker.connections
        time.sleep(0.1)
        assert connection.transport.get_write_buffer_size() < 1_000_000
        answer = client.answer()
    assert answer is not None
    assert len(answer.body) == BIG_BYTES


def test_edge__large_upload__flows_and_arrives(edge: RunningEdge) -> None:
    size = 16 * 1024 * 1024
    with edge.client() as client:
        client.send(request("/api/up", f"Content-Length: {size}", method="POST"))
        for _ in range(size // 262_144):
            client.send(b"x" * 262_144)
        answer = client.answer()
    assert answer is not None
    assert answer.json()["bytes"] == size


def test_edge__keep_alive__one_upstream_connection_serves_many(
    edge: RunningEdge, behind: OddUpstream
) -> None:
    edge.ask(request("/api/x"))
    before = behind.connections
    for _ in range(5):
        edge.ask(request("/api/x"))
    assert behind.connections == before
    assert eventually(lambda: bool(edge.targets[0].idle))


def test_edge__idle_upstream_connection__closed_in_time(
    edge: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    edge.ask(request("/api/x"))
    gateway_conf(UPSTREAM_IDLE_S=0.05)
    assert eventually(lambda: not edge.targets[0].idle)


def test_edge__access_log__one_line_without_query_and_credentials(edge: RunningEdge, tmp_path: Path) -> None:
    edge.worker.access_log = log = AccessLog(str(tmp_path / "access.log"))
    try:
        answer = edge.ask(request("/api/x?token=hidden"))
        edge.ask(request("/api/x", key=None))
        assert eventually(lambda: log.flush() or len((tmp_path / "access.log").read_text().splitlines()) == 2)
    finally:
        edge.worker.access_log = None
        log.close()
    good, bad = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert (good["request_id"], good["path"], good["status"]) == (
        answer.headers["x-request-id"],
        "/api/x",
        200,
    )
    assert (good["consumer"], good["target"], good["reason"]) == ("tester", edge.targets[0].name, "")
    assert (bad["status"], bad["reason"]) == (401, "credentials_missing")
    assert not {"hidden", "good-key"} & set((tmp_path / "access.log").read_text().replace('"', " ").split())


def test_edge__hung_exchange__does_not_keep_the_edge_from_stopping(
    upstream: OddUpstream, start_edge: Callable[..., RunningEdge], gateway_conf: Callable[..., None]
) -> None:
    """upstream before start_edge: it ends later, and goes on to hang while the edge stops."""
    gateway_conf(SHUTDOWN_GRACE_S=1.0)
    edge = start_edge([route("/api", [target(upstream.port)], timeout_s=60.0)])
    client = edge.client().send(request("/api/hang"))
    assert eventually(lambda: edge.inflight() == 1)
    # start_edge's end stops it and fails when it takes more than 30 s
    client.socket.detach()


def test_edge__json_problem__is_json(edge: RunningEdge) -> None:
    assert json.loads(edge.ask(request("/nowhere")).body)["type"] == "about:blank"
