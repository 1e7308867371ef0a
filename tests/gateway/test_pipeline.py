"""The rules, played without a socket."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from gateway import bucket, keys, pipeline
from gateway.accounts import Accounts
from gateway.auth import Identity
from gateway.calls import TRANSFORM, Call, Pause, Refusal, Relay, Route, TakeTokens, UpstreamFailed
from gateway.drive import adrive, drive
from gateway.identities import Identities
from gateway.policy import Policy
from gateway.pool import Target
from gateway.revoked import Revoked
from gateway.tally import Tally
from gateway.tokens import Verifier
from gateway.transforming import Transforms

from .conftest import route, service

PLAIN = Policy(breaker_volume=2, outlier_failures=0, slow_start_s=0.0)
MINUTE = bucket.per_window("minute", 60, 60, capacity=1)


def targets(count: int) -> list[Target]:
    return [Target("odd", f"10.0.0.{i}:80") for i in range(count)]


def through(*pool: Target, policy: Policy = PLAIN, **values: Any) -> Route:
    return route("/x", service(list(pool), policy=policy), **values)


def call(to: Route | None, method: str = "GET", api_key: bytes | None = b"good-key", **values: Any) -> Call:
    made = Call()
    made.route, made.method, made.client_ip, made.started, made.recorder = to, method, "1.2.3.4", 0.0, Tally()
    made.api_key = api_key
    for name, value in values.items():
        setattr(made, name, value)
    return made


def callers(**values: Any) -> Identities:
    digest = keys.digest(b"good-key")
    good = Identity("key:tester", "tester", frozenset({"operator"}), key_digest=digest, **values)
    return Identities({digest: good}, Verifier([]), Revoked())


def steps(one: Call, who: Identities | None = None) -> Any:
    return pipeline.steps(
        one, who or callers(), Accounts(lambda account: None), 100.0, lambda: 1.0, lambda: 0.5
    )


def play(one: Call, *answers: Any, who: Identities | None = None) -> list[Any]:
    """Run the steps, answering each with the next answer (an exception is thrown); what was yielded."""
    running = steps(one, who)
    yielded = [next(running)]
    try:
        for answer in answers:
            failed = isinstance(answer, Exception)
            yielded.append(running.throw(answer) if failed else running.send(answer))
    except StopIteration:
        pass
    running.close()
    return yielded


def recorded(one: Call) -> list[tuple[Any, ...]]:
    return [(*key[:3], key[4], cell.count) for key, cell in one.recorder.cells.items()]  # type: ignore[attr-defined]


def test_steps__good_request__target_relay_and_everything_given_back() -> None:
    (a,) = targets(1)
    one = call(through(a))
    assert play(one, 200, None) == [a, Relay(200)]
    assert (a.inflight, one.status) == (0, 200)
    assert recorded(one) == [("/x", "odd", a.name, 2, 1)]


@pytest.mark.parametrize(
    ("given", "values", "status", "code"),
    [
        ({}, None, 404, "route_not_found"),
        ({"method": "POST"}, {"methods": frozenset({"PUT"})}, 405, "method_not_allowed"),
        ({"api_key": None}, {}, 401, "credentials_missing"),
        ({"api_key": b"bad"}, {}, 401, "credentials_invalid"),
        ({"authorization": b"Bearer x", "api_key": None}, {}, 401, "credentials_invalid"),
        ({}, {"roles": frozenset({"admin"})}, 403, "role_missing"),
        ({}, {"scopes": frozenset({"read", "write"})}, 403, "scope_missing"),
    ],
)
def test_steps__refusals__status_code_and_nothing_taken(
    given: dict[str, Any], values: dict[str, Any] | None, status: int, code: str
) -> None:
    (a,) = targets(1)
    one = call(None if values is None else through(a, **values), **given)
    (refusal,) = play(one, who=callers(scopes=frozenset({"read"})))
    assert (refusal.status, refusal.code, one.code, one.status, a.inflight) == (status, code, code, status, 0)
    headers = dict(refusal.headers)
    assert headers.get("Allow") == ("PUT" if status == 405 else None)
    if code == "scope_missing":
        assert headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="read write"')
        assert "write" in refusal.detail


def test_steps__limit__asked_before_a_target_is_taken() -> None:
    (a,) = targets(1)
    three = (bucket.per_window("minute", 60, 60, capacity=3),)
    one = call(through(a, limits=three, cost=3))
    running = steps(one)
    ask = next(running)
    ask.account.levels = (0.25,)  # as the limiter does, which has them from the store
    refusal = running.send(bucket.Taken(False, (0.25,)))
    running.close()
    assert isinstance(ask, TakeTokens)
    assert (ask.account.limits[0].key, ask.cost) == ("{key:tester}:/x:minute", 3)
    assert (refusal.status, refusal.code) == (429, "rate_limited")
    assert {"Retry-After", "RateLimit-Policy"} <= set(dict(refusal.headers))
    assert (a.inflight, one.recorder.rate_limited) == (0, {"/x": 1})  # type: ignore[attr-defined]
    assert play(call(through(a, limits=(MINUTE,))), bucket.Taken(True, (0.0,), 1.0), 200, None)[1:] == [
        a,
        Relay(200),
    ]


@pytest.mark.parametrize(
    ("counted_by", "auth", "key"),
    [
        ("caller", True, "{key:tester}:/x:minute"),
        ("caller", False, "{ip:1.2.3.4}:/x:minute"),
        ("ip", True, "{ip:1.2.3.4}:/x:minute"),
        ("key", True, f"{{key:tester:{keys.digest(b'good-key').hex()[:16]}}}:/x:minute"),
    ],
)
def test_steps__counted_by__names_the_bucket(counted_by: str, auth: bool, key: str) -> None:
    to = through(*targets(1), limits=(MINUTE,), counted_by=counted_by, auth_required=auth)
    (ask,) = play(call(to))
    assert ask.account.limits[0].key == key


def test_steps__consumer_with_a_plan__both_plans_in_one_question() -> None:
    who = callers(limits=(bucket.per_window("consumer-hour", 5, 3600),), on_store_down="deny")
    (ask,) = play(call(through(*targets(1), limits=(MINUTE,), on_store_down="allow")), who=who)
    assert [one.key for one in ask.account.limits] == [
        "{key:tester}:/x:minute",
        "{key:tester}::consumer-hour",
    ]
    assert ask.account.on_store_down == "deny"


def test_steps__addresses_of_one_ipv6_network__one_bucket() -> None:
    to, accounts = through(*targets(1), limits=(MINUTE,), auth_required=False), Accounts(lambda account: None)
    found = {
        pipeline.decide(call(to, client_ip=ip), callers(), accounts, 100.0).account  # type: ignore[union-attr]
        for ip in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")
    }
    keys_ = sorted(one.limits[0].key for one in found)
    assert keys_ == ["{ip:2001:db8:0:1::/64}:/x:minute", "{ip:2001:db8::/64}:/x:minute"]


@pytest.mark.parametrize("counted_by", ["key", "ip"])
def test_steps__route_counts_otherwise__a_consumer_has_one_bucket_on_all_routes(counted_by: str) -> None:
    hour, accounts = (bucket.per_window("consumer-hour", 5, 3600),), Accounts(lambda account: None)
    who = callers(limits=hour)
    found = []
    for by, ip in (("caller", "1.2.3.4"), (counted_by, "1.2.3.4"), (counted_by, "5.6.7.8")):
        one = call(through(*targets(1), limits=(MINUTE,), counted_by=by), client_ip=ip)
        found.append(pipeline.decide(one, who, accounts, 100.0).account.limits)  # type: ignore[union-attr]
    assert [limits[1].key for limits in found] == ["{key:tester}::consumer-hour"] * 3
    assert found[0][0].key != found[1][0].key
    mine = call(through(*targets(1), limits=(MINUTE,), counted_by="ip"))
    others = Identity("key:other", "other", limits=hour)
    yours = call(mine.route, api_key=b"theirs")
    digest = keys.digest(b"theirs")
    both = [
        pipeline.decide(one, of, accounts, 100.0).account  # type: ignore[union-attr]
        for one, of in (
            (mine, who),
            (yours, Identities({digest: others}, Verifier([]), Revoked())),
            (mine, who),
        )
    ]
    assert both[0] is both[2] is not both[1]  # one address, two consumers that do not pay for each other
    assert both[1].limits[1].key == "{key:other}::consumer-hour"


def test_steps__consumers_plan_counts_keys_and_exactly__so_it_is_done() -> None:
    hour = (bucket.per_window("consumer-hour", 5, 3600),)
    (ask,) = play(
        call(through(*targets(1))), who=callers(limits=hour, counted_as="key:tester:ab", is_exact=True)
    )
    assert (ask.account.limits[0].key, ask.account.exact) == ("{key:tester:ab}::consumer-hour", True)


def test_steps__refused_a_moment_before_the_store_went_away__429() -> None:
    accounts, one = Accounts(lambda account: None), call(through(*targets(1), limits=(MINUTE,)))
    asked = pipeline.decide(one, callers(), accounts, 100.0)
    assert isinstance(asked, TakeTokens)
    asked.account.told(bucket.Taken(False, (0.5,)), one.started, 1.0)
    asked.account.levels = ()  # another request found the store gone, and its policy counts nothing
    refusal = pipeline.decide(one, callers(), accounts, 100.0)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, dict(refusal.headers)["Retry-After"]) == (429, "1")


def test_hung_up__tunnel_of_an_hour__its_latency_is_that_of_the_agreement() -> None:
    (a,) = targets(1)
    one = call(through(a))
    assert pipeline.decide(one, callers(), Accounts(lambda account: None), 100.0) is a
    one.opened = 0.5
    pipeline.hung_up(one, 3600.0)
    assert (a.inflight, one.status, a.ewma_s) == (0, 101, 0.5)
    assert recorded(one) == [("/x", "odd", a.name, 1, 1)]
    assert one.recorder.times["/x"][-1] == one.recorder.upstream["odd", a.name][-1] == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(("told", "said", "failures"), [(200, 503, 1), (503, 404, 0), (200, 200, 0)])
def test_answered__client_was_given_another_status__the_targets_own_counts(
    told: int, said: int, failures: int
) -> None:
    (a,) = targets(1)
    one = call(through(a))
    assert pipeline.decide(one, callers(), Accounts(lambda account: None), 100.0) is a
    pipeline.answered(one, told, 1.0, said)
    assert (a.breaker.failures, one.status, a.inflight) == (failures, told, 0)
    assert recorded(one) == [("/x", "odd", a.name, told // 100, 1)]


def test_steps__costs_more_than_the_consumers_plan_holds__429_and_nobody_is_told_to_come_back() -> None:
    hour = (bucket.per_window("consumer-hour", 5, 3600),)
    one = call(through(*targets(1), cost=6))
    refusal = play(one, bucket.Taken(False, (5.0,)), who=callers(limits=hour))[-1]
    assert (refusal.status, refusal.code) == (429, "rate_limited")
    assert "Retry-After" not in dict(refusal.headers)
    assert "costs more" in refusal.detail


def test_steps__store_down_and_denied__503() -> None:
    refusal = play(call(through(*targets(1), limits=(MINUTE,))), bucket.Taken(False))[-1]
    assert (refusal.status, refusal.code) == (503, "limiter_unavailable")


def test_steps__transformations__after_the_limits_and_before_a_target() -> None:
    (a,) = targets(1)
    to = through(a, limits=(MINUTE,), transforms=Transforms())
    assert play(call(to), bucket.Taken(True, (0.0,), 1.0), None, 200, None)[1:] == [TRANSFORM, a, Relay(200)]
    reply = Refusal(403, "plugin_reply", "")
    assert play(call(through(a, transforms=Transforms())), reply) == [TRANSFORM, reply]
    assert a.inflight == 0


def test_steps__first_target_fails__pause_and_the_second_answers() -> None:
    a, b = targets(2)
    one = call(through(a, b))
    assert play(one, UpstreamFailed("connect_failed", written=False), None, 200, None) == [
        a,
        Pause(0.0125),
        b,
        Relay(200),
    ]
    assert (a.inflight, b.inflight, one.tried, one.retrying) == (0, 0, (a,), False)
    assert one.recorder.retries == {"odd": 1}  # type: ignore[attr-defined]
    assert one.recorder.upstream_errors == {(a.name, "connect_failed"): 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "failure", "status"),
    [
        ("POST", UpstreamFailed("upstream_closed"), 502),
        ("GET", UpstreamFailed("response_timeout", timed_out=True), 504),
        ("PUT", UpstreamFailed("upstream_closed", replayable=False), 502),
    ],
)
def test_steps__what_may_do_harm_again__not_tried_again(
    method: str, failure: UpstreamFailed, status: int
) -> None:
    a, b = targets(2)
    refusal = play(call(through(a, b), method=method), failure)[-1]
    assert (refusal.status, refusal.code) == (status, failure.code)
    assert (a.inflight, b.inflight) == (0, 0)


def test_steps__post_that_never_left__tried_again() -> None:
    a, b = targets(2)
    played = play(
        call(through(a, b), method="POST"), UpstreamFailed("connect_failed", written=False), None, 201, None
    )
    assert played[-1] == Relay(201)


def test_steps__every_target_fails__as_often_as_the_policy_says() -> None:
    pool = targets(5)
    failure = UpstreamFailed("connect_failed", written=False)
    played = play(call(through(*pool)), failure, None, failure, None, failure, None)
    assert [type(step).__name__ for step in played] == [
        "Target",
        "Pause",
        "Target",
        "Pause",
        "Target",
        "Refusal",
    ]
    assert sum(target.inflight for target in pool) == 0


def test_steps__budget_spent__the_next_failure_is_final() -> None:
    pool = targets(3)
    to = through(*pool, policy=Policy(retry_budget_min=1, retry_budget_ratio=0.0))
    failure = UpstreamFailed("connect_failed", written=False)
    late = call(to)
    first, second = steps(call(to)), steps(late)
    next(first), next(second)
    assert isinstance(first.throw(failure), Pause)
    assert isinstance(second.throw(failure), Refusal)
    assert (late.recorder.retries, late.recorder.retries_denied) == ({}, {"odd": 1})  # type: ignore[attr-defined]
    first.close()  # its client is gone while it waits: the budget has its place back
    third = steps(call(to))
    next(third)
    assert isinstance(third.throw(failure), Pause)
    third.close()


def test_steps__stale_connection__free_and_no_word_against_the_target() -> None:
    (a,) = targets(1)
    one = call(through(a))
    assert play(one, UpstreamFailed("upstream_closed", stale=True), 200, None) == [a, a, Relay(200)]
    assert (one.recorder.upstream_errors, a.breaker.state) == ({}, "closed")  # type: ignore[attr-defined]
    again = play(call(through(a)), *[UpstreamFailed("upstream_closed", stale=True)] * 2)
    assert isinstance(again[-1], Refusal)


def test_steps__total_time_is_over__no_more_tries() -> None:
    a, b = targets(2)
    refusal = play(call(through(a, b), deadline=1.001), UpstreamFailed("connect_failed", written=False))[-1]
    assert isinstance(refusal, Refusal)


def test_steps__fallback__in_place_of_503_and_502() -> None:
    fallback = Refusal(200, "no_target", "", body=b"{}", content_type="application/json")
    (a,) = targets(1)
    assert play(call(through(fallback=fallback))) == [fallback]
    assert (
        play(call(through(a, fallback=fallback)), UpstreamFailed("connect_failed", written=False))[-1]
        == fallback
    )


@pytest.mark.parametrize("answers", [(), (200,)])
def test_steps__closed_anywhere__given_back_and_recorded_as_499(answers: tuple[int, ...]) -> None:
    (a,) = targets(1)
    one = call(through(a))
    play(one, *answers)
    assert (a.inflight, one.status, one.code) == (0, pipeline.CLIENT_GONE, "client_gone")


def test_steps__body_breaks_off__a_failure_of_the_target() -> None:
    (a,) = targets(1)
    one = call(through(a))
    play(one, 200, UpstreamFailed("upstream_closed"))
    assert (a.inflight, one.status, one.code) == (0, 200, "upstream_closed")


def test_steps__503s_of_a_target__open_its_breaker() -> None:
    (a,) = targets(1)
    to = through(a)
    for _ in range(2):
        play(call(to), 503, None)
    refusal = play(call(to))[0]
    assert (refusal.status, refusal.code, 4 <= int(dict(refusal.headers)["Retry-After"]) <= 6) == (
        503,
        "no_target",
        True,
    )


def test_drive__performs_steps_in_order_and_stops_at_the_relay() -> None:
    (a,) = targets(1)
    running = steps(call(through(a)))
    assert drive(running, lambda step: 200, nullcontext()) == Relay(200)
    assert a.inflight == 1  # the body is still to be relayed
    running.close()
    assert a.inflight == 0


def test_drive__unexpected_exception__raised_with_everything_given_back() -> None:
    (a,) = targets(1)

    def perform(step: Any) -> Any:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        drive(steps(call(through(a))), perform, nullcontext())
    assert a.inflight == 0


async def test_adrive__same_as_drive() -> None:
    async def perform(step: Any) -> Any:
        raise UpstreamFailed("connect_failed")

    step = await adrive(steps(call(through(*targets(1)))), perform)
    assert isinstance(step, Refusal)
    assert step.status == 502
