"""How the targets of a snapshot stand in this process, for the figures."""

from __future__ import annotations

from .health import UNHEALTHY
from .metrics import TargetState
from .snapshot import Snapshot
from .tally import Names


def of(snapshot: Snapshot, now: float) -> list[TargetState]:
    return [
        TargetState(
            target.service, target.name, target.inflight, target.breaker.state,
            is_healthy=target.health.state != UNHEALTHY, is_ejected=now < target.ejected_until,
        )
        for target in snapshot.targets
    ]  # fmt: skip


def names(snapshot: Snapshot) -> Names:
    return Names(
        frozenset(route.name for route in snapshot.routes),
        frozenset(service.name for service in snapshot.services),
        frozenset(target.name for target in snapshot.targets),
    )
