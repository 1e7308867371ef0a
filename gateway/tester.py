"""Which route, plan and plugins would this request meet, and why: the pipeline's own answers, told step by step.

Nothing is sent, counted or taken, and nothing of a credential is told.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from . import auth, forwarding, routing
from .auth import Identity
from .board import Standing
from .bucket import Limit
from .calls import Route
from .headers import AUTHORIZATION, KEY, Headers, hash_key
from .routing import Asked, Router, Rule
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

    def note(self, rule: str, result: str, why: str) -> None:
        self.steps.append(Step(rule, result, why))

    def refuse(self, rule: str, status: int, why: str) -> Explanation:
        """The first refusal is the verdict; the steps after it are told for whoever mends it."""
        self.note(rule, "refused", why)
        self.status = self.status or status
        self.verdict = self.verdict or f"refused with {self.status}: {why}"
        return self


def explain(
    snapshot: Snapshot,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    client_ip: str = "127.0.0.1",
    consumer: str | None = None,
    standings: Sequence[Standing] | None = None,
) -> Explanation:
    """url: whole, or a path. consumer: who calls, by name, instead of credentials among the headers. standings: of the
    fleet's targets (board.read), None: what this process knows. Raises ValueError for what no client can send."""
    found, fields = Explanation(), _fields(headers)
    host, given_path = _address(url)
    client_ip = _client(client_ip)
    try:
        path = routing.normalise(given_path)
    except routing.BadPath as error:
        return found.refuse("request", 400, f"the path is ambiguous: {error}")
    asked = Asked(method.upper(), (host or _host(fields)).lower(), fields)
    route = snapshot.router.match(path, asked)
    found.others = _others(snapshot, path, asked, route)
    if route is None:
        return found.refuse("match", 404, _unmatched(path, asked, found.others))
    found.route, found.service = route.name, route.service.name
    found.note("match", "ok", f"{route.name}: {route.path_kind} {route.path}")
    if asked.method not in route.methods:
        return found.refuse("method", 405, f"the route takes {', '.join(sorted(route.methods))}")
    found.note("method", "ok", f"the route takes {asked.method}")
    if route.outage is not None:
        why = f"the route is out of service ({route.outage.code}): {route.outage.reason}"
        return found.refuse("configuration", 503, why)
    identity = _caller(found, snapshot, route, fields, consumer)
    if identity is not None or not route.auth_required:
        _limits(found, route, identity, client_ip)
    _transforms(found, route)
    _targets(found, route, client_ip, fields, standings)
    found.verdict = found.verdict or f"passed on to {route.service.name}"
    return found


# --- what is asked ---------------------------------------------------------------------------------------------------
def _fields(headers: Sequence[tuple[str, str]]) -> Headers:
    found = []
    for name, value in headers:
        if not name or not name.isascii() or not name.isprintable() or set(' ":') & set(name):
            raise ValueError(f"{name[:40]!r} is not the name of a header")
        if not value.isprintable():
            raise ValueError(f"the value of {name} holds what no header can")
        found.append((name.encode(), value.strip().encode("latin-1", "replace")))
    return found


def _address(url: str) -> tuple[str, bytes]:
    """(host, path)"""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"the URL cannot be read: {error}") from error
    if not (url.startswith("/") or (parts.scheme in ("http", "https") and host)):
        raise ValueError("the URL begins with / or with http://HOST")
    # A path that begins with // names no host in a request.
    path = url if url.startswith("/") else parts.path or "/"
    return ("" if url.startswith("/") else host), path.partition("?")[0].partition("#")[0].encode()


def _client(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address.strip()))
    except ValueError as error:
        raise ValueError(f"{address[:60]!r} is not an IP address") from error


def _host(fields: Headers) -> str:
    return next((v.decode("latin-1").partition(":")[0] for n, v in fields if n.lower() == b"host"), "")


# --- routes ----------------------------------------------------------------------------------------------------------
def _unmatched(path: bytes, asked: Asked, others: Sequence[tuple[str, str]]) -> str:
    if routing.is_reserved(path):
        return "the path belongs to the platform itself, whatever routes say"
    if others:
        return f"routes have this path, but none of them the host {asked.host or '(none)'} and these headers"
    return "no route matches: none that is enabled has this path"


def _others(snapshot: Snapshot, path: bytes, asked: Asked, taken: Route | None) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    winner = next((rule for rule in snapshot.rules if rule.value is taken), None)
    for rule in snapshot.rules:
        if len(found) >= MOST_OTHERS:
            break
        if rule is not winner and (why := _why_not(rule, path, asked, winner)):
            found.append((rule.value.name, why))
    return found


def _why_not(rule: Rule[Route], path: bytes, asked: Asked, winner: Rule[Route] | None) -> str:
    """Empty for a route of another path."""
    alone = Router([rule])
    if alone.match(path, asked) is not None:
        return _beaten(rule, asked, winner) if winner is not None else ""
    for host in rule.hosts or ("",):
        if alone.methods(path, Asked(asked.method, host.replace("*", "any"), rule.headers)):
            return _unmet(rule, asked)
    return ""


def _unmet(rule: Rule[Route], asked: Asked) -> str:
    is_host = not rule.hosts or any(routing.is_host(host, asked.host) for host in rule.hosts)
    wrong = [] if is_host else [f"the host is not {' or '.join(rule.hosts)}"]
    wrong += [
        f"{name.decode()} is not {value.decode()}"
        for name, value in rule.headers
        if not asked.has(name, value)
    ]
    return f"its path matches, but {' and '.join(wrong)}"


def _beaten(rule: Rule[Route], asked: Asked, winner: Rule[Route]) -> str:
    """By the first of the rules of priority (routing.py) that tells them apart."""
    by = winner.value.name
    if (rule.path, rule.kind) != (winner.path, winner.kind):
        return f"it matches too, but the path of {by} is longer or more exact ({winner.kind} {winner.path})"
    if not routing.allowed(rule.methods, asked.method):
        return f"it matches too, but {by} takes {asked.method}, and it does not"
    if _closeness(rule) != _closeness(winner):
        return f"it matches too, but {by} asks for more: its host is more exact, or it has more headers"
    return f"it matches too, but {by} is older"


def _closeness(rule: Rule[Route]) -> tuple[tuple[str, ...], int]:
    return rule.hosts, len(rule.headers)


# --- who, and how much -----------------------------------------------------------------------------------------------
def _caller(
    found: Explanation, snapshot: Snapshot, route: Route, fields: Headers, consumer: str | None
) -> Identity | None:
    if not route.auth_required:
        found.note("authenticate", "skipped", "the route is open; credentials are not looked at")
        return None
    identity, why = _identity(snapshot, fields, consumer)
    if identity is None:
        issuers = [str(one) for one in snapshot.outages if one.kind == "issuer"]
        found.refuse("authenticate", 401, "; ".join([why, *(f"out of service: {told}" for told in issuers)]))
        return None
    found.note("authenticate", "ok", f"the caller is {identity.subject}")
    wrong = auth.explain(route.roles, route.scopes, identity)
    if wrong:
        found.refuse("authorise", 403, wrong)
    else:
        found.note("authorise", "ok", _needs(route))
    return identity


def _identity(snapshot: Snapshot, fields: Headers, consumer: str | None) -> tuple[Identity | None, str]:
    wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
    if consumer:
        theirs = [one for one in snapshot.keys.values() if one.name == consumer and one.expires_at > wall]
        return (
            (theirs[0], "")
            if theirs
            else (None, f"no enabled consumer {consumer} has an API key that is good now")
        )
    given = {snapshot.names[name]: value for name, value in fields}
    authorization, api_key = given.get(AUTHORIZATION), given.get(KEY)
    why = snapshot.identities.explain(authorization, api_key, wall)
    return (None, why) if why else (snapshot.identities.identify(authorization, api_key, wall), "")


def _needs(route: Route) -> str:
    needs = []
    if route.roles:
        needs.append(f"one of the roles {', '.join(sorted(route.roles))}")
    if route.scopes:
        needs.append(f"the scopes {' '.join(sorted(route.scopes))}")
    return f"the caller has {' and '.join(needs)}" if needs else "any caller will do"


def _limits(found: Explanation, route: Route, identity: Identity | None, client_ip: str) -> None:
    own = identity.limits if identity is not None else ()
    found.plan = [_told(one, f"plan {route.plan}") for one in route.limits]
    found.plan += [
        _told(one, f"the consumer's plan {identity.plan}, over all routes") for one in own if identity
    ]
    if not found.plan:
        found.note("limit", "skipped", "there are no limits")
        return
    cost = f"{route.cost} token{'' if route.cost == 1 else 's'} from each"
    found.note(
        "limit",
        "ok",
        f"{cost}, counted for {_counted(route, identity, client_ip)}; not looked at whether any is left",
    )


def _counted(route: Route, identity: Identity | None, client_ip: str) -> str:
    by_address = f"the address {forwarding.counted(client_ip, route.ipv6_prefix)}"
    if identity is None:
        return by_address
    by_key = f"this key of {identity.name}"
    if route.counted_by == "ip":
        counted = by_address
    else:
        counted = by_key if route.counted_by == "key" and identity.key_digest else identity.subject
    own = identity.subject if identity.counted_as in ("", identity.subject) else by_key
    if not identity.limits or own == counted:
        return counted
    return f"{counted}, the consumer's plan for {own}" if route.limits else own


def _told(limit: Limit, of: str) -> str:
    window = {60: "a minute", 3600: "an hour"}.get(limit.window_s, f"in {limit.window_s} s")
    burst = f", {limit.capacity:g} at once" if limit.capacity != limit.quota else ""
    return f"{limit.quota} {window}{burst} ({of})"


# --- on the way ------------------------------------------------------------------------------------------------------
def _transforms(found: Explanation, route: Route) -> None:
    transforms = route.transforms
    if transforms is None:
        found.note("transform", "skipped", "there are no transformations")
        return
    found.transforms = list(transforms.names)
    found.note("transform", "ok", f"in this order: {', '.join(transforms.names)}")


def _targets(
    found: Explanation, route: Route, client_ip: str, fields: Headers, standings: Sequence[Standing] | None
) -> None:
    now, service = time.monotonic(), route.service
    fleet = {(one.service, one.name): one for one in standings or ()}
    usable = 0
    for target in service.targets:
        standing = fleet.get((service.name, target.name))
        why = target.why(now) or _why(standing)
        found.targets.append((target.name, why))
        usable += target.allows(now) and not _is_out(standing)
    by = f"{service.strategy}{_by(service.hash_on, client_ip, fields)}"
    if usable:
        found.note("balance", "ok", f"{by} over {usable} of {len(service.targets)} targets")
    elif route.fallback is not None:
        found.note(
            "balance", "ok", f"no target is left: the service's fallback answers {route.fallback.status}"
        )
    else:
        found.refuse(
            "balance", 503, "no target is left" if service.targets else "the service has no target that is on"
        )


def _why(standing: Standing | None) -> str:
    """Of the process that sees the most wrong with it."""
    if standing is None or not standing.views:
        return ""
    return standing.views[0].why


def _is_out(standing: Standing | None) -> bool:
    return standing is not None and (standing.health == "unhealthy" or standing.breaker == "open")


def _by(hash_on: str, client_ip: str, fields: Headers) -> str:
    """Not the value: a header or cookie may be a credential."""
    if not hash_on:
        return ""
    return f" by {hash_on}" + ("" if hash_key(hash_on, client_ip, fields) else ", which the request lacks,")
