"""Which route, plan and plugins would this request meet, and why: the pipeline's own answers, told step by step.

Nothing is sent, counted or taken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from . import auth, routing
from .auth import Identity
from .headers import AUTHORIZATION, KEY, Headers, hash_key
from .pipeline import Route
from .routing import Asked, Router
from .snapshot import Snapshot

MOST_OTHERS = 20


@dataclass(frozen=True, slots=True)
class Step:
    """rule: one of the pipeline's. result: "ok", "refused" or "skipped"."""

    rule: str
    result: str
    why: str


@dataclass(slots=True)
class Explanation:
    """verdict: in a sentence. status: of the refusal, None where the request would be passed on.

    plan: the limits that would be counted. transforms: by name, in order. targets: each with why it would get no
    traffic, or less. others: routes whose path matches as well, and why they would not be taken.
    """

    verdict: str = ""
    status: int | None = None
    route: str | None = None
    service: str | None = None
    plan: list[str] = field(default_factory=list)
    transforms: list[str] = field(default_factory=list)
    targets: list[tuple[str, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, rule: str, status: int, why: str) -> Explanation:
        self.steps.append(Step(rule, "refused", why))
        self.status = self.status or status
        self.verdict = self.verdict or f"{self.status}: {why}"
        return self


def explain(
    snapshot: Snapshot,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    client_ip: str = "127.0.0.1",
    consumer: str | None = None,
) -> Explanation:
    """url: whole, or a path. consumer: who calls, by name, instead of credentials among the headers."""
    found, fields = Explanation(), [(n.encode("latin-1"), v.encode("latin-1", "replace")) for n, v in headers]
    parts = urlsplit(url)
    try:
        path = routing.normalise(parts.path.encode() or b"/")
    except routing.BadPath as error:
        return found.refuse("request", 400, f"the path is ambiguous: {error}")
    asked = Asked(method.upper(), (parts.hostname or _host(fields)).lower(), fields)
    route = snapshot.router.match(path, asked)
    found.others = _others(snapshot, path, asked, route)
    if route is None:
        return found.refuse("match", 404, "no route matches this host, path and these headers")
    found.route, found.service = route.name, route.service.name
    found.steps.append(Step("match", "ok", f"{route.path_kind} {route.path}"))
    if asked.method not in route.methods:
        return found.refuse("method", 405, f"the route takes {', '.join(sorted(route.methods))}")
    found.steps.append(Step("method", "ok", f"the route takes {asked.method}"))
    identity = _caller(found, snapshot, route, fields, consumer)
    if identity is not None or not route.auth_required:
        _limits(found, route, identity)
    _transforms(found, route)
    _targets(found, route, client_ip, fields)
    found.verdict = found.verdict or f"passed on to {route.service.name}"
    return found


def _caller(
    found: Explanation, snapshot: Snapshot, route: Route, fields: Headers, consumer: str | None
) -> Identity | None:
    if not route.auth_required:
        found.steps.append(Step("authenticate", "skipped", "the route is open"))
        return None
    identity, why = _identity(snapshot, fields, consumer)
    if identity is None:
        found.refuse("authenticate", 401, why)
        return None
    found.steps.append(Step("authenticate", "ok", f"{identity.subject}"))
    wrong = auth.explain(route.roles, route.scopes, identity)
    if wrong:
        found.refuse("authorise", 403, wrong)
    else:
        found.steps.append(Step("authorise", "ok", _needs(route)))
    return identity


def _identity(snapshot: Snapshot, fields: Headers, consumer: str | None) -> tuple[Identity | None, str]:
    if consumer:
        known = next((one for one in snapshot.keys.values() if one.name == consumer), None)
        return known, "" if known else f"{consumer} has no API key that is good now"
    given = {snapshot.names[name]: value for name, value in fields}
    authorization, api_key = given.get(AUTHORIZATION), given.get(KEY)
    wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
    why = snapshot.identities.explain(authorization, api_key, wall)
    return (None, why) if why else (snapshot.identities.identify(authorization, api_key, wall), "")


def _needs(route: Route) -> str:
    needs = []
    if route.roles:
        needs.append(f"one of the roles {', '.join(sorted(route.roles))}")
    if route.scopes:
        needs.append(f"the scopes {' '.join(sorted(route.scopes))}")
    return " and ".join(needs) or "any caller will do"


def _limits(found: Explanation, route: Route, identity: Identity | None) -> None:
    own = identity.limits if identity is not None else ()
    for limit, of in [(one, route.plan) for one in route.limits] + [
        (one, "the consumer's plan") for one in own
    ]:
        burst = f", {limit.capacity:g} at once" if limit.capacity != limit.quota else ""
        found.plan.append(f"{of}: {limit.quota} in {limit.window_s} s{burst}")
    told = (
        f"{route.cost} token{'s' if route.cost > 1 else ''} from each"
        if found.plan
        else "there are no limits"
    )
    found.steps.append(Step("limit", "ok" if found.plan else "skipped", told))


def _transforms(found: Explanation, route: Route) -> None:
    transforms = route.transforms
    if transforms is None:
        found.steps.append(Step("transform", "skipped", "the route has no transformations"))
        return
    found.transforms = list(transforms.names)
    found.steps.append(Step("transform", "ok", ", ".join(transforms.names)))


def _targets(found: Explanation, route: Route, client_ip: str, fields: Headers) -> None:
    now, service = time.monotonic(), route.service
    found.targets = [(target.name, target.why(now)) for target in service.targets]
    usable = [target for target in service.targets if target.allows(now)]
    key = hash_key(service.hash_on, client_ip, fields)
    by = f"{service.strategy} by {key.decode('latin-1')}" if key is not None else service.strategy
    if usable:
        found.steps.append(
            Step("balance", "ok", f"{by} over {len(usable)} of {len(service.targets)} targets")
        )
    elif route.fallback is not None:
        found.steps.append(
            Step("balance", "ok", f"no target is left: the fallback answers {route.fallback.status}")
        )
    else:
        found.refuse("balance", 503, "no target is left")


def _others(snapshot: Snapshot, path: bytes, asked: Asked, taken: Route | None) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for rule in snapshot.rules:
        if rule.value is taken or len(found) >= MOST_OTHERS:
            continue
        alone = Router([rule])
        if alone.match(path, asked) is not None:
            found.append((rule.value.name, "it matches too, but the other is longer, more specific or older"))
        elif alone.methods(path, Asked(asked.method, _a_host(rule.hosts), rule.headers)):
            found.append((rule.value.name, "its path matches, but not its hosts or headers"))
    return found


def _a_host(hosts: Sequence[str]) -> str:
    return hosts[0].replace("*", "any") if hosts else ""


def _host(fields: Headers) -> str:
    return next((v.decode("latin-1").partition(":")[0] for n, v in fields if n.lower() == b"host"), "")
