"""Limits in words, and how much of them is in use: for the command, the admin, the API and Prometheus."""

from __future__ import annotations

from typing import NamedTuple

from . import quotas, turns
from .limiting import Rate
from .models import Queue, Tenant
from .policies import has_limits


class Use(NamedTuple):
    """held: jobs with a turn, running or about to. unstarted: those that no worker has claimed. waiting: for a turn."""

    held: int
    unstarted: int
    waiting: int


def in_use(queue: str) -> Use:
    held = turns.held(queue).values()
    waiting = sum(turns.waiting(queue).values())
    return Use(sum(found.jobs for found in held), sum(found.unstarted for found in held), waiting)


def all_in_use() -> list[tuple[Queue, Use]]:
    """Every queue with limits, by name. Two statements for each."""
    limited = [queue for queue in Queue.objects.order_by("name") if has_limits(queue)]
    return [(queue, in_use(queue.name)) for queue in limited]


def of_queue(queue: Queue) -> str:
    """ "10 at once; 100 in 60 s, burst 1; each tenant 2 at once; fair"; empty without limits."""
    rate = quotas.rate(queue.rate_count, queue.rate_period_s, queue.rate_burst)
    each_rate = quotas.rate(queue.tenant_rate_count, queue.tenant_rate_period_s, queue.tenant_rate_burst)
    each = [f"each tenant {part}" for part in _told(queue.tenant_concurrency, each_rate)]
    return "; ".join([*_told(queue.max_concurrency, rate), *each, *(["fair"] if queue.is_fair else [])])


def gap(queue: Queue) -> str:
    """What goes past the limits, and what to do; empty where nothing does."""
    if queue.delivery or not has_limits(queue):
        return ""
    return (
        "Celery's .delay() goes past them: set the queue's delivery to ledger"
        f" (manage.py queue policy {queue.name} --delivery ledger)"
    )


def of_tenant(tenant: Tenant | None) -> str:
    """The same of what a tenant has of its own."""
    if tenant is None:
        return ""
    rate = quotas.rate(tenant.rate_count, tenant.rate_period_s, tenant.rate_burst)
    return "; ".join([*(["paused"] if tenant.paused else []), *_told(tenant.max_concurrency, rate)])


def _told(most: int | None, rate: Rate | None) -> list[str]:
    told = [] if most is None else [f"{most} at once"]
    return told if rate is None else [*told, f"{rate.count} in {rate.period_s:g} s, burst {rate.capacity}"]
