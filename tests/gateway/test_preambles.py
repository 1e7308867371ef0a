"""Headers that come again are not read again, and nobody can tell: whatever a whole message says, it says in pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway import headers as heads
from gateway import tokens
from gateway.edge import Edge
from gateway.pool import Target
from gateway.preambles import REST, TRIES, ResponsePreamble
from gateway.upstream import Upstream

from .client import Answer, request
from .conftest import SECRET, RunningEdge, route, service, target
from .odd_upstream import OddUpstream, running

FIRST = request("/api/first", "X-Keep: 1")
REST_OF_IT = FIRST.partition(b"\r\n")[2]


def again(line: str) -> bytes:
    """The first request's headers under another first line."""
    return line.encode("latin-1") + b"\r\n" + REST_OF_IT


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that was compared with the one before: whether the parser was spared."""
    seen: list[bool] = []
    original = Edge._comes_again

    def comes_again(self: Edge, *given: Any) -> bool:
        seen.append(original(self, *given))
        return seen[-1]

    monkeypatch.setattr(Edge, "_comes_again", comes_again)
    return seen


@pytest.fixture
def two() -> Iterator[list[OddUpstream]]:
    with running(2) as upstreams:
        yield upstreams


def told(answer: Answer | None) -> tuple[Any, ...] | None:
    """What an answer says, without what differs from request to request."""
    if answer is None:
        return None
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("x-request-id", "content-length", "date")
    }
    if not answer.body or answer.headers.get("content-type") != "application/json":
        return answer.status, headers, b"" if answer.status >= 400 else answer.body
    echo = json.loads(answer.body)
    for name in ("x-request-id", "traceparent"):
        echo["headers"].pop(name)
    return answer.status, headers, echo


def outcome(edge: RunningEdge, data: bytes, *, whole: bool) -> list[Any]:
    """What comes of it after the first request. whole: in one piece, else in two, which no memory is good for."""
    found: list[Any] = []
    with edge.client() as client:
        client.send(FIRST).answer()
        if whole:
            client.send(data)
        else:
            client.send(data[:1])
            asyncio.run(asyncio.sleep(0.02))  # so that the edge reads it by itself
            client.send(data[1:])
        client.send(b"hello" if b"Length: 5" in data else b"0\r\n\r\n" if b"chunked" in data else b"")
        head = data.startswith(b"HEAD")
        found.append(told(client.answer(head=head)))
        client.send(request("/api/last"))
        found.append(told(client.answer()))
    return found


LINES = {
    "other-path": "GET /api/other HTTP/1.1",
    "query": "GET /api/x?a=1&b=%20 HTTP/1.1",
    "head": "HEAD /api/x HTTP/1.1",
    "post": "POST /api/x HTTP/1.1",
    "delete": "DELETE /api/x HTTP/1.1",
    "no-route": "GET /nowhere HTTP/1.1",
    "wrong-method": "DELETE /reading/x HTTP/1.1",
    "dots": "GET /api/../admins/x HTTP/1.1",
    "encoded-slash": "GET /api/a%2fb HTTP/1.1",
    "header-before": "GET /api/x HTTP/1.1\r\nX-More: 2",
    "host-before": "GET /api/x HTTP/1.1\r\nHost: other",
    "length-before": "POST /api/x HTTP/1.1\r\nContent-Length: 5",
    "chunked-before": "POST /api/x HTTP/1.1\r\nTransfer-Encoding: chunked",
    "bare-newline": "GET /api/x HTTP/1.1\nX-More: 2",
    "two-requests": "GET /api/x HTTP/1.1\r\nHost: a\r\n\r\nGET /api/y HTTP/1.1",
    "version-1.0": "GET /api/x HTTP/1.0",
    "version-2": "GET /api/x HTTP/2.0",
    "space-at-the-end": "GET /api/x HTTP/1.1 ",
    "two-spaces": "GET  /api/x HTTP/1.1",
    "small-letters": "get /api/x HTTP/1.1",
    "connect": "CONNECT a.test:443 HTTP/1.1",
    "trace": "TRACE /api/x HTTP/1.1",
    "absolute": "GET http://edge.test/api/x HTTP/1.1",
    "absolute-elsewhere": "GET http://other.test/api/x HTTP/1.1",
    "fragment": "GET /api/x#y HTTP/1.1",
    "high-byte": "GET /api/\xe4 HTTP/1.1",
    "control": "GET /api/\x01 HTTP/1.1",
    "too-long": f"GET /api/{'x' * 9000} HTTP/1.1",
    "nothing": "",
    "no-target": "GET HTTP/1.1",
    "empty-line-before": "\r\nGET /api/x HTTP/1.1",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_edge__same_headers_again__as_if_they_had_been_read(edge: RunningEdge, line: str) -> None:
    assert outcome(edge, again(line), whole=True) == outcome(edge, again(line), whole=False)


def test_edge__same_headers_again__parser_is_spared(edge: RunningEdge, spared: list[bool]) -> None:
    with edge.client() as client:
        targets = []
        for path in ("first", "a?b=c", "d", "first"):
            targets.append(client.send(request(f"/api/{path}", "X-Keep: 1")).answer().json()["target"])
    assert targets == ["/api/first", "/api/a?b=c", "/api/d", "/api/first"]
    assert spared == [True] * 3


@pytest.mark.parametrize(
    "before",
    [
        FIRST + b"PU",
        FIRST + b"\r\n",
        FIRST[:20],
        request("/api/x", "X-Keep: 1", method="POST", body=b"abc"),
        request("/api/x", "Expect: 100-continue", method="POST"),
        request("/api/x", "Max-Forwards: 0", method="OPTIONS"),
    ],
    ids=["begun-method", "empty-line", "half", "body", "expects", "hops"],
)
def test_edge__not_one_whole_plain_request_before__read_as_ever(
    edge: RunningEdge, spared: list[bool], before: bytes
) -> None:
    with edge.client() as client:
        client.send(before)
        asyncio.run(asyncio.sleep(0.02))
        client.send(FIRST)
        client.answer()
    assert not any(spared)


def test_edge__headers_that_always_differ__no_longer_remembered(
    edge: RunningEdge, spared: list[bool]
) -> None:
    with edge.client() as client:
        for number in range(TRIES + 20):
            assert client.send(request("/api/x", f"X-Number: {number:03d}")).answer().status == 200
        assert len(spared) < TRIES
        for _ in range(REST + 3):
            assert client.send(FIRST).answer().status == 200
    assert spared[-1] is True


def bearer(subject: str, **claims: Any) -> str:
    claims = {"iss": "brain", "sub": subject, "exp": 4_000_000_000, "roles": ["operator"]} | claims
    return "Authorization: Bearer " + tokens.sign(claims, "HS256", SECRET)


def test_edge__other_credentials__each_is_who_it_is(edge: RunningEdge, spared: list[bool]) -> None:
    asked = [
        bearer("ann"),
        bearer("bob"),
        bearer("ann", exp=1),
        bearer("bob"),
        "Authorization: Bearer x",
        bearer("cid"),
    ]
    told = []
    with edge.client() as client:
        for line in asked:
            answer = client.send(request("/api/x", "X-Before: 1", line, "X-After: 1", key=None)).answer()
            told.append(
                answer.json()["headers"]["x-consumer-username"] if answer.status == 200 else answer.status
            )
    assert told == [["ann"], ["bob"], 401, ["bob"], 401, ["cid"]]
    assert spared == [True] * 5


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer a b",
        "Authorization: Basic a\r\nX-More: 2",
        "Authorization: Bearer a\r\n\r\nGET /api/y HTTP/1.1",
        "Authorization:  Bearer a",
        "Authorization: Bearer",
        "Authorization: ",
        "authorization: Bearer a",
        "Authorization: Bearer " + "a" * 9000,
        "Authorization: Bearer \xe4",
        "X-Authorization: Bearer a",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
    ],
    ids=["words", "more", "request", "spaces", "scheme", "empty", "small", "long", "byte", "other", "twice"],
)
def test_edge__what_only_looks_like_other_credentials__read_as_ever(
    edge: RunningEdge, spared: list[bool], line: str
) -> None:
    with edge.client() as client:
        assert client.send(request("/open/x", bearer("ann"), key=None)).answer().status == 200
        whole = told(client.send(request("/open/x", line, key=None)).answer())
    with edge.client() as client:
        assert whole == told(client.send(request("/open/x", line, key=None)).answer())
    assert spared == [False]


def test_edge__hash_of_credentials__goes_by_those_of_the_request(
    start_edge: Callable[..., RunningEdge], two: list[OddUpstream]
) -> None:
    one = service([target(up.port) for up in two], strategy="consistent_hash", hash_on="header:Authorization")
    served = start_edge([route("/x", one)])
    asked = [
        request("/x", bearer(f"user-{number}"), key=None) for number in range(40)
    ]  # each target has some
    with served.client() as client:
        together = [client.send(data).answer().headers["x-upstream"] for data in asked]
    alone = [served.ask(data).headers["x-upstream"] for data in asked]
    assert together == alone
    assert len(set(alone)) == 2


def test_edge__another_snapshot_with_another_key_header__headers_read_anew(edge: RunningEdge) -> None:
    holder = edge.worker.holder
    before = holder.snapshot
    with edge.client() as client:
        assert [client.send(FIRST).answer().status for _ in range(2)] == [200, 200]
        holder.snapshot = replace(before, api_key_header=b"x-key", names=heads.of_requests(b"x-key"))
        try:
            refused = client.send(FIRST).answer()
        finally:
            holder.snapshot = before
        assert refused.status == 401
        assert client.send(FIRST).answer().status == 200


# --- responses -----------------------------------------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """Of a target that nothing is sent to."""

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class Receiver:
    """Writes down what it is told."""

    wants_upgrade = False
    sent = True

    def __init__(self, method: str) -> None:
        self.method, self.heard = method, list[Any]()

    def answered(self, preamble: ResponsePreamble) -> bool:
        self.heard.append((preamble.status, b"".join(preamble.lines), preamble.limits))
        return preamble.length is not None or preamble.is_chunked

    def wrote(self, data: bytes) -> None:
        if isinstance(self.heard[-1], bytes):
            data = self.heard.pop() + data
        self.heard.append(data)

    def flush(self) -> None:
        pass

    def finished(self, trailers: Any) -> None:
        self.heard.append(("finished", trailers))

    def lost(self, code: str) -> None:
        self.heard.append(("lost", code))

    def upgraded(self, rest: bytes) -> None:
        self.heard.append(("upgraded", rest))

    def hold(self) -> None:
        pass

    release = hold


ANSWER = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nRateLimit: r=1\r\nContent-Length: 4\r\n\r\n"
ANSWERS: dict[str, list[bytes]] = {
    "same": [ANSWER + b"abcd", ANSWER + b"efgh", ANSWER + b"\r\n\r\n"],
    "shorter": [ANSWER + b"abcd", ANSWER + b"abc"],
    "more-than-it-says": [ANSWER + b"abcd", ANSWER + b"abcdHTTP/1.1 200 OK\r\n\r\n"],
    "other-length": [ANSWER + b"abcd", ANSWER.replace(b"4", b"5") + b"abcde"],
    "hop-header": [ANSWER.replace(b"X-A", b"Connection: x-a\r\nX-A") + b"abcd"] * 2,
    "closes": [ANSWER.replace(b"X-A: 1", b"Connection: close") + b"abcd"] * 2,
    "chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] * 3,
    "empty": [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] * 3,
    "no-content": [b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\n"] * 3,
    "not-modified": [b"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\n"] * 3,
    "interim": [b"HTTP/1.1 103 E\r\n\r\n" + ANSWER + b"abcd", ANSWER + b"abcd"],
    "body-like-a-head": [ANSWER.replace(b"4", b"8") + b"\r\n\r\n\r\n\r\n"] * 3,
    "error": [ANSWER.replace(b"200 OK", b"503 No") + b"abcd", ANSWER + b"abcd"],
}


def heard(answers: list[bytes], *, whole: bool, methods: list[str] | None = None) -> list[Any]:
    up = Upstream(Target("s", "t"))
    up.connection_made(Transport())
    found: list[Any] = []
    for answer, method in zip(answers, methods or ["GET"] * len(answers), strict=True):
        receiver = Receiver(method)
        up.begin(receiver, b"")
        for piece in [answer] if whole else [answer[i : i + 1] for i in range(len(answer))]:
            up.data_received(piece)
        found.append((receiver.heard, up.alive))
        if not up.target.idle:
            break
        up.target.idle.clear()
    return found


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_upstream__same_head_again__as_if_it_had_been_read(answers: list[bytes]) -> None:
    assert heard(answers, whole=True) == heard(answers, whole=False)


def test_upstream__answers_to_head__never_taken_for_answers_to_get() -> None:
    methods = ["GET", "HEAD", "GET", "HEAD", "GET"]
    answers = [ANSWER + b"abcd" if method == "GET" else ANSWER for method in methods]
    in_one = heard(answers, whole=True, methods=methods)
    assert in_one == heard(answers, whole=False, methods=methods)
    assert [told[0][1] for told in in_one] == [
        b"abcd",
        ("finished", None),
        b"abcd",
        ("finished", None),
        b"abcd",
    ]


def test_upstream__same_head_again__parser_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    original, spared = Upstream._comes_again, list[bool]()

    def comes_again(self: Upstream, *given: Any) -> bool:
        spared.append(original(self, *given))
        return spared[-1]

    monkeypatch.setattr(Upstream, "_comes_again", comes_again)
    heard(ANSWERS["same"], whole=True)
    assert spared == [True, True]
