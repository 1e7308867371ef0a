"""The configuration as the request path reads it: compiled from entries, never changed, swapped as a whole.

Compiling resolves names and blocks, so it happens in a thread (see holder.py). Targets and services live on across
snapshots with all that is known about them (see living.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import random

import structlog

from foundation import roles

from . import edits, headers, hooks, routing
from .auth import Identity
from .callers import Callers, limits
from .calls import Refusal, Route
from .conf import conf
from .entries import Entry, Fields
from .headers import Names
from .identities import Identities
from .living import Living
from .outages import Outage
from .pool import Service, Target
from .revoked import Revoked
from .routing import Router, Rule
from .tokens import Issuer, Verifier
from .transforming import Transforms

log = structlog.get_logger(__name__)

Entries = Mapping[Entry, Fields]
_INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """version: -1 before the first one. api_key_header: in lower case. resolved_at: monotonic, of the targets' names."""

    version: int = -1
    router: Router[Route] = field(default_factory=lambda: Router([]))
    routes: tuple[Route, ...] = ()
    services: tuple[Service, ...] = ()
    targets: tuple[Target, ...] = ()
    identities: Identities = field(default_factory=lambda: Identities({}, Verifier([]), Revoked()))
    verifier: Verifier = field(default_factory=lambda: Verifier([]))
    issuers: tuple[Issuer, ...] = ()
    keys: Mapping[bytes, Identity] = field(default_factory=dict)
    rules: tuple[Rule[Route], ...] = ()
    api_key_header: bytes = b"x-api-key"
    names: Names = field(default_factory=lambda: headers.of_requests(b"x-api-key"))
    resolved_at: float = 0.0
    outages: tuple[Outage, ...] = ()


def compile(
    entries: Entries,
    callers: Callers,
    version: int,
    living: Living,
    before: Snapshot,
    *,
    now: float,
    wall: float,
) -> Snapshot:
    """What cannot be used is out of service, and among the outages. Raises ValueError where nobody can say what that is:
    for a path that cannot be read, as it is not known which requests it would have been for. Targets that cannot be
    reached by any address are left out."""
    parts = _parts(entries)
    services, broken = _services(parts, living, now)
    routes = [
        (fields, _route_or_outage(name, fields, services, broken, parts, living))
        for name, fields in _of(entries, "route")
        if fields["enabled"]
    ]
    out_of_service = [route.outage for _, route in routes if route.outage is not None]
    rules = tuple(_rule(fields, route) for fields, route in routes)
    header = str(entries.get(("setting", "gateway"), {}).get("api_key_header", "X-API-Key")).lower().encode()
    verifier = Verifier(callers.issuers, leeway_s=conf().JWT_LEEWAY_S)
    identities = Identities(callers.keys, verifier, callers.revoked)
    identities.carry_over(before.identities, wall)
    return Snapshot(
        version=version,
        router=Router(rules),
        routes=tuple(route for _, route in routes),
        services=tuple(services.values()),
        targets=tuple(target for service in services.values() for target in service.targets),
        identities=identities,
        verifier=verifier,
        issuers=callers.issuers,
        keys=callers.keys,
        rules=rules,
        api_key_header=header,
        names=before.names if before.api_key_header == header else headers.of_requests(header),
        resolved_at=now,
        outages=(*callers.outages, *broken.values(), *out_of_service),
    )


def at_least(required: Iterable[str]) -> frozenset[str]:
    """The roles that satisfy one of these: each includes the ones below it."""
    return frozenset(role for name in required for role in roles.RANKED[roles.RANKED.index(name) :])


def _of(entries: Entries, kind: str) -> list[tuple[str, Fields]]:
    return [(name, fields) for (entry_kind, name), fields in entries.items() if entry_kind == kind]


@dataclass(frozen=True, slots=True)
class _Parts:
    """Entries by whom they belong to. targets: (URL, fields) of a service, without those that are off. transforms: of
    ("route" | "service", name), (position, name, fields)."""

    plans: Mapping[str, Fields]
    services: Mapping[str, Fields]
    targets: Mapping[str, list[tuple[str, Fields]]]
    transforms: Mapping[Entry, list[tuple[int, str, Fields]]]


def _parts(entries: Entries) -> _Parts:
    targets = defaultdict[str, list[tuple[str, Fields]]](list)
    for name, fields in _of(entries, "target"):
        if fields["state"] != "off":
            service, _, url = name.partition(" ")
            targets[service].append((url, fields))
    transforms = defaultdict[Entry, list[tuple[int, str, Fields]]](list)
    for name, fields in _of(entries, "transform"):
        if fields["enabled"]:
            owner = "route" if fields["route"] is not None else "service"
            transforms[owner, fields[owner]].append((fields["position"], name, fields))
    return _Parts(dict(_of(entries, "plan")), dict(_of(entries, "service")), targets, transforms)


class _Unusable(ValueError):
    """code: as an outage has it."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@contextmanager
def _unusable(code: str) -> Iterator[None]:
    """The innermost one's code counts. A TypeError is a value of another shape, written by somebody else than us."""
    try:
        yield
    except _Unusable:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise _Unusable(code, str(error)) from error


def _services(parts: _Parts, living: Living, now: float) -> tuple[dict[str, Service], dict[str, Outage]]:
    services, broken = {}, {}
    for name, fields in parts.services.items():
        try:
            with _unusable("service_unusable"):
                services[name] = living.service(name, fields, parts.targets.get(name, ()), now)
        except _Unusable as error:
            broken[name] = Outage("service", name, error.code, str(error))
    return services, broken


def _route_or_outage(
    name: str, fields: Fields, services: Mapping[str, Service], broken: Mapping[str, Outage], parts: _Parts,
    living: Living,
) -> Route:  # fmt: skip
    service = fields["service"]
    try:
        if service in broken:
            raise _Unusable(broken[service].code, str(broken[service]))
        with _unusable("route_unusable"):
            return _route(name, fields, services[service], parts, living)
    except _Unusable as error:
        # Without a target: whatever overlooks the outage leads nowhere.
        return Route(
            name,
            Service(service, (), random=random),
            path=fields["path"],
            path_kind=fields["path_kind"],
            methods=_methods(fields["methods"]),
            outage=Outage("route", name, error.code, str(error)),
        )


def _rule(fields: Fields, route: Route) -> Rule[Route]:
    return Rule(
        route,
        fields["path"],
        fields["path_kind"],
        tuple(fields["hosts"]),
        route.methods,
        tuple((name.lower().encode(), value.encode()) for name, value in fields["headers"].items()),
        datetime.fromisoformat(fields["created_at"]).timestamp(),
    )


def _route(name: str, fields: Fields, service: Service, parts: _Parts, living: Living) -> Route:
    of_service = parts.services[service.name]
    plan = parts.plans[fields["plan"]] if fields["plan"] else None
    silence_s = fields["timeout_s"]
    return Route(
        name=name,
        service=service,
        path=fields["path"],
        path_kind=fields["path_kind"],
        methods=_methods(fields["methods"]),
        auth_required=fields["auth_required"],
        roles=at_least(fields["roles"]),
        scopes=frozenset(fields["scopes"]),
        limits=limits(plan),
        plan=fields["plan"] or "",
        counted_by=plan["counted_by"] if plan else "caller",
        on_store_down=plan["on_store_down"] if plan else "",
        is_exact=bool(plan and plan["exact"]),
        ipv6_prefix=conf().LIMITER_IPV6_PREFIX,
        cost=fields["cost"],
        response_timeout_s=silence_s or of_service["response_timeout_s"],
        idle_timeout_s=silence_s or of_service["idle_timeout_s"],
        total_timeout_s=of_service["total_timeout_s"] or _INFINITE,
        connect_timeout_s=of_service["connect_timeout_s"],
        strip=len([part for part in fields["path"].split("/") if part]) if fields["strip_prefix"] else 0,
        keeps_host=fields["host_header"] == "preserve",
        hides_credentials=fields["hide_credentials"],
        transforms=_transforms(name, service.name, parts, living),
        fallback=_fallback(of_service),
        stale_s=of_service["stale_s"],
    )


def _methods(given: Iterable[str]) -> frozenset[str]:
    methods = frozenset(given) or routing.ANY_METHOD
    return methods | {"HEAD"} if "GET" in methods else methods


def _fallback(service: Fields) -> Refusal | None:
    status = service["fallback_status"]
    if status is None:
        return None
    return Refusal(
        status, "no_target", "", body=service["fallback_body"].encode(), content_type=service["fallback_type"]
    )


def _transforms(route: str, service: str, parts: _Parts, living: Living) -> Transforms | None:
    """A service's before a route's, each by position and name."""
    found: list[tuple[str, Fields]] = []
    for owner in (("service", service), ("route", route)):
        of_it = sorted(parts.transforms.get(owner, ()), key=lambda one: one[:2])
        found += [(name, fields) for _, name, fields in of_it]
    if not found:
        return None
    with _unusable("transform_unusable"):
        changes = edits.compile([edits.Spec(fields["request"], fields["response"]) for _, fields in found])
    with _unusable("plugin_unusable"):
        plugged = hooks.compile(
            [_row(name, fields) for name, fields in found if fields["plugin"]], living.plugins, conf().PLUGINS
        )
    if not changes and not plugged:
        return None

    def untouched(why: str) -> None:
        if living.events is not None:
            living.events.untouched(route, why)

    return Transforms(changes, plugged, tuple(name for name, _ in found), untouched)


def _row(name: str, fields: Fields) -> hooks.Row:
    return hooks.Row(name, fields["plugin"], fields["settings"], fields["on_failure"])
