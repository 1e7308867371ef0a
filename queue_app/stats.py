"""How the queues stand: counts by state and the age of the oldest waiting job, for the command, the admin and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db.models import Count, Min
from django.db.models.functions import Coalesce
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from . import firing, limits_told, workers
from .broker import recorder
from .ledger import backlog, is_due
from .models import Job, Queue
from .states import State


@dataclass(frozen=True, slots=True)
class Depth:
    """One queue. oldest_due_s: how long its oldest job that is due has waited, in seconds; 0 when none is."""

    queue: str
    paused: bool
    oldest_due_s: float
    jobs: dict[str, int] = field(default_factory=dict)  # state → count, every state


def depths() -> list[Depth]:
    """Every queue that has a row or jobs, by name. Three statements, however many queues there are."""
    paused = dict(Queue.objects.values_list("name", "paused"))
    counts: dict[str, dict[str, int]] = {name: {} for name in paused}
    for queue, state, jobs in Job.objects.order_by().values_list("queue", "state").annotate(Count("id")):
        counts.setdefault(queue, {})[state] = jobs
    oldest = oldest_due_s()
    return [
        Depth(
            queue=name,
            paused=paused.get(name, False),
            oldest_due_s=oldest.get(name, 0.0),
            jobs={state.value: counts[name].get(state, 0) for state in State},
        )
        for name in sorted(counts)
    ]


def families() -> Iterator[Metric]:
    """The queue's metrics, read from the ledger at scrape time."""
    jobs = GaugeMetricFamily("brain_queue_jobs", "Jobs by queue and state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "brain_queue_oldest_due_seconds", "Age of the oldest job that is due and waits.", labels=["queue"]
    )
    paused = GaugeMetricFamily("brain_queue_paused", "1 when the queue is paused.", labels=["queue"])
    for depth in depths():
        for state, count in depth.jobs.items():
            jobs.add_metric([depth.queue, state], count)
        oldest.add_metric([depth.queue], depth.oldest_due_s)
        paused.add_metric([depth.queue], float(depth.paused))
    yield jobs
    yield oldest
    yield paused
    yield GaugeMetricFamily("brain_queue_workers", "Workers that hold a lease.", value=workers.alive())
    yield GaugeMetricFamily(
        "brain_queue_schedule_overdue_seconds",
        "How late the schedule is that should have fired first; 0 when none is.",
        value=firing.overdue_s(),
    )
    yield from _limit_families()
    yield from recorder.families()


def _limit_families() -> Iterator[Metric]:
    """Of queues with limits only."""
    most = GaugeMetricFamily(
        "brain_queue_max_concurrency",
        "Jobs that may run at once; none where there is no limit.",
        labels=["queue"],
    )
    turns = GaugeMetricFamily(
        "brain_queue_turns",
        "Jobs by where they stand with the limits: held (running or about to), unstarted (of these), waiting.",
        labels=["queue", "kind"],
    )
    for queue, use in limits_told.all_in_use():
        if queue.max_concurrency is not None:
            most.add_metric([queue.name], queue.max_concurrency)
        for kind, count in use._asdict().items():
            turns.add_metric([queue.name, kind], count)
    yield most
    yield turns


def oldest_due_s() -> dict[str, float]:
    """How long the oldest job that is due has waited, by queue."""
    due = backlog().filter(is_due())
    since = due.order_by().values("queue").annotate(since=Min(Coalesce("run_after", "created_at")))
    now = timezone.now()
    return {row["queue"]: max(0.0, (now - row["since"]).total_seconds()) for row in since}
