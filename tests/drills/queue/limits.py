"""Limits: a small tenant behind a long backlog, weighted shares, and a concurrency that holds over kill -9."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drill import BOTH, drill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.drills.outcome import Outcome

    from .rig import Rig

_SLOTS = 2
_TAKES_S = 0.1
_SMALL = 10  # jobs
_MOST = 3  # at once


@drill("fairness", databases=BOTH)
def fairness(rig: Rig) -> Outcome:
    """The same ten jobs, alone and behind another tenant's backlog of a hundred thousand."""
    _limit(is_fair=True)
    rig.worker(slots=_SLOTS)
    tries = 2 if rig.quick else 5
    _waits(rig)  # the first jobs of a process take longer
    alone = [wait for _ in range(tries) for wait in _waits(rig)]
    backlog = 5_000 if rig.quick else 100_000
    _store(rig, "large", backlog)
    beside = []
    for _ in range(tries):
        before = _completed("large")
        rig.until(lambda before=before: _completed("large") > before + 20, "the backlog is worked off")
        beside += _waits(rig)
    was, now = _p95(alone), _p95(beside)
    rig.claim(now <= 2 * was, f"p95 at most twice as long ({now:.2f} s, alone {was:.2f} s)")
    rig.claim(_completed("large") < backlog / 2, "the backlog lasted to the end")
    _drop("large")
    shares = _shares(rig)
    rig.claim(2.7 <= shares <= 3.3, f"three to one ({shares:.2f} to one)")
    rig.finish()
    note = f"{_SMALL} jobs behind {backlog:,}: p95 {now:.2f} s, alone {was:.2f} s; weights of 3 to 1 gave {shares:.2f}"
    return rig.outcome(note)


@drill("concurrency-kill9", databases=BOTH, full_s=1800)
def concurrency_kill9(rig: Rig) -> Outcome:
    """Two workers of four slots, of which one after the other is killed, and three jobs at once."""
    kills = 4 if rig.quick else 30
    _limit(max_concurrency=_MOST)
    fleet = [rig.worker(), rig.worker()]
    ended: dict[int, float] = {}
    for _ in range(kills):
        _promise(rig, 60, round(random.uniform(0.05, 0.15), 3))
        victim = fleet.pop(0)
        rig.until(lambda victim=victim: rig.evidence.held_by(victim.pid), "the worker is busy")
        time.sleep(random.uniform(0.05, 0.4))
        rig.blow(victim.kill, victim)
        ended[victim.pid] = time.monotonic()
        fleet.append(rig.worker())
    rig.finish()
    most = _most_at_once(rig.evidence.file, ended)
    rig.claim(most <= _MOST, f"at most {_MOST} at once ({most} were)")
    rig.claim(most == _MOST, f"{_MOST} at once are reached ({most} were)")
    return rig.outcome(f"{kills} kills of a worker's group; {most} jobs at once, {_MOST} allowed")


def _limit(**limits: Any) -> None:
    from queue_app import policies, queues

    from . import jobs

    queues.find(jobs.LIMITED)
    queues.configure(jobs.LIMITED, actor=None, source="system", **limits)
    policies.by_name(fresh=True)


def _promise(rig: Rig, count: int, takes_s: float, tenant: str = "") -> list[str]:
    from . import jobs

    return rig.accept(rig.evidence.enqueue(jobs.span, {"takes_s": takes_s}, count, tenant=tenant))


def _store(rig: Rig, tenant: str, count: int, takes_s: float = _TAKES_S) -> None:
    """Not promised: what is left at the end is dropped."""
    from . import jobs

    for _ in range(0, count, 1000):
        rig.evidence.enqueue(jobs.span, {"takes_s": takes_s}, min(1000, count), tenant=tenant)


def _drop(tenant: str) -> None:
    """What waits for its turn, behind the ledger's back: cancelled one by one it would take minutes."""
    from django.db import transaction

    from queue_app.models import Job, JobEvent

    waits = Job.objects.filter(tenant=tenant, turn=2)
    with transaction.atomic():
        ids = list(waits.select_for_update().values_list("id", flat=True))
        for start in range(0, len(ids), 500):
            job_ids = ids[start : start + 500]
            JobEvent.objects.filter(job_id__in=job_ids).delete()
            Job.objects.filter(id__in=job_ids).delete()


def _waits(rig: Rig) -> list[float]:
    """Seconds that each of the small tenant's jobs waited."""
    from queue_app.models import Job

    ids = _promise(rig, _SMALL, _TAKES_S, "small")
    mine = Job.objects.filter(id__in=ids)
    rig.until(lambda: mine.filter(state="COMPLETED").count() == _SMALL, "the small tenant's jobs have run")
    spans = mine.values_list("created_at", "started_at")
    return [(started - created).total_seconds() for created, started in spans]


def _shares(rig: Rig) -> float:
    """How many jobs of a tenant of weight 3 start for each of one of weight 1, while both have enough."""
    from queue_app import tenants

    from . import jobs

    for tenant, weight in (("three", 3), ("one", 1)):
        tenants.configure(jobs.LIMITED, tenant, weight=weight, is_new=True, actor=None, source="system")
        _store(rig, tenant, 2000, takes_s=0.005)
    rig.until(lambda: _completed("one") >= 20, "both are under way")  # past what they had ahead
    before = _completed("three"), _completed("one")
    rig.until(lambda: _completed("one") >= before[1] + 100, "both have had their shares")
    after = _completed("three"), _completed("one")
    for tenant in ("three", "one"):
        _drop(tenant)
    return (after[0] - before[0]) / (after[1] - before[1])


def _completed(tenant: str) -> int:
    from queue_app.models import Job

    return Job.objects.filter(tenant=tenant, state="COMPLETED").count()


def _p95(waits: list[float]) -> float:
    return statistics.quantiles(waits, n=20, method="inclusive")[-1]


def _most_at_once(file: Path, ended: Mapping[int, float]) -> int:
    """By what the runs said themselves; one whose worker was killed ended then. ended: by the workers' process groups."""
    open_: dict[tuple[str, str], tuple[int, float]] = {}
    moments: list[tuple[float, int]] = []
    for line in Path(f"{file}.spans").read_text().splitlines():
        what, group, job, fence, at = line.split()
        if what == "start":
            open_[job, fence] = int(group), float(at)
        else:
            moments += [(open_.pop((job, fence))[1], 1), (float(at), -1)]
    for group, began in open_.values():
        moments += [(began, 1), (ended[group], -1)]
    now = most = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most
