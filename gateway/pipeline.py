"""The rules of a request in one place, without I/O: method, authenticate, authorise, limit, balance, breaker, record.

Every rule is a plain function that returns the next step:

    Refusal      answer the client with it; the call is over
    TakeTokens   ask the limiter, then call `admitted` with its answer
    Target       send the request there, then call `answered`, `broken`, `failed` or `abandoned`
    Pause        wait so long, then call `resumed`
    TRANSFORM    change the request (read its body first if the edits ask for it), then call `transformed`

The edge follows them by callback. `steps` strings the same functions together as a generator for the DRF door and any
async caller (see drive.py). Every exit gives back what was taken: the target's place, the breaker's probe, the retry.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from . import retry
from .accounts import Account, Accounts
from .auth import Identity, of_one_key
from .bucket import Taken
from .calls import (
    TRANSFORM,
    Access,
    Call,
    HeaderPairs,
    Pause,
    Refusal,
    Relay,
    Route,
    Step,
    TakeTokens,
    Transform,
    UpstreamFailed,
)
from .forwarding import counted
from .pool import ACTIVE, FAILED, NO_VERDICT, OK, Service, Target

CLIENT_GONE = 499  # nginx's number; only ever seen in logs and metrics
_NO_SERVICE = (502, 503, 504)  # the target answers, but says that it cannot serve: the breaker counts these


def decide(call: Call, access: Access, accounts: Accounts, wall: float) -> Step:
    """The first step. wall: seconds since the epoch, for expiry."""
    route = call.route
    if route is None:
        return _refuse(call, call.started, 404, "route_not_found", "No route matches this request.")
    if call.method not in route.methods:
        return _method_not_allowed(call, route)
    if route.outage is not None:  # before anything that might let somebody pass
        detail = "This route is out of service: what it is configured with cannot be used."
        return _refuse(call, call.started, 503, route.outage.code, detail)
    identity = None
    if route.auth_required:
        call.identity = identity = access.identify(call.authorization, call.api_key, wall)
        if identity is None:
            return _unauthenticated(call)
        if route.roles and route.roles.isdisjoint(identity.roles):
            detail = "The credentials are good, but hold none of the roles that this route asks for."
            return _refuse(call, call.started, 403, "role_missing", detail)
        if route.scopes and not route.scopes <= identity.scopes:
            return _scope_missing(call, route, identity)
    if route.limits or (identity is not None and identity.limits):
        call.account = account = _account(call, route, identity, accounts)
        paid = account.spend(call.started, route.cost)
        if not paid:
            return (
                TakeTokens(account, route.cost)
                if paid is None
                else _limited(call, route, account, call.started)
            )
    if route.transforms is not None:
        return TRANSFORM
    return _balance(call, route, call.started)


def admitted(call: Call, taken: Taken, now: float) -> Step:
    """Goes on after TakeTokens."""
    route = _route(call)
    if taken.admitted:
        return TRANSFORM if route.transforms is not None else _balance(call, route, now)
    account = call.account
    assert account is not None  # noqa: S101  (decide returned TakeTokens)
    if taken.levels:
        return _limited(call, route, account, now)
    call.recorder.limited(route.name)
    detail = "The rate limits cannot be counted at the moment."
    return _refuse(call, now, 503, "limiter_unavailable", detail, (("Retry-After", "1"),))


def transformed(call: Call, reply: Refusal | None, now: float) -> Step:
    """Goes on after TRANSFORM. reply: what a plugin answers, or what is wrong with the body."""
    if reply is not None:
        call.code = reply.code
        if reply.body is None and reply.status >= 500 and _may_be_answered(call):
            return replace(reply, is_open=True)
        _record(call, reply.status, "", now)
        return reply
    return _balance(call, _route(call), now)


def refused(call: Call, status: int, now: float) -> None:
    """Goes on after a Refusal that is open, once the plugins have been asked. status: that the client gets. Harmless
    when the call is over."""
    if not call.status:
        _record(call, status, "", now)


def answered(call: Call, status: int, now: float, said: int = 0) -> None:
    """The response has been relayed to its end. A 500 is the application's answer; 502, 503, 504 say "no service".

    said: the target's own status, where the client was given another."""
    target, route = _target(call), _route(call)
    outcome, said = OK, said or status
    if said in _NO_SERVICE:
        call.recorder.upstream_failed(target.name, f"status_{said}")
        outcome = FAILED
    # What `_settle` and `_record` do, without their calls: this is every request's way.
    call.target, call.status, began, identity = None, status, call.began, call.identity
    call.upstream_s += now - began
    route.service.settle(target, call.epoch, outcome, (call.opened or now) - began, now)
    if call.retrying:
        _retried(call)
    call.recorder.finished(
        route.name, route.service.name, target.name, call.method, status, identity.plan if identity is not None else "",
        now - call.started, call.upstream_s, call.bytes_in, call.bytes_out,
    )  # fmt: skip


def hung_up(call: Call, now: float) -> None:
    """A tunnel is over. It took as long as it took to agree on it: how long it stood would be no latency of the route's."""
    route, opened, target = _route(call), call.opened or now, _target(call).name
    _settle(call, OK, now)
    call.upstream_s -= now - opened
    call.status = 101
    call.recorder.finished(
        route.name, route.service.name, target, call.method, 101, call.identity.plan if call.identity is not None else "",
        opened - call.started, call.upstream_s, call.bytes_in, call.bytes_out,
    )  # fmt: skip


def spoilt(call: Call, detail: str, now: float) -> Refusal:
    """The target answered, but a plugin that must not fail did: the client sees nothing of the answer."""
    _settle(call, OK, now)
    return _refuse(call, now, 502, "plugin_failed", detail)


def broken(call: Call, status: int, code: str, now: float) -> None:
    """The target broke off in the middle of its response, of which the client has seen this status."""
    target = _target(call)
    call.code = code
    call.recorder.upstream_failed(target.name, code)
    _settle(call, FAILED, now)
    _record(call, status, target.name, now)


def failed(call: Call, failure: UpstreamFailed, random: Callable[[], float], now: float) -> Step:
    """No response came: another target when that does no harm, else a Refusal. random: 0 to 1, for the jitter."""
    target, route = _target(call), _route(call)
    service = route.service
    verdict = retry.decide(
        call.method, written=failure.written, answered=failure.answered, stale=failure.stale,
        replayable=failure.replayable and not failure.timed_out, attempts=len(call.tried) + 1, freed=call.freed,
        policy=service.policy,
    )  # fmt: skip
    if verdict == retry.FREE:  # nothing is known against the target
        call.freed = True
        _settle(call, NO_VERDICT, now)
        return _balance(call, route, now)
    call.recorder.upstream_failed(target.name, failure.code)
    _settle(call, FAILED, now)
    call.tried += (target,)
    if verdict == retry.BUDGETED and _has_another(call, service):
        pause_s = retry.backoff_s(len(call.tried), random, call.deadline - now, service.policy)
        if pause_s is not None:
            if service.may_retry(now):
                call.retrying = True
                call.recorder.retried(service.name)
                return Pause(pause_s)
            call.recorder.retry_denied(service.name)
    return _given_up(call, failure, now)


def resumed(call: Call, now: float) -> Step:
    """Goes on after Pause."""
    return _balance(call, _route(call), now)


def timed_out(call: Call, now: float) -> Refusal:
    """The whole time for this call is over, whatever it waits for."""
    was_admitted = call.target is not None or bool(call.tried)  # else the limits may still say no
    if call.target is not None:
        call.recorder.upstream_failed(call.target.name, "total_timeout")
        _settle(call, FAILED, now)
    elif call.retrying:
        _retried(call)
    older = _older(call, "total_timeout", now) if was_admitted else None
    if older is not None:
        return older
    return _refuse(call, now, 504, "total_timeout", "The request took longer than it may in all.")


def abandoned(call: Call, now: float, status: int = CLIENT_GONE) -> None:
    """The client went away, or what it sent made no sense and was answered with this status: no verdict on the target.
    Harmless when the call is over."""
    if call.status:
        return
    name = ""
    if call.target is not None:
        name = call.target.name
        _settle(call, NO_VERDICT, now)
    elif call.retrying:
        _retried(call)
    call.code = call.code or "client_gone"
    _record(call, status, name, now)


def steps(
    call: Call, access: Access, accounts: Accounts, wall: float, now: Callable[[], float],
    random: Callable[[], float],
) -> Generator[Step | Relay, Any, None]:  # fmt: skip
    """The same rules as a generator: send Taken for TakeTokens, a status for Target, a Refusal or None for TRANSFORM,
    None for Pause, and for Relay the status that the client was given, None for the same.

    A Refusal is the last thing it yields. Closing it at any point gives back what was taken.
    """
    step: Step | None = None
    try:
        step = decide(call, access, accounts, wall)
        while not isinstance(step, Refusal):
            if isinstance(step, TakeTokens):
                step = admitted(call, (yield step), now())
                continue
            if isinstance(step, Transform):
                step = transformed(call, (yield step), now())
                continue
            if isinstance(step, Pause):
                yield step
                step = resumed(call, now())
                continue
            try:
                status = yield step
            except UpstreamFailed as failure:
                step = failed(call, failure, random, now())
                continue
            try:
                told = yield Relay(status)
            except UpstreamFailed as failure:
                if failure.answered:
                    step = failed(call, failure, random, now())
                    continue
                broken(call, status, failure.code, now())
            else:
                answered(call, told or status, now(), status)
            return
        yield step
    finally:
        if isinstance(step, Refusal):
            refused(call, step.status, now())
        abandoned(call, now())


def _target(call: Call) -> Target:
    assert call.target is not None  # noqa: S101  (each target is given back once)
    return call.target


def _has_another(call: Call, service: Service) -> bool:
    return any(target.state == ACTIVE and target not in call.tried for target in service.targets)


def _route(call: Call) -> Route:
    assert call.route is not None  # noqa: S101  (what has no route is refused first)
    return call.route


def _account(call: Call, route: Route, identity: Identity | None, accounts: Accounts) -> Account:
    if identity is None or route.counted_by == "ip":
        subject = f"ip:{counted(call.client_ip, route.ipv6_prefix)}"
    elif route.counted_by == "key" and identity.key_digest:
        subject = of_one_key(identity.subject, identity.key_digest)
    else:
        subject = identity.subject
    if identity is None or not identity.limits:
        return accounts.of(subject, route.name, route.limits, (), route.on_store_down, route.is_exact)
    owner = identity.counted_as or identity.subject  # whatever the route counts by
    policy, exact = identity.on_store_down or route.on_store_down, route.is_exact or identity.is_exact
    if owner == subject:
        return accounts.of(subject, route.name, route.limits, identity.limits, policy, exact)
    return accounts.of(subject, route.name, route.limits, identity.limits, policy, exact, owner)


def _limited(call: Call, route: Route, account: Account, now: float) -> Refusal:
    call.recorder.limited(route.name)
    if any(
        limit.capacity < route.cost for limit in account.limits
    ):  # a consumer's own plan, on an expensive route
        detail = "This request costs more than the limits of its caller ever hold."
        return _refuse(call, now, 429, "rate_limited", detail)
    wait_s = account.retry_after_s(route.cost)
    detail = f"Too many requests: try again in {wait_s} s."
    return _refuse(call, now, 429, "rate_limited", detail, (("Retry-After", str(wait_s)),))


def _balance(call: Call, route: Route, now: float) -> Target | Refusal:
    target = route.service.take(now, call.key, call.tried)
    if target is None:
        return _no_target(call, route, now)
    call.target, call.epoch, call.began = target, target.breaker.epoch, now
    return target


def _settle(call: Call, outcome: str, now: float) -> None:
    target, call.target = _target(call), None
    call.upstream_s += now - call.began
    latency_s = (call.opened or now) - call.began
    _route(call).service.settle(target, call.epoch, outcome, latency_s, now)
    if call.retrying:
        _retried(call)


def _retried(call: Call) -> None:
    call.retrying = False
    _route(call).service.retried()


def _record(call: Call, status: int, target: str, now: float) -> None:
    call.status = status
    route, identity = call.route, call.identity
    plan = identity.plan if identity is not None else ""
    if route is None:
        call.recorder.finished(
            "", "", "", call.method, status, plan, now - call.started, 0.0, call.bytes_in, call.bytes_out
        )
    else:
        call.recorder.finished(
            route.name, route.service.name, target, call.method, status, plan, now - call.started, call.upstream_s,
            call.bytes_in, call.bytes_out,
        )  # fmt: skip


def _given_up(call: Call, failure: UpstreamFailed, now: float) -> Refusal:
    route = _route(call)
    if (older := _older(call, failure.code, now)) is not None:
        return older
    if route.fallback is not None:
        return _fall_back(call, route.fallback, now)
    if failure.timed_out:
        return _refuse(call, now, 504, failure.code, "The upstream did not answer in time.")
    return _refuse(call, now, 502, failure.code, "The upstream could not be reached or broke off.")


def _no_target(call: Call, route: Route, now: float) -> Refusal:
    if call.retrying:
        _retried(call)
    if (older := _older(call, "no_target", now)) is not None:
        return older
    if route.fallback is not None:
        return _fall_back(call, route.fallback, now)
    wait_s = max(1, round(route.service.wait_s(now)))
    detail = "No healthy upstream is left."
    return _refuse(call, now, 503, "no_target", detail, (("Retry-After", str(wait_s)),))


def _older(call: Call, code: str, now: float) -> Refusal | None:
    """Counted as what the client gets, and for itself: the failures of targets are counted already."""
    route = _route(call)
    older = call.older_answer(code, now) if route.stale_s else None
    if older is not None:
        call.code = code
        call.recorder.answered_stale(route.name, code)
        _record(call, older.status, "", now)
    return older


def _fall_back(call: Call, fallback: Refusal, now: float) -> Refusal:
    call.code = call.code or "no_target"
    _record(call, fallback.status, "", now)
    return fallback


def _method_not_allowed(call: Call, route: Route) -> Refusal:
    allow = ", ".join(sorted(call.takes() | route.methods))
    return _refuse(
        call, call.started, 405, "method_not_allowed", f"This path takes {allow}.", (("Allow", allow),)
    )


def _unauthenticated(call: Call) -> Refusal:
    if call.api_key is None and call.authorization is None:
        challenge, code = 'Bearer realm="brain"', "credentials_missing"
        detail = "This route needs an API key or a bearer token."
    else:
        challenge, code = 'Bearer realm="brain", error="invalid_token"', "credentials_invalid"
        detail = "The API key or token is not accepted."
    return _refuse(call, call.started, 401, code, detail, (("WWW-Authenticate", challenge),))


def _scope_missing(call: Call, route: Route, identity: Identity) -> Refusal:
    """RFC 6750 section 3.1."""
    missing = " ".join(sorted(route.scopes - identity.scopes))
    challenge = f'Bearer realm="brain", error="insufficient_scope", scope="{" ".join(sorted(route.scopes))}"'
    return _refuse(
        call, call.started, 403, "scope_missing", f"The credentials lack the scope {missing}.",
        (("WWW-Authenticate", challenge),),
    )  # fmt: skip


def _refuse(
    call: Call, now: float, status: int, code: str, detail: str, headers: HeaderPairs = ()
) -> Refusal:
    call.code = code
    call.recorder.refused(code)
    if call.account is not None:
        headers += tuple(call.account.header_pairs())
    if status >= 500 and _may_be_answered(call):
        return Refusal(status, code, detail, headers, is_open=True)
    _record(call, status, "", now)
    return Refusal(status, code, detail, headers)


def _may_be_answered(call: Call) -> bool:
    """Whether a plugin of the route has something to say to failures. It is asked by the door: its code must not run
    in here, where others wait for a lock."""
    if call.route is None or call.route.transforms is None:
        return False
    hooks = call.route.transforms.hooks
    return hooks is not None and bool(hooks.errors)
