"""Answers kept for bad times: whose they are, which may be kept, and how much they hold together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import metrics, stale
from gateway.access_log import AccessLog
from gateway.headers import Headers
from gateway.stale import Answer, Answers

from .client import eventually, request
from .conftest import RunningEdge, route, target
from .odd_upstream import OddUpstream, running


def key(uri: bytes = b"/x", *fields: tuple[bytes, bytes]) -> stale.Key:
    return stale.key("route", "caller", b"example.com", uri, list(fields))


def kept(answers: Answers, count: int) -> int:
    """How many of the first `count` of `/%d` are still there."""
    return sum(answers.find(key(b"/%d" % i), 60.0, 0.0) is not None for i in range(count))


@pytest.mark.parametrize("name", [b"Cookie", b"authorization", b"Accept", b"Origin"])
def test_key__header_that_answers_differ_by__in_it(name: bytes) -> None:
    assert key(b"/x", (name, b"a")) != key(b"/x", (name, b"b"))
    assert key(b"/x", (name, b"a")) == key(b"/x", (name.upper(), b"a"))


def test_key__header_that_comes_twice__both_values_in_it() -> None:
    """A proxy may split the cookies of one request: the session may stand in any of the lines."""
    mine, yours = ((b"Cookie", b"session=%b" % who) for who in (b"me", b"you"))
    same = (b"Cookie", b"theme=dark")
    assert (
        len({key(b"/x", same), key(b"/x", mine, same), key(b"/x", yours, same), key(b"/x", same, mine)}) == 4
    )


def test_key__any_other_header__not_in_it() -> None:
    assert key(b"/x", (b"User-Agent", b"a")) == key(b"/x", (b"User-Agent", b"b"))


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (200, [], True),
        (200, [(b"Cache-Control", b"max-age=60")], True),
        (200, [(b"Cache-Control", b"public, max-age=60")], True),
        (200, [(b"Cache-Control", b'max-age=60, no-cache="x"')], False),
        (200, [(b"Cache-Control", b"no-cache")], False),
        (200, [(b"Cache-Control", b"max-age=60, Must-Revalidate")], False),
        (200, [(b"Cache-Control", b"proxy-revalidate, max-age=60")], False),
        (200, [(b"Vary", b"Accept, Cookie")], True),
        (200, [(b"Vary", b"*")], False),
        (200, [(b"Vary", b"User-Agent")], False),
        (200, [(b"cache-control", b"private")], False),
        (200, [(b"Cache-Control", b"max-age=60, Private")], False),
        (200, [(b"Cache-Control", b'private="x"')], False),
        (200, [(b"Cache-Control", b'max-age=60 , private = "x, y"')], False),
        (200, [(b"Cache-Control", b"no-store")], False),
        (200, [(b"Cache-Control", b"max-age=60"), (b"Cache-Control", b"NO-STORE")], False),
        (200, [(b"Set-Cookie", b"a=1")], False),
        (404, [], False),
        (206, [], False),
    ],
)
def test_may_be_kept__answers_own_headers__decide(status: int, fields: Headers, expected: bool) -> None:
    assert stale.may_be_kept(status, fields) is expected


def test_answers__kept__found_until_too_old() -> None:
    answers = Answers()
    answers.keep(key(), Answer([(b"A", b"1")], b"body", 10.0))
    found = answers.find(key(), 60.0, 70.0)
    assert found is not None
    assert found.body == b"body"
    assert answers.find(key(), 60.0, 70.1) is None
    assert answers.find(key(b"/y"), 60.0, 10.0) is None


def test_answers__empty_bodies_at_ever_new_addresses__bounded_and_the_oldest_go_first() -> None:
    answers = Answers(most_bytes=100_000)
    for i in range(1_000):
        answers.keep(key(b"/%d" % i), Answer([], b"", 0.0))
    assert 0 < kept(answers, 1_000) <= 200
    assert answers.find(key(b"/0"), 60.0, 0.0) is None
    assert answers.find(key(b"/999"), 60.0, 0.0) is not None


def test_answers__long_header_address_or_cookie__counted() -> None:
    long = b"x" * 60_000
    for one, headers in (
        (key(b"/new"), [(b"X-Long", long)]),
        (key(b"/" + long), []),
        (key(b"/new", (b"Cookie", long)), []),
    ):
        answers = Answers(most_bytes=61_000)
        for i in range(10):
            answers.keep(key(b"/%d" % i), Answer([], b"", 0.0))
        answers.keep(one, Answer(headers, b"", 0.0))
        assert answers.find(one, 60.0, 0.0) is not None
        assert kept(answers, 10) <= 1


def test_answers__same_key_again__counted_once() -> None:
    answers = Answers(most_bytes=5_000)
    answers.keep(key(b"/0"), Answer([], b"", 0.0))
    for _ in range(1_000):
        answers.keep(key(b"/1"), Answer([(b"A", b"1")], b"body", 0.0))
    assert kept(answers, 2) == 2


def test_answers__body_over_its_own_bound__not_kept() -> None:
    answers = Answers()
    answers.keep(key(), Answer([], b"x" * (stale.MAX_BODY_BYTES + 1), 0.0))
    assert answers.find(key(), 60.0, 0.0) is None


# --- on the edge
# ----------------------------------------------------------------------------------------------------------------
def go_away(one: OddUpstream, edge: RunningEdge) -> None:
    """Connections that are kept open have noticed it, too."""
    one.die()
    assert eventually(lambda: not any(up.alive for up in edge.targets[0].idle))


def test_edge__stale_answer__figures_and_log_say_what_the_client_got_and_why(
    start_edge: Callable[..., RunningEdge], tmp_path: Path
) -> None:
    with running(1) as (one,):
        edge = start_edge([route("/api", [target(one.port)], stale_s=60.0)])
        edge.worker.access_log = AccessLog(str(tmp_path / "access.log"))
        first = edge.ask(request("/api/x"))
        go_away(one, edge)
        answers = [edge.ask(request("/api/x")) for _ in range(5)]  # the breaker opens after two of them
    assert [answer.status for answer in answers] == [200] * 5
    assert eventually(lambda: not edge.worker.connections)  # the last answer comes before its line
    edge.worker.access_log.close(30.0)
    edge.worker.access_log = None
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [line["status"] for line in lines] == [200] * 6
    reasons = ["connect_failed"] * 2 + ["no_target"] * 3
    assert [line["reason"] for line in lines[1:]] == reasons
    assert {line["bytes_out"] for line in lines} == {len(first.body)}
    tally = edge.worker.tally
    counted = {(key[2] != "", key[4]): cell.count for key, cell in tally.cells.items()}
    assert counted == {(True, 2): 1, (False, 2): 5}
    assert tally.stale == {("/api", reason): reasons.count(reason) for reason in reasons}
    assert tally.upstream_errors == {(edge.targets[0].name, "connect_failed"): 2}
    assert tally.refusals == {}
    figures = metrics.render([edge.worker._figures()]).decode()
    assert 'brain_gateway_stale_answers_total{route="/api",reason="no_target"} 3' in figures


@pytest.mark.parametrize("framed", ["Content-Length: 3", "Transfer-Encoding: chunked"])
def test_edge__get_with_a_body__neither_kept_nor_answered_from_what_is(
    start_edge: Callable[..., RunningEdge], framed: str
) -> None:
    def asking(what: bytes) -> bytes:
        body = what if framed.endswith("3") else b"3\r\n%b\r\n0\r\n\r\n" % what
        return request("/api/x", framed) + body

    with running(1) as (one,):
        edge = start_edge([route("/api", [target(one.port)], stale_s=60.0)])
        assert edge.ask(asking(b"abc")).json()["bytes"] == 3
        go_away(one, edge)
        assert edge.ask(request("/api/x")).status == 502
    with running(1) as (one,):
        edge = start_edge([route("/api", [target(one.port)], stale_s=60.0)])
        assert edge.ask(request("/api/x")).status == 200
        go_away(one, edge)
        assert edge.ask(asking(b"abc")).status == 502


def test_edge__stale_answer_behind_a_proxy__of_the_host_that_its_client_asked_for(
    start_edge: Callable[..., RunningEdge], gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(TRUSTED_PROXIES=("127.0.0.0/8",))
    by = [("X-Forwarded-For: 192.0.2.1", f"X-Forwarded-Host: {host}.test") for host in "ab"]
    with running(1) as (one,):
        edge = start_edge([route("/api", [target(one.port)], stale_s=60.0)])
        assert edge.ask(request("/api/x", *by[0])).json()["headers"]["x-forwarded-host"] == ["a.test"]
        go_away(one, edge)
        assert [edge.ask(request("/api/x", *lines)).status for lines in by] == [200, 502]


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_edge__other_method_than_get__no_stale_answer(
    start_edge: Callable[..., RunningEdge], method: str
) -> None:
    with running(1) as (one,):
        edge = start_edge([route("/api", [target(one.port)], stale_s=60.0)])
        assert edge.ask(request("/api/x")).status == 200
        go_away(one, edge)
        with edge.client() as client:
            answer = client.send(request("/api/x", method=method)).answer(head=method == "HEAD")
    assert answer is not None
    assert answer.status == 502
