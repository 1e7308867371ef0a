"""Moments of schedules that are hard to meet: wrong clocks, days on which the clocks change, a week in which nobody fired."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from .clocks import Clock, no_compiler
from .drill import BOTH, drill
from .schedules import beats, due_with, make

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_HOUR_S = 3600
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"

# The local day, and its moments "HH:MM±offset" in the five hours from midnight, as Debian's cron has them.
CHANGES: Sequence[tuple[str, tuple[int, int, int], dict[str, list[str]]]] = (
    (
        NEW_YORK,
        (2027, 3, 14),  # 02:00 to 03:00 does not exist
        {
            "30 2 * * *": ["03:00-4"],
            "0 3 * * *": ["03:00-4"],
            "30 1-3 * * *": ["01:30-5", "03:00-4", "03:30-4"],
            "*/30 2 * * *": [],
            "0 * * * *": ["00:00-5", "01:00-5", "03:00-4", "04:00-4", "05:00-4"],
        },
    ),
    (
        BERLIN,
        (2027, 3, 28),
        {
            "30 2 * * *": ["03:00+2"],
            "0 3 * * *": ["03:00+2"],
            "30 1-3 * * *": ["01:30+1", "03:00+2", "03:30+2"],
            "*/30 2 * * *": [],
            "0 * * * *": ["00:00+1", "01:00+1", "03:00+2", "04:00+2", "05:00+2"],
        },
    ),
    (
        BERLIN,
        (2027, 10, 31),  # 02:00 to 03:00 comes twice
        {
            "30 2 * * *": ["02:30+2"],
            "0 3 * * *": ["03:00+1"],
            "*/30 2 * * *": ["02:00+2", "02:30+2", "02:00+1", "02:30+1"],
            "0 * * * *": ["00:00+2", "01:00+2", "02:00+2", "02:00+1", "03:00+1"],
        },
    ),
    (
        NEW_YORK,
        (2027, 11, 7),  # 01:00 to 02:00 comes twice
        {
            "30 1 * * *": ["01:30-4"],
            "0 2 * * *": ["02:00-5"],
            "*/30 1 * * *": ["01:00-4", "01:30-4", "01:00-5", "01:30-5"],
            "0 * * * *": ["00:00-4", "01:00-4", "01:00-5", "02:00-5", "03:00-5"],
        },
    ),
)
_NIGHT_S = 5 * _HOUR_S
_STEP_S = 600  # by which the clock goes on
_STAY_S, _QUICK_STAY_S = 1.5, 0.7  # at each step; schedulers look every 0.3 s


@drill("schedules-clocks", databases=("postgresql",), missing=no_compiler)
def clocks(rig: Rig) -> Outcome:
    """Three schedulers, an hour ahead, an hour behind and right. The database's clock says what is due."""
    count = 200 if rig.quick else 1000
    ahead, behind = Clock(rig.home, "ahead", _HOUR_S), Clock(rig.home, "behind", -_HOUR_S)
    due, took_s = due_with(rig, count, worker_env=ahead.env, beat_envs=[behind.env, {}])
    early = _firings().filter(at__lt=due).count()
    rig.claim(not early, f"none fires before its moment ({early} did)")
    rig.finish()
    return rig.outcome(
        f"{count} due in one second with clocks an hour ahead and behind, all fired {took_s:.1f} s later; a beat and a"
        " worker killed"
    )


@drill("schedules-clock-set", databases=("sqlite",), missing=no_compiler)
def clock_set(rig: Rig) -> Outcome:
    """The host's clock, which with SQLite is the database's, is set an hour on and back again under three schedulers."""
    every_s, count = 2, 20 if rig.quick else 100
    clock = Clock(rig.home, "host", 0)
    rig.worker(env=clock.env)
    with beats(rig, 2, env=clock.env):
        make(rig, count, every_s=every_s)
        rig.until(lambda: _fired() >= 2 * count, "each fires twice")
        clock.set(_HOUR_S)
        before = _fired()
        rig.until(lambda: _fired() >= before + 2 * count, "they fire after the clock was set on")
        rig.claim(
            _missed() == count, f"what the clock jumped over is missed, once each ({_missed()} of {count})"
        )
        clock.set(0)
        time.sleep(1)  # a look that had begun may still fire
        before = _fired()
        time.sleep(3 * every_s)
        rig.claim(_fired() == before, f"nothing fires while the clock is behind ({_fired() - before} did)")
        clock.set(_HOUR_S)
        rig.until(lambda: _fired() >= before + count, "they fire when the time has come again")
    _stop_all()
    _one_job_each(rig)
    rig.finish()
    return rig.outcome(
        f"{count} schedules of {every_s} s while the clock is set an hour on, back and on again"
    )


@drill("schedules-dst", databases=("sqlite",), missing=no_compiler)
def dst(rig: Rig) -> Outcome:
    """The nights on which the clocks change, in steps of ten minutes, with real schedulers; one is killed in each night."""
    fired = 0
    for number, (zone, date, rules) in enumerate(CHANGES):
        start = datetime(*date, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        clock = Clock(rig.home, f"night-{number}", 0)
        _set(clock, start - timedelta(minutes=5))
        schedules = {
            rule: _nightly(rig, f"night {number} {at}", rule, zone, start) for at, rule in enumerate(rules)
        }
        worker = rig.worker(env=clock.env)
        with beats(rig, 2, f"night-{number}-", env=clock.env) as two:
            for step in range(-1, _NIGHT_S // _STEP_S):
                _set(clock, start + timedelta(seconds=(step + 0.5) * _STEP_S))
                time.sleep(_QUICK_STAY_S if rig.quick else _STAY_S)
                if step == 12:  # where the clocks change
                    os.killpg(two[0].pid, signal.SIGKILL)
        end = start + timedelta(seconds=_NIGHT_S)
        for rule, schedule in schedules.items():
            moments = _firings().filter(schedule=schedule, due_at__lt=end).values_list("due_at", flat=True)
            found = [_local(moment, zone) for moment in sorted(moments)]
            rig.claim(found == rules[rule], f"{zone}, {start:%d %b}, {rule}: {rules[rule]} (it was {found})")
            fired += len(found)
        _stop_all()
        rig.until(lambda: not rig.evidence.open_jobs(), "the night's jobs are over")
        worker.leave()
    _one_job_each(rig)
    return rig.outcome(
        f"{fired} moments in {len(CHANGES)} nights on which the clocks change; a beat killed in each"
    )


@drill("schedules-missed", databases=BOTH)
def missed_week(rig: Rig) -> Outcome:
    """A week without a scheduler, hourly schedules of every policy; then three of them at once, and one is killed."""
    from queue_app import clock
    from queue_app.models import Firing

    count = 3 if rig.quick else 20
    # The newest moment is half an hour old: past every grace, and no new one comes while the drill looks.
    newest = clock.now().replace(microsecond=0) - timedelta(minutes=30)
    first = newest - timedelta(hours=168)
    week_s = 7 * 86_400
    policies: dict[str, tuple[dict[str, Any], int]] = {  # and how many moments fire
        "skip": ({"missed": "skip"}, 0),
        "last": ({"missed": "last"}, 1),
        "all of a day": ({"missed": "all"}, 24),
        "all of a week": ({"missed": "all", "window_s": week_s}, 168),
    }
    for name, (terms, _) in policies.items():
        make(rig, count, every_s=_HOUR_S, due=first, name=name, **terms)
    total = sum(moments for _, moments in policies.values()) * count
    worker = rig.worker()
    with beats(rig, 2) as two:
        rig.until(lambda: _fired() > total // 20, "they begin to fire")
        os.killpg(two[0].pid, signal.SIGKILL)
        rig.blow(worker.kill, worker)
        rig.worker()
        rig.wait_for(lambda: _fired() >= total, "all has fired that is to fire")
        rig.settle(3)
    for name, (_, moments) in policies.items():
        rows = Firing.objects.filter(schedule__name__startswith=f"{name} ")
        per = rows.filter(outcome="fired").count() / count
        rig.claim(per == moments, f"{name}: {moments} of 169 moments fire ({per:g} did)")
        told = rows.filter(outcome="missed").count() / count
        rig.claim(told == 1, f"{name}: what does not fire is told as missed, once ({told:g})")
        newest_fired = set(rows.filter(outcome="fired", due_at=newest).values_list("schedule", flat=True))
        rig.claim(len(newest_fired) == (count if moments else 0), f"{name}: the newest moment is among them")
    _one_job_each(rig)
    rig.finish()
    return rig.outcome(
        f"a week of missed hours, {count} schedules of each policy: {total:,} fired; a beat and a worker killed"
    )


def _set(clock: Clock, moment: datetime) -> None:
    clock.set(round((moment - datetime.now(UTC)).total_seconds()))


def _nightly(rig: Rig, name: str, rule: str, zone: str, start: datetime) -> Any:
    """Its first moment is counted from the night's start, as the drill's own clock is right."""
    from queue_app import firing
    from queue_app.models import Schedule

    payload = {"file": str(rig.evidence.file), "takes_s": 0.0}
    terms = {"cron": rule, "time_zone": zone, "missed": "all", "starts_at": start}
    schedule = Schedule(name=name, task="drills.line", payload=payload, **terms)
    schedule.next_at = firing.timing(schedule).after(start - timedelta(seconds=1))
    schedule.save()
    return schedule


def _local(moment: datetime, zone: str) -> str:
    there = moment.astimezone(ZoneInfo(zone))
    offset = there.utcoffset()
    assert offset is not None
    return f"{there:%H:%M}{offset // timedelta(hours=1):+}"


def _firings() -> Any:
    from queue_app.models import Firing

    return Firing.objects.filter(outcome="fired")


def _fired() -> int:
    return int(_firings().count())


def _missed() -> int:
    from queue_app.models import Firing

    return Firing.objects.filter(outcome="missed").count()


def _stop_all() -> None:
    from queue_app.models import Schedule

    Schedule.objects.update(paused=True)


def _one_job_each(rig: Rig) -> None:
    """Every firing has a job of its own, and no job is without one."""
    from queue_app.models import Job

    jobs = [str(job) for job in _firings().values_list("job", flat=True)]
    there = Job.objects.filter(
        delivery="ledger"
    ).count()  # Celery's beat has an entry of its own, at four in the morning
    rig.claim(
        len(set(jobs)) == len(jobs) == there, f"one job for each of {len(jobs)} firings ({there} are there)"
    )
    rig.accept(jobs)
