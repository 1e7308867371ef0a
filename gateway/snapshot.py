"""The configuration as the request path reads it: compiled from the rows, never changed, swapped as a whole.

Building talks to the database and resolves names, so it happens in a thread. A database that is broken or
absent leaves the last snapshot in use.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from foundation import roles, url_guard
from orm_app import db

from . import bucket, models, secret_box
from .auth import Identity, KeyRecord
from .balancer import Picker, picker
from .breaker import Breaker
from .conf import conf
from .pipeline import Route, Target
from .routing import Router, Rule
from .tokens import Issuer, Verifier

log = structlog.get_logger(__name__)

OWN_ISSUER = "brain"
TargetKey = tuple[str, str, int, float]  # ip, name, failures to open, cooldown_s


@dataclass(frozen=True, slots=True)
class Snapshot:
    """keys: SHA-256 of an API key → its record. api_key_header: in lower case. version: -1 before the first
    one."""

    version: int = -1
    router: Router[Route] = field(default_factory=lambda: Router([]))
    routes: tuple[Route, ...] = ()
    keys: Mapping[bytes, KeyRecord] = field(default_factory=dict)
    verifier: Verifier = field(default_factory=lambda: Verifier([]))
    issuers: tuple[Issuer, ...] = ()
    api_key_header: bytes = b"x-api-key"
    targets: tuple[Target, ...] = ()
    resolved_at: float = 0.0  # monotonic


class Holder:
    """The snapshot of one process, refreshed from the database. Targets live on across snapshots, with their
    state."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._targets: dict[TargetKey, Target] = {}
        self._guard = threading.Lock()
        self._checked_at = 0.0

    def refresh_if_due(self) -> Snapshot:
        """For callers without a poller: looks at the version at most once in SNAPSHOT_POLL_S."""
        if time.monotonic() - self._checked_at >= conf().SNAPSHOT_POLL_S or self.snapshot.version < 0:
            self.refresh()
        return self.snapshot

    def refresh(self) -> bool:
        """Build and swap when the version or an address may have changed; whether it was swapped. Never
        raises for a database that fails. Blocks: call it in a thread."""
        with self._guard:
            self._checked_at = time.monotonic()
            try:
                version = current_version()
                stale = time.monotonic() - self.snapshot.resolved_at >= conf().RESOLVE_S
                if version == self.snapshot.version and not stale:
                    return False
                fresh = self._build()
            except (DatabaseError, secret_box.Sealed, ValueError) as error:
                log.warning(
                    "snapshot_kept", version=self.snapshot.version, error=f"{type(error).__name__}: {error}"
                )
                return False
            changed = fresh.version != self.snapshot.version
            self._retire(fresh.targets)
            self.snapshot = fresh
        if changed:
            log.info("snapshot_loaded", version=fresh.version, routes=len(fresh.routes), keys=len(fresh.keys))
        return True

    def mark_used(self, digests: Iterable[bytes]) -> None:
        """Write down that these API keys were used just now. Blocks: call it in a thread."""
        used = [digest.hex() for digest in digests]
        with contextlib.suppress(DatabaseError):  # a date that is a little too old is no reason to complain
            models.ApiKey.objects.filter(digest__in=used).update(last_used_at=timezone.now())

    def _build(self) -> Snapshot:
        with db.transaction():  # one view of all tables
            row = models.Configuration.objects.filter(pk=1).first() or models.Configuration(pk=1)
            services = list(models.Service.objects.prefetch_related("targets"))
            routes = list(models.Route.objects.filter(enabled=True).select_related("plan", "service"))
            keys = _keys()
            issuers = tuple(_issuers())
        pickers = {upstream.pk: self._pool(upstream) for upstream in services}
        compiled = [_route(route, *pickers[route.service_id]) for route in routes]
        return Snapshot(
            version=row.version,
            router=Router(Rule(route, route.path) for route in compiled),
            routes=tuple(compiled),
            keys=keys,
            verifier=Verifier(issuers, leeway_s=conf().JWT_LEEWAY_S),
            issuers=issuers,
            api_key_header=row.api_key_header.lower().encode(),
            targets=tuple({id(t): t for _, targets in pickers.values() for t in targets}.values()),
            resolved_at=time.monotonic(),
        )

    def _pool(self, upstream: models.Service) -> tuple[Picker[Target], tuple[Target, ...]]:
        weighted = []
        for row in upstream.targets.all():
            target = self._target(upstream, row) if row.state == "active" else None
            if target is not None:
                weighted.append((target, row.weight))
        return picker(upstream.strategy, weighted), tuple(target for target, _ in weighted)

    def _target(self, upstream: models.Service, row: models.Target) -> Target | None:
        try:
            pinned = url_guard.check(row.url)
        except url_guard.Refused as error:
            log.warning("target_refused", upstream=upstream.name, target=row.url, reason=str(error))
            return None
        # Names such as localhost come with ::1 first, where a small server seldom listens.
        ip = next((address for address in pinned.addresses if ":" not in address), pinned.ip)
        name = row.url.removeprefix("http://")
        key = (
            f"{upstream.name}/{ip}:{pinned.port}",
            name,
            5,
            10.0,
        )
        if key not in self._targets:
            breaker = Breaker(5, 10.0)
            self._targets[key] = Target(name, ip, pinned.port, breaker)
        return self._targets[key]

    def _retire(self, kept: Iterable[Target]) -> None:
        living = {id(target) for target in kept}
        for key, target in list(self._targets.items()):
            if id(target) not in living:
                target.retired = True
                del self._targets[key]


def current_version() -> int:
    """0 before the first change. Raises DatabaseError."""
    return models.Configuration.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def limits(plan: models.Plan | None, prefix: str = "") -> tuple[bucket.Limit, ...]:
    """A plan's limits. burst_limit is the capacity of the bucket that fills per minute (without one: per
    hour)."""
    if plan is None:
        return ()
    minute, hour, burst = plan.requests_per_minute, plan.requests_per_hour, plan.burst_limit
    found = []
    if minute:
        found.append(bucket.per_window(f"{prefix}minute", minute, 60, capacity=burst))
    if hour:
        found.append(bucket.per_window(f"{prefix}hour", hour, 3600, capacity=None if minute else burst))
    return tuple(found)


def _route(route: models.Route, pick: Picker[Target], targets: tuple[Target, ...]) -> Route:
    return Route(
        path=route.path,
        pick=pick,
        targets=targets,
        methods=frozenset(route.methods),
        auth_required=route.auth_required,
        roles=_at_least(route.roles),
        timeout_s=route.timeout_s or route.service.response_timeout_s,
        limits=limits(route.plan),
        on_store_down=route.plan.on_store_down if route.plan else "",
    )


def _at_least(required: Iterable[str]) -> frozenset[str]:
    """The roles that satisfy one of these: each includes the ones below it."""
    return frozenset(role for name in required for role in roles.RANKED[roles.RANKED.index(name) :])


def _keys() -> dict[bytes, KeyRecord]:
    found = {}
    rows = models.ApiKey.objects.filter(revoked_at=None, consumer__enabled=True).select_related(
        "consumer__plan"
    )
    for row in rows.exclude(expires_at__lte=timezone.now()):
        consumer, digest = row.consumer, bytes.fromhex(row.digest)
        identity = Identity(
            subject=f"key:{consumer.name}",
            name=consumer.name,
            roles=frozenset(consumer.roles),
            limits=limits(consumer.plan, "consumer-"),
            on_store_down=consumer.plan.on_store_down if consumer.plan else "",
            digest=digest,
        )
        found[digest] = KeyRecord(identity, row.expires_at.timestamp() if row.expires_at else None)
    return found


def _issuers() -> Iterable[Issuer]:
    rows = list(models.JwtIssuer.objects.filter(enabled=True))
    for row in rows:
        yield Issuer(row.name, row.algorithm, row.key(), row.issuer, row.audience)
    if not any(row.signs for row in rows):
        yield default_issuer()


def default_issuer() -> Issuer:
    """What signs, and is accepted, while no row does."""
    jwt = settings.SIMPLE_JWT
    return Issuer(OWN_ISSUER, jwt["ALGORITHM"], settings.JWT_SECRET.encode(), jwt.get("ISSUER") or OWN_ISSUER)
