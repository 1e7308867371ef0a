"""Tenants of a queue with limits: the one place that changes what differs from the others', and how they stand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from foundation import audit

from . import clock, failures, policies, queues, quotas, turns
from .clock import Clock
from .conditions import backlog
from .models import Job, Queue, Tenant

EDITABLE = ("paused", "weight", "max_concurrency", "rate_count", "rate_period_s", "rate_burst")
_LONGEST = 64
_KEPT_S = 86_400.0  # a tenant without limits of its own whose last turn is longer ago begins anew: its credit is the same
_PRUNED = 500


class UnknownTenant(ValueError):
    """The queue has no job and no limit of this tenant."""

    def __init__(self, queue: str, name: str, known: Iterable[str]) -> None:
        close = difflib.get_close_matches(name, [found for found in known if found], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "say that it is new to set its limits beforehand"
        super().__init__(f"queue {queue!r} has no job of a tenant {name!r}; {hint}")


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant of a queue. waiting: for its turn. held: turns, of which `unstarted` wait for a worker."""

    name: str
    waiting: int
    held: int
    unstarted: int
    row: Tenant | None  # None: it has no limits of its own

    @property
    def weight(self) -> int:
        return (self.row.weight if self.row else None) or 1


def configure(
    queue: str,
    name: str,
    *,
    actor: Any,
    source: str,
    is_new: bool = False,
    request_id: str | None = None,
    ip: str | None = None,
    **changes: Any,
) -> Tenant:
    """Change what a tenant may take of a queue, any of EDITABLE; None: as the queue's other tenants. Audited.

    A queue without limits becomes a fair one. is_new: no job of the tenant need be there yet.
    Raises UnknownQueue, UnknownTenant or BadLimit, and then nothing is changed.
    """
    unknown = set(changes) - set(EDITABLE)
    if unknown:
        raise TypeError(f"a tenant has no {', '.join(sorted(unknown))}")
    if changes.get("paused") is False:
        changes["paused"] = None  # as the other tenants
    queues.find(queue)
    trace: dict[str, Any] = {"actor": actor, "source": source, "request_id": request_id, "ip": ip}
    with transaction.atomic():
        policy = Queue.objects.select_for_update().get(name=queue)
        row = Tenant.objects.filter(queue=queue, name=name).first()
        if row is None:
            check_known(queue, name, is_new=is_new)
            row = Tenant(queue_id=queue, name=name)
        before = {key: getattr(row, key) for key in changes}
        quotas.check({key: changes.get(key, getattr(row, key)) for key in EDITABLE})
        if not policies.has_limits(policy):
            queues.configure(queue, is_fair=True, **trace)
        if before != changes or row.pk is None:
            # The governor may have made the row meanwhile, and has columns of its own in it.
            row = Tenant.objects.update_or_create(queue=policy, name=name, defaults=changes)[0]
            audit.record(action="tenant.configure", target=row, before=before, after=changes, **trace)
    return row


def standing(queue: str) -> list[Standing]:
    """The tenants of a queue with limits that have jobs or limits of their own, by name."""
    held = turns.held(queue)
    waiting = turns.waiting(queue)
    rows = {row.name: row for row in Tenant.objects.filter(queue=queue) if is_limited(row)}
    return [
        Standing(name, waiting.get(name, 0), *held.get(name, turns.Held(0, 0)), rows.get(name))
        for name in sorted({*held, *waiting, *rows})
    ]


def is_limited(row: Tenant) -> bool:
    """Whether anything of it differs from the queue's other tenants."""
    return any(getattr(row, key) is not None for key in EDITABLE)


def paused_jobs() -> Q:
    """The jobs of paused tenants: they may wait, as those of a paused queue. Empty, and so false, when there is none."""
    names: dict[str, list[str]] = {}
    rows = Tenant.objects.filter(paused=True, queue__in=policies.governed_now())
    for queue, name in rows.values_list("queue", "name"):
        names.setdefault(queue, []).append(name)
    found = Q()
    for queue, paused in names.items():  # a condition for each tenant would be deeper than SQLite parses
        found |= Q(queue=queue, tenant__in=paused)
    return found


def prune() -> int:
    """Drop the positions of tenants that have been away for a day and have no limits of their own. How many."""
    away = Tenant.objects.filter(seen_at__lt=Clock() - timedelta(seconds=_KEPT_S))
    plain = away.filter(**{f"{key}__isnull": True for key in EDITABLE})
    plain = plain.filter(Q(rate_used_to_s=None) | Q(rate_used_to_s__lt=clock.now().timestamp()))
    ids = list(plain.values_list("id", flat=True)[:_PRUNED])
    return Tenant.objects.filter(id__in=ids).delete()[0] if ids else 0


def check_known(queue: str, name: str, *, is_new: bool) -> None:
    """Raises UnknownTenant; BadLimit for what cannot name one."""
    if not failures.is_clean(name) or len(name) > _LONGEST:
        raise quotas.BadLimit("name", f"is not a text of up to {_LONGEST} characters")
    if not is_new and not Job.objects.filter(queue=queue, tenant=name).exists():
        waits = backlog().filter(queue=queue).order_by().values_list("tenant", flat=True).distinct()
        raise UnknownTenant(queue, name, waits[:1000])
