"""How the queues stand and what they did: the one door to read it by, for the command, the API, the admin and Prometheus.

How they stand is read from the jobs; what they did from the rollups, which are some seconds behind.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.db.models import F, Q, Sum
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from . import alerts_told, census, clock, firing, limits_told, rollup_rows, spans, workers
from .broker import recorder
from .histograms import COUNTS, LAST, SUMMED, Histogram, Tally, from_json, total, upper_s
from .levels import ALL_TIME_S, DAY_S, MINUTE_S, cover, floor
from .models import Queue, Rollup
from .spans import Question
from .states import WAITING, State

_BOUNDS = range(0, LAST, 10)  # the buckets that Prometheus gets: each is 2.6 times the one before


@dataclass(frozen=True, slots=True)
class Depth:
    """One queue. oldest_due_s: how long its oldest job that is due has waited, in seconds; 0 when none is.

    jobs: those that there are now; completed and cancelled ones of all time.
    """

    queue: str
    paused: bool
    oldest_due_s: float
    jobs: dict[str, int] = field(default_factory=dict)  # state → count, every state

    @property
    def waiting(self) -> int:
        """Due or not, failed ones that will be tried again among them."""
        return sum(self.jobs.get(state, 0) for state in WAITING)

    @property
    def running(self) -> int:
        return self.jobs.get(State.PROCESSING, 0)

    @property
    def dead(self) -> int:
        return self.jobs.get(State.DEAD_LETTER, 0)


def depths() -> list[Depth]:
    """Every queue that has a row, open jobs or statistics, by name. Four statements, however many queues there are.

    What is over is never counted row by row: completed and cancelled are of all time, and some seconds behind. So is the rest
    where there is so much of it that counting takes long: see census.
    """
    paused = dict(Queue.objects.values_list("name", "paused"))
    counts: dict[str, dict[str, int]] = {name: {} for name in paused}
    for queue, state, jobs in _over():
        counts.setdefault(queue, {})[state] = jobs
    found = census.taken()
    for queue, open_state, jobs in found.jobs:
        counts.setdefault(queue, {})[open_state] = jobs
    return [
        Depth(
            queue=name,
            paused=paused.get(name, False),
            oldest_due_s=found.due[name].waited_s if name in found.due else 0.0,
            jobs={state.value: counts[name].get(state, 0) for state in State},
        )
        for name in sorted(counts)
    ]


def _over() -> Iterator[tuple[str, State, int]]:
    of_all_time = Rollup.objects.filter(step_s=ALL_TIME_S).order_by().values("queue")
    for row in of_all_time.annotate(Sum("completed"), Sum("cancelled")):
        yield row["queue"], State.COMPLETED, row["completed__sum"]
        yield row["queue"], State.CANCELLED, row["cancelled__sum"]


def series(asked: Question) -> list[tuple[datetime, Tally]]:
    """What happened in each step, the oldest first, steps without anything too.

    Where the minutes are deleted, hours are told where their span begins; so are days.
    """
    return both(asked)[0]


def both(asked: Question) -> tuple[list[tuple[datetime, Tally]], dict[tuple[str, str], Tally]]:
    """`series` and `summary` from one look at the rows."""
    steps = {start: _Sums() for start in spans.starts(asked)}
    tasks: dict[tuple[str, str], _Sums] = {}
    starts: dict[datetime, datetime] = {}  # of each span that has rows
    for at, queue, name, wait, run, *sums in _rows(asked, asked.step_s):
        waits, runs = orjson.loads(wait), orjson.loads(run)
        start = starts.get(at) or starts.setdefault(at, max(asked.since, floor(at, asked.step_s)))
        steps[start].add(sums, waits, runs)
        tasks.setdefault((queue, name), _Sums()).add(sums, waits, runs)
    return [(start, sums.tally()) for start, sums in steps.items()], _by_task(tasks)


def summary(asked: Question) -> dict[tuple[str, str], Tally]:
    """What happened in the whole time, by queue and task."""
    tasks: dict[tuple[str, str], _Sums] = {}
    for _, queue, name, wait, run, *sums in _rows(asked, DAY_S):
        tasks.setdefault((queue, name), _Sums()).add(sums, orjson.loads(wait), orjson.loads(run))
    return _by_task(tasks)


class _Sums:
    """A tally that is being added up, with texts for buckets, as JSON has them: there are thousands of rows."""

    __slots__ = ("_run", "_sums", "_wait")

    def __init__(self) -> None:
        self._sums: list[float] = [0] * len(SUMMED)
        self._wait: defaultdict[str, int] = defaultdict(int)
        self._run: defaultdict[str, int] = defaultdict(int)

    def add(self, sums: Sequence[float], wait: Mapping[str, int], run: Mapping[str, int]) -> None:
        self._sums = list(map(operator.add, self._sums, sums))
        into = self._wait
        for bucket, count in wait.items():
            into[bucket] += count
        into = self._run
        for bucket, count in run.items():
            into[bucket] += count

    def tally(self) -> Tally:
        return Tally.of(self._sums, from_json(self._wait), from_json(self._run))


def _by_task(tasks: Mapping[tuple[str, str], _Sums]) -> dict[tuple[str, str], Tally]:
    return {key: sums.tally() for key, sums in sorted(tasks.items())}


def _rows(asked: Question, most_s: int) -> Iterator[tuple[Any, ...]]:
    """(at, queue, name, histogram of waits, of runs, *SUMMED), from levels no coarser than `most_s`. Two statements."""
    spans_ = Q()
    for part in cover(asked.since, asked.until, most_s, asked.tenant, rollup_rows.marks()):
        spans_ |= Q(step_s=part.step_s, at__gte=part.since, at__lt=part.until, tenant=asked.tenant)
    if not spans_:
        return iter(())
    wanted = {field: getattr(asked, field) for field in ("queue", "name") if getattr(asked, field)}
    rows = Rollup.objects.filter(spans_, **wanted).order_by()
    return rollup_rows.plain(rows, "at", "queue", "name").iterator(chunk_size=5_000)


def recent(minutes: int = 60) -> dict[str, list[int]]:
    """How many runs ended in each of the last whole minutes, the oldest first, by queue; those without any are left out.

    One statement, which reads counts and no histograms. The last minute may be some seconds short of its end.
    """
    until = floor(clock.now(), MINUTE_S)
    since = until - timedelta(minutes=minutes)
    rows = Rollup.objects.filter(step_s=MINUTE_S, tenant="", at__gte=since, at__lt=until).order_by()
    ended = Sum(F("completed") + F("failed") + F("dead"))
    found: dict[str, list[int]] = {}
    for queue, at, count in rows.values_list("queue", "at").annotate(n=ended):
        place = int((at - since).total_seconds()) // MINUTE_S
        found.setdefault(queue, [0] * minutes)[place] = count
    return found


def lately(minutes: int = 5) -> Tally:
    """What happened in the last whole minutes, of all queues. As `recent` it may be some seconds short of their end."""
    until = floor(clock.now(), MINUTE_S)
    return total(summary(Question(until - timedelta(minutes=minutes), until, MINUTE_S)).values())


def tasks() -> list[tuple[str, str]]:
    """The queues and tasks that something was counted of, by name."""
    of_all_time = Rollup.objects.filter(step_s=ALL_TIME_S).order_by("queue", "name")
    return list(of_all_time.values_list("queue", "name"))


def families() -> Iterator[Metric]:
    """The queue's metrics, read from the ledger at scrape time."""
    jobs = GaugeMetricFamily(
        "brain_queue_jobs",
        "Jobs by queue and state; COMPLETED and CANCELLED of all time.",
        labels=["queue", "state"],
    )
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
    yield from alerts_told.families()
    yield from _limit_families()
    yield from _rollup_families()
    yield from recorder.families()


def _rollup_families() -> Iterator[Metric]:
    """Of all time, so that the counters never fall; by queue and task, of which there are few."""
    runs = CounterMetricFamily(
        "brain_queue_steps", "Steps of jobs by queue, task and kind.", labels=["queue", "task", "kind"]
    )
    queues: dict[str, list[Tally]] = {}
    of_all_time = Rollup.objects.filter(step_s=ALL_TIME_S).order_by("queue", "name")
    for (queue, name), tally in rollup_rows.tallied(of_all_time, "queue", "name"):
        for kind in COUNTS:
            runs.add_metric([queue, name, kind], getattr(tally, kind))
        queues.setdefault(queue, []).append(tally)
    waits = HistogramMetricFamily("brain_queue_wait_seconds", "From due to started.", labels=["queue"])
    durations = HistogramMetricFamily("brain_queue_run_seconds", "From started to its end.", labels=["queue"])
    for queue, tallies in queues.items():
        tally = total(tallies)
        waits.add_metric([queue], _cumulated(tally.wait), tally.wait_s)
        durations.add_metric([queue], _cumulated(tally.run), tally.run_s)
    yield from (runs, waits, durations)


def _cumulated(histogram: Histogram) -> list[Any]:
    bounds = [
        (f"{upper_s(bound):.4g}", sum(n for number, n in histogram.items() if number <= bound))
        for bound in _BOUNDS
    ]
    return [*bounds, ("+Inf", sum(histogram.values()))]


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


def oldest_due_s(*, but: Q | None = None) -> dict[str, float]:
    """How long the oldest job that is due has waited, by queue. but: jobs that do not count."""
    return {queue: due.waited_s for queue, due in census.oldest_due(but=but).items()}
