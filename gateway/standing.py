"""How the targets of a snapshot stand in this process, for the figures."""

from __future__ import annotations

from .health import UNHEALTHY
from .metrics import TargetState
from .snapshot import Snapshot


def of(snapshot: Snapshot, now: float) -> list[TargetState]:
    return [
        TargetState(
            target.service, target.name, target.inflight, target.breaker.state,
            is_healthy=target.health.state != UNHEALTHY, is_ejected=now < target.ejected_until,
        )
        for target in snapshot.targets
    ]  # fmt: skip
