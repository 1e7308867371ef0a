"""The rules of a request in one place, without I/O: method, authenticate, authorise, limit, balance, breaker,
record.

Every rule is a plain function that returns the next step:

    Refusal      answer the client with it; the call is over
    TakeTokens   ask the limiter, then call `admitted` with its answer
    Target       send the request there, then call `answered`, `failed` or `abandoned`

The edge follows them by callback. `steps` strings the same functions together as a generator for the DRF door
and any async caller (see drive.py). Every exit gives back what was taken: the target's place and the
breaker's probe.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from . import bucket, routing
from .auth import Credentials, Identity, KeyRecord, authenticate, authorised
from .balancer import Picker
from .breaker import Breaker
from .tokens import Verifier

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))  # RFC 9110 section 9.2.2
CLIENT_GONE = 499  # nginx's number; only ever seen in logs and metrics
MAX_ATTEMPTS = 3  # targets that one request may be tried on
_NO_SERVICE = (502, 503, 504)  # the target answers, but says that it cannot serve: the breaker counts these

HeaderPairs = tuple[tuple[str, str], ...]


class UpstreamFailed(Exception):
    """No usable answer came from the target. replayable: another target may be asked without harm."""

    def __init__(self, reason: str, *, replayable: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.replayable, self.timed_out = replayable, timed_out


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    detail: str
    headers: HeaderPairs = ()


@dataclass(frozen=True, slots=True)
class TakeTokens:
    """Take one token from each limit's bucket, or none. on_store_down: what to do when the store does not
    answer."""

    limits: tuple[bucket.Limit, ...]
    on_store_down: str


@dataclass(frozen=True, slots=True)
class Relay:
    """The response's head is there. Stream the body, then resume `steps`; throw UpstreamFailed if it breaks
    off."""

    status: int


@dataclass(slots=True, eq=False)
class Target:
    """One process behind the gateway, with its state in this process. name: host:port, as shown to clients.

    idle: open connections, owned by the edge. retired: no longer in the configuration, keep no connection.
    """

    name: str
    ip: str
    port: int
    breaker: Breaker
    inflight: int = 0
    idle: list[Any] = field(default_factory=list)
    retired: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """roles: any one of them will do, none: everybody. limits: per caller, without their keys."""

    path: str
    pick: Picker[Target]
    targets: tuple[Target, ...]
    methods: frozenset[str] = frozenset()
    auth_required: bool = True
    roles: frozenset[str] = frozenset()
    timeout_s: float = 30.0
    limits: tuple[bucket.Limit, ...] = ()
    on_store_down: str = ""  # empty: the setting decides


class Access(Protocol):
    """What `decide` asks about credentials; the snapshot is one."""

    @property
    def keys(self) -> Mapping[bytes, KeyRecord]: ...
    @property
    def verifier(self) -> Verifier: ...


class Recorder(Protocol):
    def finished(self, route: str, method: str, status: int, duration_s: float) -> None: ...
    def limited(self, route: str) -> None: ...
    def upstream_failed(self, target: str) -> None: ...


@dataclass(slots=True, eq=False)
class Call:
    """One request on its way. started: monotonic seconds. status: 0 until the call is over."""

    route: Route | None
    method: str
    credentials: Credentials
    client_ip: str
    started: float
    recorder: Recorder
    identity: Identity | None = None
    asked: TakeTokens | None = None
    taken: bucket.Taken | None = None
    target: Target | None = None
    epoch: int = 0
    tried: list[Target] = field(default_factory=list)
    status: int = 0


Step = Refusal | TakeTokens | Target


def decide(call: Call, access: Access, wall: float, now: float) -> Step:
    """The first step. wall: seconds since the epoch, for expiry; now: monotonic."""
    route = call.route
    if route is None:
        return _refuse(call, now, 404, "No route matches this path.")
    if not routing.allowed(route.methods, call.method):
        allow = ", ".join(sorted(route.methods or routing.ANY_METHOD))
        return _refuse(call, now, 405, f"This route takes {allow}.", (("Allow", allow),))
    if route.auth_required:
        call.identity = identity = authenticate(call.credentials, access.keys, access.verifier, wall)
        if identity is None:
            return _unauthenticated(call, now)
        if not authorised(route.roles, identity):
            return _refuse(
                call,
                now,
                403,
                "The credentials are good, but hold none of the roles that this route asks for.",
            )
    asked = _limits(call, route)
    if asked is not None:
        call.asked = asked
        return asked
    return _balance(call, route, now)


def admitted(call: Call, taken: bucket.Taken, now: float) -> Step:
    """Goes on after TakeTokens."""
    assert call.route is not None  # noqa: S101  (decide returned TakeTokens)
    assert call.asked is not None  # noqa: S101
    call.taken = taken
    if taken.admitted:
        return _balance(call, call.route, now)
    call.recorder.limited(call.route.path)
    if not taken.levels:
        return _refuse(
            call, now, 503, "The rate limits cannot be counted at the moment.", (("Retry-After", "1"),)
        )
    wait_s = bucket.retry_after_s(call.asked.limits, taken)
    return _refuse(
        call, now, 429, f"Too many requests: try again in {wait_s} s.", (("Retry-After", str(wait_s)),)
    )


def limit_headers(call: Call) -> HeaderPairs:
    """RateLimit-Policy and RateLimit for every answer to a limited call, refusals included."""
    if call.asked is None:
        return ()
    policy = ("RateLimit-Policy", bucket.policy_header(call.asked.limits))
    if call.taken is None or not call.taken.levels:
        return (policy,)
    return (policy, ("RateLimit", bucket.state_header(call.asked.limits, call.taken)))


def answered(call: Call, status: int, now: float) -> None:
    """The response has been relayed to its end. A 500 is the application's answer; 502, 503, 504 say "no
    service"."""
    target = _give_back(call)
    if status in _NO_SERVICE:
        call.recorder.upstream_failed(target.name)
        target.breaker.failed(call.epoch, now)
    else:
        target.breaker.succeeded(call.epoch)
    record(call, status, now)


def broken(call: Call, status: int, now: float) -> None:
    """The upstream broke off in the middle of its response, of which the client has seen this status."""
    target = _give_back(call)
    call.recorder.upstream_failed(target.name)
    target.breaker.failed(call.epoch, now)
    record(call, status, now)


def failed(call: Call, failure: UpstreamFailed, now: float) -> Step:
    """No response came: another target when that does no harm, else a Refusal."""
    target = _give_back(call)
    call.recorder.upstream_failed(target.name)
    target.breaker.failed(call.epoch, now)
    call.tried.append(target)
    assert call.route is not None  # noqa: S101  (it had a target)
    others = [other for other in call.route.targets if other not in call.tried and other.breaker.allows(now)]
    if failure.replayable and others and len(call.tried) < MAX_ATTEMPTS:
        return _balance(call, call.route, now)
    if failure.timed_out:
        return _refuse(call, now, 504, "The upstream did not answer in time.")
    return _refuse(call, now, 502, "The upstream could not be reached or broke off.")


def abandoned(call: Call, now: float) -> None:
    """The client went away, or what it sent made no sense: no verdict on the target. Harmless when the call
    is over."""
    if call.status:
        return
    if call.target is not None:
        _give_back(call).breaker.released(call.epoch)
    record(call, CLIENT_GONE, now)


def record(call: Call, status: int, now: float) -> None:
    call.status = status
    path = call.route.path if call.route is not None else ""
    call.recorder.finished(path, call.method, status, now - call.started)


def steps(
    call: Call, access: Access, wall: float, now: Callable[[], float]
) -> Generator[Step | Relay, Any, None]:
    """The same rules as a generator: send Taken for TakeTokens, a status for Target, None for Relay.

    A Refusal is the last thing it yields. Closing it at any point gives back what was taken.
    """
    try:
        step = decide(call, access, wall, now())
        while not isinstance(step, Refusal):
            if isinstance(step, TakeTokens):
                step = admitted(call, (yield step), now())
                continue
            try:
                status = yield step
            except UpstreamFailed as failure:
                step = failed(call, failure, now())
                continue
            try:
                yield Relay(status)
            except UpstreamFailed:
                broken(call, status, now())
            else:
                answered(call, status, now())
            return
        yield step
    finally:
        abandoned(call, now())


def _limits(call: Call, route: Route) -> TakeTokens | None:
    identity = call.identity
    subject = identity.subject if identity is not None else f"ip:{call.client_ip}"
    # One {hash tag} for all buckets of a request: a cluster keeps them on one node, so one script can take
    # from all.
    tag = f"{{{subject}}}"
    limits = [replace(limit, key=f"{tag}:{route.path}:{limit.name}") for limit in route.limits]
    policy = route.on_store_down
    if identity is not None and identity.limits:
        limits += [replace(limit, key=f"{tag}::{limit.name}") for limit in identity.limits]
        policy = identity.on_store_down or policy
    return TakeTokens(tuple(limits), policy) if limits else None


def _balance(call: Call, route: Route, now: float) -> Target | Refusal:
    tried = call.tried
    target = route.pick(lambda candidate: candidate.breaker.allows(now) and candidate not in tried)
    if target is None:
        wait_s = min((candidate.breaker.wait_s(now) for candidate in route.targets), default=0.0)
        headers = (("Retry-After", str(max(1, round(wait_s)))),)
        return _refuse(call, now, 503, "No healthy upstream is left.", headers)
    target.inflight += 1
    call.target, call.epoch = target, target.breaker.admit(now)
    return target


def _give_back(call: Call) -> Target:
    target = call.target
    assert target is not None  # noqa: S101  (each target is given back once)
    target.inflight -= 1
    call.target = None
    return target


def _unauthenticated(call: Call, now: float) -> Refusal:
    credentials = call.credentials
    if credentials.api_key is None and credentials.authorization is None:
        challenge, detail = 'Bearer realm="brain"', "This route needs an API key or a bearer token."
    else:
        challenge, detail = (
            'Bearer realm="brain", error="invalid_token"',
            "The API key or token is not accepted.",
        )
    return _refuse(call, now, 401, detail, (("WWW-Authenticate", challenge),))


def _refuse(call: Call, now: float, status: int, detail: str, headers: HeaderPairs = ()) -> Refusal:
    record(call, status, now)
    return Refusal(status, detail, headers + limit_headers(call))
