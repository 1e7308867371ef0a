"""What the tester says of a request is what the pipeline would do with it, and nothing of a credential."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, replace
from typing import Any

import pytest

from gateway import bucket, keys, tester, tokens
from gateway.auth import Identity
from gateway.board import Standing, View
from gateway.calls import Refusal, Route
from gateway.identities import Identities
from gateway.pool import Target
from gateway.revoked import Revoked
from gateway.routing import Router, Rule
from gateway.snapshot import Snapshot
from gateway.tester import Explanation, explain
from gateway.transforming import Transforms

from .conftest import SECRET, route, service, snapshot, target

GOLD = (bucket.per_window("consumer-hour", 1000, 3600),)
KEY, NARROW = "brn_secret_key_of_ann", "brn_secret_key_of_bob"


def one() -> Target:
    return target(9)


def serving(*routes: Route, **values: Any) -> Snapshot:
    ann = Identity(
        "key:ann",
        "ann",
        frozenset({"operator"}),
        frozenset({"read"}),
        GOLD,
        key_digest=keys.digest(KEY.encode()),
        plan="gold",
    )
    bob = Identity("key:bob", "bob", key_digest=keys.digest(NARROW.encode()))
    old = Identity("key:old", "old", key_digest=keys.digest(b"expired"), expires_at=1.0)
    known = {identity.key_digest: identity for identity in (ann, bob, old)}
    issuer = tokens.Issuer("brain", "HS256", SECRET, issuer="brain")
    identities = Identities(known, tokens.Verifier([issuer]), Revoked())
    rules = tuple(Rule(r, r.path, r.path_kind, methods=r.methods) for r in routes)
    return snapshot(list(routes), identities=identities, keys=known, rules=rules, **values)


def steps(found: Explanation) -> dict[str, str]:
    return {step.rule: step.result for step in found.steps}


def why(found: Explanation, rule: str) -> str:
    return next(step.why for step in found.steps if step.rule == rule)


def token(**claims: Any) -> str:
    return tokens.sign({"iss": "brain", "sub": "7", "exp": time.time() + 60} | claims, "HS256", SECRET)


# --- verdicts --------------------------------------------------------------------------------------------------------
def test_explain__passed_on__every_step_with_its_reason() -> None:
    limits = (bucket.per_window("minute", 60, 60, capacity=3),)
    to = service([one()], strategy="consistent_hash", hash_on="ip")
    found = explain(
        serving(route("/api", to, limits=limits, plan="silver", cost=2, roles=frozenset({"operator", "admin"}),
                      transforms=Transforms(names=("stamp", "sign")))),
        "get", "http://api.test/api/x?q=1", [("X-API-Key", KEY)], "10.0.0.9",
    )  # fmt: skip
    assert (found.verdict, found.status, found.route, found.service) == (
        "passed on to odd",
        None,
        "/api",
        "odd",
    )
    assert [(step.rule, step.result) for step in found.steps] == [
        (rule, "ok")
        for rule in ("match", "method", "authenticate", "authorise", "limit", "transform", "balance")
    ]
    assert why(found, "match") == "/api: prefix /api"
    assert why(found, "authenticate") == "the caller is key:ann"
    assert why(found, "authorise") == "the caller has one of the roles admin, operator"
    assert why(found, "limit").startswith("2 tokens from each, counted for key:ann;")
    assert found.plan == [
        "60 a minute, 3 at once (plan silver)", "1000 an hour (the consumer's plan gold, over all routes)",
    ]  # fmt: skip
    assert found.transforms == ["stamp", "sign"]
    assert why(found, "balance") == "consistent_hash by ip over 1 of 1 targets"
    assert found.targets == [("127.0.0.1:9", "")]


@pytest.mark.parametrize(
    ("url", "headers", "status", "rule", "told"),
    [
        ("/missing", {}, 404, "match", "no route matches: none that is enabled has this path"),
        ("/admin/x", {}, 404, "match", "the path belongs to the platform itself"),
        ("/api/../x", {}, 400, "request", "the path is ambiguous: a dot segment"),
        ("//api", {}, 400, "request", "the path is ambiguous: an empty segment"),
        ("/reading", {"X-API-Key": KEY}, 405, "method", "the route takes GET"),
        ("/api", {}, 401, "authenticate", "neither an API key nor a bearer token"),
        ("/api", {"X-API-Key": "brn_wrong"}, 401, "authenticate", "API key: unknown, revoked"),
        ("/api", {"Authorization": "Bearer a.b.c"}, 401, "authenticate", "header: "),
        ("/api", {"Authorization": f"Bearer {token(exp=5)}"}, 401, "authenticate", "exp: expired"),
        ("/admins", {"X-API-Key": KEY}, 403, "authorise", "roles: one of admin is needed, ann has operator"),
        ("/scoped", {"X-API-Key": NARROW}, 403, "authorise", "scopes: bob lacks read"),
    ],
)
def test_explain__each_refusal__status_and_reason(
    url: str, headers: dict[str, str], status: int, rule: str, told: str
) -> None:
    to = service([one()])
    shot = serving(
        route("/api", to), route("/admins", to, roles=frozenset({"admin"})),
        route("/scoped", to, scopes=frozenset({"read"})), route("/reading", to, methods=frozenset({"GET"})),
    )  # fmt: skip
    found = explain(shot, "POST", url, list(headers.items()))
    assert (found.status, steps(found)[rule]) == (status, "refused")
    assert told in why(found, rule)
    assert found.verdict.startswith(f"refused with {status}: ")


def test_explain__refused_at_the_door__the_rest_is_told_all_the_same() -> None:
    found = explain(serving(route("/api", service([one()]))), "GET", "/api")
    assert (found.status, steps(found)["balance"]) == (401, "ok")
    assert "limit" not in steps(found)  # nobody knows whose


def test_explain__open_route_token_and_consumer__who_is_counted() -> None:
    limits = (bucket.per_window("minute", 60, 60),)
    shot = serving(
        route("/open", service([one()]), auth_required=False, limits=limits),
        route("/keyed", service([one()]), limits=limits, counted_by="key"),
        route("/api", service([one()]), limits=limits),
    )
    assert "counted for the address 2001:db8::/64" in why(
        explain(shot, "GET", "/open", client_ip="2001:DB8::1"), "limit"
    )
    assert "counted for this key of ann" in why(explain(shot, "GET", "/keyed", consumer="ann"), "limit")
    signed = explain(shot, "GET", "/api", [("authorization", f"Bearer {token()}")])
    assert (signed.status, why(signed, "authenticate")) == (None, "the caller is jwt:brain:7")
    assert explain(shot, "GET", "/api", consumer="ann").verdict == "passed on to odd"
    nobody = explain(shot, "GET", "/api", consumer="nobody")
    assert (nobody.status, "no enabled consumer nobody has an API key" in nobody.verdict) == (401, True)
    assert steps(explain(shot, "GET", "/api", consumer="bob"))["limit"] == "ok"
    assert explain(shot, "GET", "/api", consumer="old").status == 401  # its key has expired


def test_explain__targets__whoever_is_out_and_why_by_this_process_or_the_fleet() -> None:
    first, second = target(9), target(10)
    shot = serving(route("/open", service([first, second]), auth_required=False))
    for _ in range(3):
        first.breaker.failed(first.breaker.epoch, time.monotonic())
    found = explain(shot, "GET", "/open")
    assert why(found, "balance") == "round_robin over 1 of 2 targets"
    assert re.search(r"open since \d+ s: 3 of 3 requests failed", dict(found.targets)["127.0.0.1:9"])
    bad = view("10.0.0.1:7", "health: connection refused")
    fleet = [standing("127.0.0.1:10", health="unhealthy", views=(bad,))]
    found = explain(shot, "GET", "/open", standings=fleet)
    assert (found.status, found.verdict) == (503, "refused with 503: no target is left")
    assert dict(found.targets)["127.0.0.1:10"] == "health: connection refused"


def view(process: str, told: str) -> View:
    return View(process, 0, "closed", told, 0.0, 0.0)


def standing(name: str, **values: Any) -> Standing:
    usual = Standing("odd", name, "active", "healthy", "", 0.0, 0.0, 0, "closed", 0.0, 0, ())
    return replace(usual, **values)


def test_explain__nothing_left__fallback_or_503() -> None:
    empty = service([])
    shot = serving(
        route("/a", empty, auth_required=False),
        route("/b", empty, auth_required=False, fallback=Refusal(200, "no_target", "")),
    )
    assert explain(shot, "GET", "/a").verdict == "refused with 503: the service has no target that is on"
    found = explain(shot, "GET", "/b")
    assert (found.status, why(found, "balance")) == (
        None,
        "no target is left: the service's fallback answers 200",
    )


# --- other routes ----------------------------------------------------------------------------------------------------
def test_others__routes_of_the_same_path__why_each_was_not_taken() -> None:
    to = service([one()])
    made = {name: replace_name(route("/a/b", to, auth_required=False), name) for name in
            ("taken", "older", "shorter", "host", "header", "method", "plain", "elsewhere")}  # fmt: skip
    get, anything = frozenset({"GET"}), frozenset[str]()
    rules = (
        Rule(made["taken"], "/a/b", hosts=("api.test",), methods=get, age=1.0),
        Rule(made["older"], "/a/b", hosts=("api.test",), methods=get, age=2.0),
        Rule(made["shorter"], "/a", methods=anything),
        Rule(made["host"], "/a/b", hosts=("*.other.test", "more.test")),
        Rule(made["header"], "/a/b", headers=((b"x-version", b"2"),)),
        Rule(made["method"], "/a/b", hosts=("api.test",), methods=frozenset({"PUT"}), age=0.0),
        Rule(made["plain"], "/a/b"),
        Rule(made["elsewhere"], "/b"),
    )
    shot = replace(serving(*made.values()), rules=rules, router=Router(rules))
    found = explain(shot, "GET", "/a/b", [("Host", "API.test:8080")])
    assert found.route == "taken"
    assert dict(found.others) == {
        "older": "it matches too, but taken is older",
        "shorter": "it matches too, but the path of taken is longer or more exact (prefix /a/b)",
        "host": "its path matches, but the host is not *.other.test or more.test",
        "header": "its path matches, but x-version is not 2",
        "method": "it matches too, but taken takes GET, and it does not",
        "plain": "it matches too, but taken asks for more: its host is more exact, or it has more headers",
    }
    lost = replace(shot, rules=rules[3:4], router=Router(rules[3:4]))
    found = explain(lost, "GET", "https://api.test/a/b")
    assert (found.status, found.others) == (
        404,
        [("host", "its path matches, but the host is not *.other.test or more.test")],
    )
    assert (
        why(found, "match") == "routes have this path, but none of them the host api.test and these headers"
    )


def replace_name(one: Route, name: str) -> Route:
    return replace(one, name=name)


def test_others__of_very_many__the_first_ones() -> None:
    to = service([one()])
    routes = [replace_name(route("/a", to, auth_required=False), str(number)) for number in range(50)]
    rules = tuple(Rule(each, each.path, age=float(number)) for number, each in enumerate(routes))
    shot = replace(serving(*routes), rules=rules, router=Router(rules))
    assert len(explain(shot, "GET", "/a").others) == tester.MOST_OTHERS


# --- what must not be told, and what cannot be asked --------------------------------------------------------------------
def test_explain__credentials__never_in_what_is_told() -> None:
    hashed = service([one()], strategy="consistent_hash", hash_on="cookie:session")
    shot = serving(
        route("/api", hashed),
        route("/header", service([one()], strategy="consistent_hash", hash_on="header:X-API-Key")),
    )
    secret = token(sub="7")
    for url in ("/api", "/header", "/none"):
        for headers in (
            [("X-API-Key", KEY), ("Cookie", "session=a-session-that-is-secret")],
            [("X-API-Key", "brn_some_wrong_secret")],
            [("Authorization", f"Bearer {secret}")],
            [("Authorization", f"Bearer {secret[:-6]}AAAAAA")],
            [("Authorization", "Basic dXNlcjpwYXNzd29yZA==")],
        ):
            told = str(asdict(explain(shot, "GET", url, headers)))
            for value in (
                KEY,
                "wrong_secret",
                secret[:30],
                secret[-20:],
                "dXNlcjpw",
                "a-session-that-is-secret",
            ):
                assert value not in told, (url, headers, told)
    lacking = explain(shot, "GET", "/api", [("X-API-Key", KEY)])
    assert (
        why(lacking, "balance")
        == "consistent_hash by cookie:session, which the request lacks, over 1 of 1 targets"
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"url": "api"}, "the URL begins with / or with http://HOST"),
        ({"url": "ftp://h/x"}, "the URL begins with"),
        ({"url": "http://[/x"}, "the URL cannot be read"),
        ({"headers": [("a b", "c")]}, "'a b' is not the name of a header"),
        ({"headers": [("", "c")]}, "'' is not the name of a header"),
        ({"headers": [("ä", "c")]}, "is not the name of a header"),
        ({"headers": [("X-A", "secret\r\nX-B: c")]}, "the value of X-A holds what no header can"),
        ({"client_ip": "here"}, "'here' is not an IP address"),
    ],
)
def test_explain__what_no_client_can_send__value_error_without_the_value(
    asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        explain(serving(route("/api", service([one()]))), "GET", **({"url": "/api"} | asked))
    assert "secret" not in str(refused.value)
