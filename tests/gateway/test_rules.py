"""The pure rules: credentials, keys, balancer, breaker, transform, and the pipeline played as a script."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from gateway import bucket, keys, pipeline, tokens, transform
from gateway.auth import Credentials, Identity, KeyRecord, authenticate, authorised
from gateway.balancer import picker
from gateway.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from gateway.drive import adrive, drive
from gateway.metrics import Tally
from gateway.pipeline import Call, Refusal, Relay, Route, TakeTokens, Target, UpstreamFailed

from .conftest import SECRET, route, snapshot

KEY = Credentials(api_key=b"good-key")


# --- keys and credentials
# --------------------------------------------------------------------------------------------


def test_generate__key__recognisable_by_its_prefix_and_stored_as_a_hash() -> None:
    new = keys.generate(random.Random(1).choice)
    brand, prefix, secret = new.text.split("_")
    assert (brand, prefix, len(prefix), len(secret)) == ("brn", new.prefix, 8, 43)
    assert new.digest == keys.digest(new.text.encode())
    assert keys.generate(random.Random(2).choice).text != new.text


@pytest.mark.parametrize("text", ["", "with space", "ümlaut", "tab\t", "x" * 513])
def test_imported__not_a_header_value__value_error(text: str) -> None:
    with pytest.raises(ValueError):
        keys.imported(text)


def test_authenticate__credentials__identity_or_none() -> None:
    access = snapshot([])
    expired = {keys.digest(b"old"): KeyRecord(Identity("key:old", "old"), expires_at=99.0)}
    token = tokens.sign({"sub": "7", "iss": "brain", "exp": 160}, "HS256", SECRET).encode()

    def who(credentials: Credentials, records: Any = access.keys) -> str | None:
        found = authenticate(credentials, records, access.verifier, 100.0)
        return found.subject if found else None

    assert who(KEY) == "key:tester"
    assert who(Credentials(b"bearer " + token)) == "jwt:brain:7"
    assert who(Credentials(api_key=b"wrong")) is None
    assert who(Credentials(api_key=b"old"), expired) is None
    assert who(Credentials(api_key=b"x" * 1000)) is None
    assert who(Credentials(b"Basic abc")) is None
    assert who(Credentials(b"Bearer " + token, b"wrong")) is None  # a good token does not save a bad key
    assert who(Credentials()) is None


@pytest.mark.parametrize(
    "claims", [{"sub": 7}, {"sub": ""}, {}, {"sub": "7", "roles": "admin"}, {"sub": "7", "roles": [1]}]
)
def test_authenticate__claims_of_the_wrong_shape__none(claims: dict[str, Any]) -> None:
    token = tokens.sign({"iss": "brain", "exp": 160} | claims, "HS256", SECRET).encode()
    assert authenticate(Credentials(b"Bearer " + token), {}, snapshot([]).verifier, 100.0) is None


def test_authorised__roles__any_one_of_them() -> None:
    identity = Identity("key:x", "x", frozenset({"operator"}))
    assert authorised(frozenset(), identity)
    assert authorised(frozenset({"operator", "admin"}), identity)
    assert not authorised(frozenset({"admin"}), identity)


# --- balancer
# --------------------------------------------------------------------------------------------------------


def targets(count: int, **values: Any) -> list[Target]:
    return [Target("abc"[i], "127.0.0.1", i + 1, Breaker(2, 10.0), **values) for i in range(count)]


def names(
    pick: Callable[..., Target | None], count: int, usable: Callable[[Target], bool] = lambda t: True
) -> str:
    return "".join(found.name if (found := pick(usable)) else "-" for _ in range(count))


def test_round_robin__one_unusable__the_others_take_turns() -> None:
    pick = picker("round_robin", [(t, 1) for t in targets(3)])
    assert names(pick, 6) == "abcabc"
    assert names(pick, 4, lambda t: t.name != "b") == "acac"
    assert names(pick, 1, lambda t: False) == "-"


def test_weighted__five_one_one__smooth() -> None:
    pick = picker("weighted", list(zip(targets(3), (5, 1, 1), strict=True)))
    assert names(pick, 7) == "aabacaa"


def test_least_connections__load_per_weight__lowest_wins_and_equals_take_turns() -> None:
    a, b, c = targets(3)
    a.inflight, b.inflight, c.inflight = 4, 0, 1
    pick = picker("least_connections", [(a, 10), (b, 1), (c, 1)])
    assert names(pick, 2) == "aa"
    a.inflight = b.inflight = c.inflight = 0
    assert sorted(set(names(picker("least_connections", [(t, 1) for t in (a, b, c)]), 3))) == ["a", "b", "c"]


def test_picker__unknown_strategy_or_no_target() -> None:
    with pytest.raises(ValueError, match="fastest"):
        picker("fastest", [])
    assert all(
        picker(strategy, [])(lambda t: True) is None
        for strategy in ("round_robin", "weighted", "least_connections")
    )


# --- breaker
# ---------------------------------------------------------------------------------------------------------


def test_breaker__consecutive_failures__open_then_one_probe_then_closed() -> None:
    breaker = Breaker(2, 10.0)
    breaker.failed(breaker.admit(0.0), 0.0)
    breaker.succeeded(breaker.admit(0.0))
    breaker.failed(breaker.admit(0.0), 0.0)
    assert breaker.state == CLOSED
    breaker.failed(breaker.admit(1.0), 1.0)
    assert (breaker.state, breaker.allows(5.0), breaker.wait_s(5.0)) == (OPEN, False, 6.0)
    assert breaker.allows(11.0)
    probe = breaker.admit(11.0)
    assert (breaker.state, breaker.allows(11.0)) == (HALF_OPEN, False)
    breaker.succeeded(probe)
    assert (breaker.state, breaker.allows(11.0)) == (CLOSED, True)


def test_breaker__failed_probe__open_again_from_now() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(breaker.admit(0.0), 0.0)
    breaker.failed(breaker.admit(10.0), 12.0)
    assert breaker.state == OPEN
    assert not breaker.allows(21.0)
    assert breaker.allows(22.0)


def test_breaker__late_result_of_an_older_state__ignored() -> None:
    breaker = Breaker(1, 10.0)
    late = breaker.admit(0.0)
    breaker.failed(breaker.admit(0.0), 0.0)
    breaker.succeeded(late)
    assert breaker.state == OPEN
    probe = breaker.admit(10.0)
    breaker.failed(late, 10.0)
    assert breaker.state == HALF_OPEN
    breaker.released(probe)
    assert breaker.allows(10.0)


# --- transform
# -------------------------------------------------------------------------------------------------------

ARRIVAL = transform.Arrival(b"1.2.3.4", b"https", b"edge.test", b"id-1")


def sent(headers: list[tuple[bytes, bytes]], **values: Any) -> dict[bytes, bytes]:
    given: dict[str, Any] = {
        "host": b"up:1", "identity": None, "api_key_header": b"x-api-key", "hide_authorization": True
    }  # fmt: skip
    return dict(transform.to_upstream(headers, ARRIVAL, **(given | values)))


def test_to_upstream__hop_by_hop_and_named_ones__end_here() -> None:
    headers = sent(
        [
            (b"Connection", b"X-Hop, close, Content-Type"),
            (b"X-Hop", b"1"),
            (b"Content-Type", b"a/b"),
            (b"TE", b"trailers"),
        ]
    )
    assert b"X-Hop" not in headers
    assert b"TE" not in headers
    assert headers[b"Content-Type"] == b"a/b"  # without it the message would mean something else


def test_to_upstream__what_only_the_gateway_says__replaced() -> None:
    claimed = [
        (name, b"lie")
        for name in (
            b"Host",
            b"X-Forwarded-For",
            b"x-consumer-id",
            b"X-Real-IP",
            b"Forwarded",
            b"X-Request-Id",
        )
    ]
    headers = sent(
        [*claimed, (b"Via", b"1.0 front")], identity=Identity("key:a b", "a\r\nb", frozenset({"x,y"}))
    )
    assert b"lie" not in headers.values()
    assert headers[b"X-Forwarded-For"] == b"1.2.3.4"
    assert headers[b"X-Consumer-Id"] == b"key:a%20b"
    assert headers[b"X-Consumer-Username"] == b"a%0D%0Ab"
    assert headers[b"X-Consumer-Roles"] == b"x%2Cy"
    assert headers[b"Via"] == b"1.0 front, 1.1 brain"


def test_to_upstream__open_route__authorization_is_the_upstreams_own() -> None:
    given = [(b"Authorization", b"Bearer x"), (b"X-API-Key", b"k")]
    assert sent(given, hide_authorization=False)[b"Authorization"] == b"Bearer x"
    assert b"Authorization" not in sent(given)
    assert b"X-API-Key" not in sent(given, hide_authorization=False)


def test_to_client__limit_headers__ours_where_we_limit_else_the_upstreams() -> None:
    theirs = [(b"RateLimit", b"theirs")]
    assert transform.to_client(theirs, []) == theirs
    assert transform.to_client(theirs, [(b"RateLimit", b"ours")]) == [(b"RateLimit", b"ours")]


# --- pipeline, played
# ------------------------------------------------------------------------------------------------


def call(one: Route | None, **values: Any) -> Call:
    given: dict[str, Any] = {
        "method": "GET",
        "credentials": KEY,
        "client_ip": "1.2.3.4",
        "started": 0.0,
        "recorder": Tally(),
    }
    return Call(one, **(given | values))


def play(one: Call, *answers: Any) -> list[Any]:
    """Run the steps, answering each with the next answer (an exception is thrown); what was yielded."""
    running = pipeline.steps(one, snapshot([]), 100.0, lambda: 1.0)
    yielded = [next(running)]
    try:
        for answer in answers:
            failed = isinstance(answer, Exception)
            yielded.append(running.throw(answer) if failed else running.send(answer))
    except StopIteration:
        pass
    running.close()
    return yielded


def test_steps__good_request__target_relay_and_everything_given_back() -> None:
    (a,) = targets(1)
    one = call(route("/x", [a]))
    assert play(one, 200, None) == [a, Relay(200)]
    assert (a.inflight, one.status) == (0, 200)
    assert one.recorder.requests == {("/x", "GET", "2xx"): 1}  # type: ignore[attr-defined]


def test_steps__limit__asked_before_a_target_is_taken() -> None:
    (a,) = targets(1)
    limit = bucket.per_window("minute", 60, 60, capacity=1)
    ask, refusal = play(call(route("/x", [a], limits=(limit,))), bucket.Taken(False, (0.25,)))
    assert isinstance(ask, TakeTokens)
    assert ask.limits[0].key == "{key:tester}:/x:minute"
    assert dict(refusal.headers) == {
        "Retry-After": "1", "RateLimit-Policy": '"minute";q=60;w=60', "RateLimit": '"minute";r=0;t=1'
    }  # fmt: skip
    assert a.inflight == 0


def test_steps__consumer_with_a_plan__both_plans_in_one_question() -> None:
    (a,) = targets(1)
    limit = bucket.per_window("minute", 60, 60)
    own = Identity("key:p", "p", limits=(bucket.per_window("consumer-hour", 5, 3600),), on_store_down="deny")
    access = snapshot([], keys={keys.digest(b"good-key"): KeyRecord(own)})
    step = pipeline.decide(call(route("/x", [a], limits=(limit,), on_store_down="allow")), access, 0.0, 0.0)
    assert isinstance(step, TakeTokens)
    assert [one.key for one in step.limits] == ["{key:p}:/x:minute", "{key:p}::consumer-hour"]
    assert step.on_store_down == "deny"


def test_steps__store_down_and_denied__503() -> None:
    limit = bucket.per_window("minute", 60, 60)
    played = play(call(route("/x", targets(1), limits=(limit,))), bucket.Taken(False))
    assert played[-1].status == 503


def test_steps__first_target_fails__second_answers() -> None:
    a, b = targets(2)
    assert play(call(route("/x", [a, b])), UpstreamFailed("connect", replayable=True), 200, None) == [
        a,
        b,
        Relay(200),
    ]
    assert (a.inflight, b.inflight, a.breaker.failures) == (0, 0, 1)


def test_steps__not_replayable_or_nobody_left__502_and_504() -> None:
    a, b = targets(2)
    assert play(call(route("/x", [a, b])), UpstreamFailed("lost"))[-1].status == 502
    assert (
        play(call(route("/x", [a])), UpstreamFailed("t", replayable=True, timed_out=True))[-1].status == 504
    )


@pytest.mark.parametrize("answers", [(), (200,)])
def test_steps__closed_anywhere__given_back_and_recorded_as_499(answers: tuple[int, ...]) -> None:
    (a,) = targets(1)
    one = call(route("/x", [a]))
    play(one, *answers)
    assert (a.inflight, one.status, a.breaker.failures) == (0, pipeline.CLIENT_GONE, 0)


def test_steps__body_breaks_off__a_failure_of_the_target() -> None:
    (a,) = targets(1)
    play(call(route("/x", [a])), 200, UpstreamFailed("broke off"))
    assert (a.inflight, a.breaker.failures) == (0, 1)


def test_decide__route_and_method__404_and_405() -> None:
    assert play(call(None))[0].status == 404
    refusal = play(call(route("/x", targets(1), methods=frozenset({"PUT"}))))[0]
    assert (refusal.status, dict(refusal.headers)["Allow"]) == (405, "PUT")


def test_drive__performs_steps_in_order_and_stops_at_the_relay() -> None:
    (a,) = targets(1)
    running = pipeline.steps(call(route("/x", [a])), snapshot([]), 0.0, lambda: 0.0)
    assert drive(running, lambda step: 200, nullcontext()) == Relay(200)
    assert a.inflight == 1  # the body is still to be relayed
    running.close()
    assert a.inflight == 0


def test_drive__unexpected_exception__raised_with_everything_given_back() -> None:
    (a,) = targets(1)
    running = pipeline.steps(call(route("/x", [a])), snapshot([]), 0.0, lambda: 0.0)

    def perform(step: Any) -> Any:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        drive(running, perform, nullcontext())
    assert a.inflight == 0


async def test_adrive__same_as_drive() -> None:
    (a,) = targets(1)

    async def perform(step: Any) -> Any:
        raise UpstreamFailed("connect")

    running = pipeline.steps(call(route("/x", [a])), snapshot([]), 0.0, lambda: 0.0)
    step = await adrive(running, perform)
    assert isinstance(step, Refusal)
    assert step.status == 502
