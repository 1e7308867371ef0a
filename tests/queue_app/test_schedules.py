"""Schedules on each database: made, changed and fired, by any number of schedulers, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pydantic import BaseModel

from foundation.models import AuditEntry
from queue_app import checks, clock, firing, intake, queues, registry, schedules, stats, task
from queue_app.conf import conf
from queue_app.models import Firing, Job, Lease, Schedule
from queue_app.schedules import BadSchedule, Refused
from queue_app.testing import frozen_time

pytestmark = [pytest.mark.usefixtures("every_database"), pytest.mark.django_db(transaction=True)]

WHO: dict[str, Any] = {"actor": "somebody", "source": "cli"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def own_queue(own_queue: str, every_database: None) -> str:
    return own_queue


@pytest.fixture
def make(own_queue: str) -> Callable[..., Schedule]:
    """An hourly schedule of the test's own task; due_ago: how long ago its first moment was."""

    def made(name: str = "hourly", *, due_ago: timedelta | None = None, **fields: Any) -> Schedule:
        fields = {"task": own_queue, "interval_s": 3600} | fields
        schedule = schedules.create(name, **fields, **WHO)
        if due_ago is not None:
            due = clock.now().replace(microsecond=0) - due_ago
            Schedule.objects.filter(pk=schedule.pk).update(starts_at=due, next_at=due)
        return again(schedule)

    return made


def scheduler() -> firing.Scheduler:
    """Of a worker of its own."""
    worker = uuid4()
    return firing.Scheduler(lambda: worker)


def again(schedule: Schedule) -> Schedule:
    return Schedule.objects.get(pk=schedule.pk)


def outcomes(schedule: Schedule) -> list[str]:
    return [*schedule.firings.order_by("due_at").values_list("outcome", flat=True)]


def audited() -> list[str]:
    return [
        *AuditEntry.objects.filter(target_label="queue_app.Schedule")
        .order_by("id")
        .values_list("action", flat=True)
    ]


# --- made and changed ------------------------------------------------------------------------------------------------------
def test_create__cron_or_interval__knows_its_next_moment(make):
    hourly = make()
    assert hourly.next_at == hourly.starts_at + HOUR
    nightly = make("nightly", interval_s=None, cron="0 2 * * *", time_zone="Europe/Berlin")
    assert nightly.next_at == schedules.timing(nightly).after(nightly.starts_at)
    assert len(schedules.next_runs(nightly)) == 5
    assert audited() == ["schedule.create"] * 2


class Order(BaseModel):
    number: int


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cron": "* * * * *"}, "cron"),  # beside the interval
        ({"interval_s": None}, "cron"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": None, "cron": "61 * * * *"}, "cron"),
        ({"interval_s": None, "cron": "* * * * *", "time_zone": "Mars/Base"}, "time_zone"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"interval_s": None, "cron": 5}, "cron"),
        ({"task": "nobody.knows"}, "task"),
        ({"payload": [1]}, "payload"),
        ({"payload": {"at": float("nan")}}, "payload"),
        ({"queue": "no-such-queue"}, "queue"),
        ({"priority": 10}, "priority"),
        ({"tenant": "t" * 65}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"cron": None}, "cron"),
        ({"missed": "never"}, "missed"),
        ({"overlap": "perhaps"}, "overlap"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": "1"}, "window_s"),
    ],
)
def test_create__bad_field__names_it_and_stores_nothing(make, fields, field):
    with pytest.raises(BadSchedule) as raised:
        make(**fields)
    assert list(raised.value.errors) == [field]
    assert not Schedule.objects.exists()
    assert audited() == []


@pytest.mark.parametrize("name", ["", " x", "x\0", "n" * 101, None])
def test_create__bad_name__is_refused(make, name):
    with pytest.raises(BadSchedule) as raised:
        make(name)
    assert list(raised.value.errors) == ["name"]


def test_create__payload_that_does_not_fit_its_model_and_name_twice__are_refused(make, own_queue):
    @task(name="schedules.typed", queue=own_queue)
    def typed(order: Order) -> None: ...

    try:
        with pytest.raises(BadSchedule, match="number"):
            make(task="schedules.typed", payload={"number": "x"})
        make(task="schedules.typed", payload={"number": 1})
        with pytest.raises(BadSchedule, match="already"):
            make(task="schedules.typed", payload={"number": 1})
    finally:
        del registry._tasks["schedules.typed"]


def test_create__broker_queue_or_secret_fields__is_refused(make, own_queue):
    queues.create_queue(own_queue)
    queues.configure(own_queue, **WHO, delivery="broker")
    with pytest.raises(BadSchedule, match="broker delivery"):
        make()
    task(name="schedules.secret", queue=own_queue, secret_fields=("pin",))(lambda payload: None)
    try:
        with pytest.raises(BadSchedule, match="secret fields"):
            make(task="schedules.secret", payload={"pin": "1"})
    finally:
        del registry._tasks["schedules.secret"]


def test_change__new_timing__counts_from_now(make):
    hourly = make(due_ago=5 * HOUR)
    changed = schedules.change(hourly, **WHO, interval_s=60, priority=6)
    assert changed.next_at is not None
    assert clock.now() < changed.next_at <= clock.now() + timedelta(seconds=60)
    assert again(hourly).priority == 6
    entry = AuditEntry.objects.latest("id")
    assert (entry.before, entry.after) == (
        {"interval_s": 3600, "priority": 3},
        {"interval_s": 60, "priority": 6},
    )


def test_change__zone_of_an_interval__moves_none_of_its_moments(make):
    hourly = make(due_ago=-HOUR / 3)
    changed = schedules.change(hourly, time_zone="Asia/Tokyo", **WHO)
    assert (changed.next_at, changed.starts_at) == (hourly.next_at, hourly.starts_at)
    assert schedules.next_words(changed, changed.next_at, clock.now()).endswith("JST")


def test_change__bad_or_nothing__leaves_the_row_alone(make):
    hourly = make()
    with pytest.raises(BadSchedule):
        schedules.change(hourly, **WHO, cron="* * * * *")
    assert schedules.change(hourly, **WHO, interval_s=3600).next_at == hourly.next_at
    assert again(hourly).cron == ""
    assert audited() == ["schedule.create"]
    with pytest.raises(TypeError, match="next_at"):
        schedules.change(hourly, **WHO, next_at=timezone.now())


def test_delete__jobs_stay_and_firings_go(make):
    hourly = make(due_ago=timedelta())
    firing.fire_due()
    schedules.delete(hourly, **WHO)
    assert (Schedule.objects.count(), Firing.objects.count(), Job.objects.count()) == (0, 0, 1)
    with pytest.raises(Refused, match="is gone"):
        schedules.run_now(hourly, **WHO)


# --- fired -----------------------------------------------------------------------------------------------------------------
def test_fire__due__job_and_firing_and_next_moment(make):
    hourly = make(due_ago=timedelta(seconds=5), payload={"n": 1}, priority=6, tenant="acme")
    assert firing.fire_due() == 1
    (job,), (fired,) = Job.objects.all(), Firing.objects.all()
    assert (job.payload, job.priority, job.tenant) == ({"n": 1}, 6, "acme")
    assert job.request_id == f"schedule-{hourly.pk}-{hourly.next_at:%Y%m%dT%H%M%S}Z"
    assert (fired.outcome, fired.cause, fired.due_at, fired.job) == ("fired", "clock", hourly.next_at, job.id)
    now = again(hourly)
    assert (now.last_at, now.last_job, now.next_at) == (hourly.next_at, job.id, hourly.next_at + HOUR)
    assert firing.fire_due() == 0


def test_fire__not_due_or_paused__does_nothing(make):
    make()
    schedules.pause(make("late", due_ago=HOUR), **WHO)
    assert firing.fire_due() == 0
    assert not Job.objects.exists()


def test_fire__transaction_fails__neither_job_nor_firing_nor_step(make, monkeypatch):
    hourly = make(due_ago=timedelta(seconds=5))

    def broken(*args: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(Schedule.objects, "bulk_update", broken)
        assert firing.fire_due() == 0
    assert (Job.objects.count(), Firing.objects.count(), again(hourly).next_at) == (0, 0, hourly.next_at)
    assert firing.fire_due() == 1
    assert (Job.objects.count(), Firing.objects.count()) == (1, 1)


@pytest.mark.parametrize(
    ("missed", "jobs", "found"),
    [
        ("skip", 0, ["missed"]),
        ("last", 1, ["missed", "fired"]),
        ("all", 24, ["missed", *["fired"] * 24]),
    ],
)
def test_fire__a_week_late__each_policy_fires_its_share(make, missed, jobs, found):
    late = make(due_ago=7 * DAY + HOUR / 2, missed=missed)
    while firing.fire_due():
        pass
    assert Job.objects.count() == jobs
    assert outcomes(late) == found
    following = again(late).next_at
    assert following is not None
    assert clock.now() < following <= clock.now() + HOUR


def test_fire__more_than_fit__comes_in_portions_and_completely(make, monkeypatch):
    monkeypatch.setattr(firing, "AT_MOST", 7)
    late = make(due_ago=20 * HOUR + HOUR / 2, missed="all")
    for n in range(10):
        make(f"also {n}", due_ago=timedelta(seconds=1))
    while firing.fire_due():
        pass
    assert outcomes(late) == ["fired"] * 21
    assert Job.objects.count() == 31


def test_fire__last_job_not_over__overlap_says_whether(make):
    skips = make("skips", due_ago=timedelta(seconds=1), overlap="skip")
    allows = make("allows", due_ago=timedelta(seconds=1))
    firing.fire_due()
    Schedule.objects.update(next_at=clock.now())
    firing.fire_due()
    assert outcomes(skips) == ["fired", "overlapped"]
    assert set(outcomes(allows)) == {"fired"}
    Job.objects.update(state="COMPLETED")
    Schedule.objects.update(next_at=clock.now())
    firing.fire_due()
    assert outcomes(skips)[-1] == "fired"


@pytest.fixture
def meet(make) -> Callable[..., tuple[Schedule, Job]]:
    """A schedule of this overlap policy whose first job is in `state` while `moments` more have come."""

    def met(overlap: str, state: str = "PENDING", moments: int = 1) -> tuple[Schedule, Job]:
        schedule = make(overlap, due_ago=timedelta(seconds=1), overlap=overlap)
        firing.fire_due()
        Job.objects.update(state=state)
        for _ in range(moments):
            come(schedule)
        return again(schedule), Job.objects.order_by("id")[0]

    return met


def come(schedule: Schedule) -> None:
    Schedule.objects.filter(pk=schedule.pk).update(next_at=clock.now())
    firing.fire_due()


def test_wait__last_job_not_over__one_moment_waits_and_gets_its_job_at_the_end(meet):
    schedule, first = meet("wait", "PROCESSING", moments=3)
    assert outcomes(schedule) == ["fired", "waiting", "overlapped", "overlapped"]
    assert Job.objects.count() == 1
    assert firing.let_go() == 0
    Job.objects.update(state="DEAD_LETTER")
    firing.look()
    assert outcomes(schedule) == ["fired", "fired", "overlapped", "overlapped"]
    second = Job.objects.exclude(id=first.id).get()
    came = schedule.firings.order_by("due_at")[1]
    assert (came.job, came.note) == (second.id, f"waited for job {first.id}")
    row = again(schedule)
    assert (row.waits_at, row.last_job, row.last_at) == (None, second.id, came.due_at)
    assert firing.let_go() == 0


def test_wait__a_moment_comes_when_the_job_has_just_ended__the_one_that_waited_goes_first(meet):
    schedule, _ = meet("wait", "PROCESSING")
    Job.objects.update(state="COMPLETED")
    come(schedule)
    assert outcomes(schedule) == ["fired", "fired", "waiting"]
    assert Job.objects.count() == 2


def test_wait__all_that_was_missed_comes_at_once__one_fires_and_one_waits(make):
    late = make("late", due_ago=5 * HOUR, overlap="wait", missed="all")
    firing.fire_due()
    assert outcomes(late)[:3] == ["fired", "waiting", "overlapped"]
    assert Job.objects.count() == 1


@pytest.mark.parametrize("state", ["PENDING", "FAILED"])
def test_replace__last_job_waits_to_run__cancelled_and_the_next_enqueued(meet, state):
    schedule, first = meet("replace", state)
    first.refresh_from_db()
    assert (first.state, outcomes(schedule)) == ("CANCELLED", ["fired", "fired"])
    assert again(schedule).last_job == Job.objects.exclude(id=first.id).get().id
    entry = AuditEntry.objects.get(action="job.cancel")
    assert (entry.actor, entry.source) == ("schedule replace", "system")


def test_replace__last_job_runs__asked_to_stop_once_and_the_latest_moment_waits_for_its_end(meet):
    schedule, first = meet("replace", "PROCESSING", moments=3)
    first.refresh_from_db()
    assert (first.state, first.cancel_requested, first.cancel_forced) == ("PROCESSING", True, False)
    assert outcomes(schedule) == ["fired", "overlapped", "overlapped", "waiting"]
    assert AuditEntry.objects.filter(action="job.cancel").count() == 1
    assert Job.objects.count() == 1  # the two never run at once
    Job.objects.update(state="CANCELLED")
    firing.look()
    assert outcomes(schedule) == ["fired", "overlapped", "overlapped", "fired"]
    assert Job.objects.count() == 2


def test_replace__many_missed_moments_at_once__the_latest_waits(make):
    late = make("late", due_ago=timedelta(seconds=1), overlap="replace", missed="all")
    firing.fire_due()
    Job.objects.update(state="PROCESSING")
    due = clock.now().replace(microsecond=0) - 3 * HOUR - timedelta(minutes=1)
    Firing.objects.update(due_at=due - HOUR)
    Schedule.objects.update(next_at=due, starts_at=due)
    firing.fire_due()
    assert outcomes(late) == ["fired", "overlapped", "overlapped", "overlapped", "waiting"]


@pytest.mark.parametrize("change", ["pause", "timing"])
def test_wait__schedule_is_paused_or_has_other_times__the_moment_passes(meet, change):
    schedule, _ = meet("wait", "PROCESSING")
    if change == "pause":
        schedules.pause(schedule, **WHO)
        schedules.resume(schedule, **WHO)
    else:
        schedules.change(schedule, interval_s=7200, **WHO)
    Job.objects.update(state="COMPLETED")
    assert firing.let_go() == 0
    assert outcomes(schedule) == ["fired", "overlapped"]
    assert again(schedule).waits_at is None


def test_wait__task_is_gone_meanwhile__refused_and_waits_no_more(meet):
    schedule, _ = meet("wait", "PROCESSING")
    Schedule.objects.update(task="was.removed")
    Job.objects.update(state="COMPLETED")
    firing.look()
    assert outcomes(schedule) == ["fired", "refused"]
    assert again(schedule).waits_at is None


def test_backfill__a_moment_that_waits__is_left_to_get_its_own_job(meet):
    schedule, _ = meet("wait", "PROCESSING")
    Schedule.objects.update(waits_at=schedule.starts_at, starts_at=schedule.starts_at)
    row = again(schedule)
    assert schedule.starts_at not in schedules.backfillable(row, row.starts_at - HOUR, clock.now())


def test_let_go__three_schedulers_at_once__one_job(meet):
    schedule, _ = meet("wait", "PROCESSING")
    Job.objects.update(state="COMPLETED")
    ready = threading.Barrier(3)

    def scheduler_looks() -> None:
        try:
            ready.wait(60)
            firing.let_go()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=scheduler_looks) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Job.objects.count() == 2
    assert outcomes(schedule) == ["fired", "fired"]


def test_fire__task_is_gone__says_so_and_holds_up_no_other(make, own_queue):
    gone = make("a gone one", due_ago=timedelta(seconds=9))
    Schedule.objects.filter(pk=gone.pk).update(task="was.removed")
    fine = make("fine", due_ago=timedelta(seconds=5))
    firing.look()
    assert (outcomes(gone), outcomes(fine)) == (["refused"], ["fired"])
    assert "was.removed" in Firing.objects.get(schedule=gone).note
    following = again(gone).next_at
    assert following is not None
    assert following > clock.now()


def test_fire__time_zone_is_gone__stops_and_holds_up_no_other(make):
    gone = make("a gone one", due_ago=timedelta(seconds=9), interval_s=None, cron="* * * * *")
    Schedule.objects.filter(pk=gone.pk).update(time_zone="Was/Removed")
    fine = make("fine", due_ago=timedelta(seconds=5))
    firing.look()
    assert (outcomes(gone), outcomes(fine)) == (["missed"], ["fired"])
    assert again(gone).next_at is None


def test_fire__database_refuses_one__the_others_fire(make, monkeypatch):
    make("a bad one", due_ago=timedelta(seconds=9), payload={"bad": True})
    fine = make("fine", due_ago=timedelta(seconds=5))
    enqueue = intake.enqueue

    def refusing(target: Any, payload: Any, **options: Any) -> Job:
        if payload:
            Job.objects.create(id=uuid4(), name="x", queue="x", payload={}, priority=99, max_attempts=1)
        return enqueue(target, payload, **options)

    monkeypatch.setattr(intake, "enqueue", refusing)
    firing.look()
    assert outcomes(fine) == ["fired"]
    assert Job.objects.count() == 1


def test_fire__a_tasks_own_check_is_broken__says_so_and_holds_up_no_other(make, own_queue, monkeypatch):
    picky = make("a picky one", due_ago=timedelta(seconds=9))
    fine = make("fine", due_ago=timedelta(seconds=5), payload={"fine": True})

    def check(self: Any, text: str) -> None:
        if "fine" not in text:
            raise KeyError(text)

    monkeypatch.setattr(registry.Task, "_check", check)
    firing.look()
    assert (outcomes(picky), outcomes(fine)) == (["refused"], ["fired"])
    assert "KeyError" in Firing.objects.get(schedule=picky).note
    with pytest.raises(BadSchedule, match="payload: its check failed: KeyError"):
        make("another")


def test_fire__whatever_one_of_them_raises__the_others_fire(make, monkeypatch):
    make("a bad one", due_ago=timedelta(seconds=9), payload={"bad": True})
    fine = make("fine", due_ago=timedelta(seconds=5))
    order = firing.order

    def failing(schedule: Schedule, moment: datetime) -> Job:
        if schedule.payload:
            raise RuntimeError("broken")
        return order(schedule, moment)

    monkeypatch.setattr(firing, "order", failing)
    firing.look()
    assert outcomes(fine) == ["fired"]
    assert firing.overdue_s() > 8


def test_fire__clock_an_hour_on_and_back__each_moment_once(make, monkeypatch):
    late = make(due_ago=timedelta(), interval_s=600, missed="all")
    start = clock.now()
    for minutes in (0, 5, 60, 0, 10, 30, 60, 65, 70):
        monkeypatch.setattr(clock, "now", lambda at=start + timedelta(minutes=minutes): at)
        firing.fire_due()
    moments = [*late.firings.order_by("due_at").values_list("due_at", flat=True)]
    assert moments == [late.next_at + n * timedelta(minutes=10) for n in range(8)]
    assert Job.objects.count() == 8


def test_fire__day_on_which_the_clocks_go_back__no_moment_is_doubled(make, monkeypatch):
    start = datetime.fromisoformat("2026-10-24T22:00:00+00:00")  # midnight in Berlin
    monkeypatch.setattr(clock, "now", lambda: start - HOUR)
    daily = make("daily", interval_s=None, cron="30 2 * * *", time_zone="Europe/Berlin")
    stepping = make("stepping", interval_s=None, cron="*/30 2 * * *", time_zone="Europe/Berlin")
    for minutes in range(0, 26 * 60, 10):
        monkeypatch.setattr(clock, "now", lambda at=start + timedelta(minutes=minutes): at)
        firing.fire_due()
    assert (outcomes(daily), outcomes(stepping)) == (["fired"], ["fired"] * 4)


def test_fire__three_at_once__every_moment_fires_once(make, monkeypatch):
    monkeypatch.setattr(firing, "AT_MOST", 5)
    for n in range(40):
        make(f"one of many {n}", due_ago=timedelta(seconds=1))
    together, failed = threading.Barrier(3), list[BaseException]()

    def fire() -> None:
        try:
            together.wait(60)
            while Schedule.objects.filter(next_at__lte=clock.now()).exists():
                firing.look()
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=fire) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert (Firing.objects.filter(outcome="fired").count(), Job.objects.count()) == (40, 40)


def test_fire__statements__grow_by_those_of_its_job_alone(make):
    make("first", due_ago=timedelta(seconds=1))
    firing.fire_due()

    def statements(count: int) -> int:
        for n in range(count):
            make(f"{count} {n}", due_ago=timedelta(seconds=1))
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert firing.fire_due() == count
        return len(captured)

    few, more = statements(2), statements(12)
    assert (more - few) / 10 <= 6


# --- who fires -------------------------------------------------------------------------------------------------------------
def test_scheduler__another_worker_leads__leaves_it_to_that_one_until_it_stops(make):
    leader, other = scheduler(), scheduler()
    leader.look()
    make(due_ago=timedelta(seconds=1))
    assert other.look() == conf().LEASE_S / 3
    assert not Job.objects.exists()
    leader.stop()
    assert other.look() <= conf().RECONCILE_S
    assert Job.objects.count() == 1


def test_scheduler__leader_was_killed__another_fires_in_time_for_every_policy(make):
    leader, other = scheduler(), scheduler()
    leader.look()
    skips = make(due_ago=timedelta(seconds=15), missed="skip")
    Lease.objects.filter(name=firing.NAME).update(until=timezone.now() - HOUR)
    other.look()
    assert outcomes(skips) == ["fired"]


def test_look__next_moment_is_near__waits_for_just_so_long(make, monkeypatch):
    assert firing.look() == conf().RECONCILE_S
    near, now = make(), clock.now()
    Schedule.objects.filter(pk=near.pk).update(next_at=now + timedelta(seconds=0.4))
    monkeypatch.setattr(clock, "now", lambda: now)
    assert firing.look() == pytest.approx(0.4)


def test_overdue__nobody_fires__grows_and_is_zero_again_when_somebody_did(make):
    assert firing.overdue_s() == 0
    make(due_ago=timedelta(seconds=90))
    assert 90 <= firing.overdue_s() < 120
    shown = {family.name: family for family in stats.families()}
    assert shown["brain_queue_schedule_overdue_seconds"].samples[0].value >= 90
    firing.look()
    assert firing.overdue_s() == 0


def test_check__grace_shorter_than_a_takeover__is_an_error(monkeypatch):
    assert "queue.E007" not in {found.id for found in checks.conf_fits_together(None)}
    short = replace(conf(), SCHEDULE_GRACE_S=2 * conf().LEASE_S)
    monkeypatch.setattr(checks, "conf", lambda: short)
    assert "queue.E007" in {found.id for found in checks.conf_fits_together(None)}


def test_prune__firings_past_their_time__go(make):
    hourly = make(due_ago=timedelta(seconds=1))
    firing.fire_due()
    assert firing.prune() == 0
    Firing.objects.update(at=clock.now() - timedelta(seconds=conf().FIRING_RETENTION_S + 1))
    assert firing.prune() == 1
    assert outcomes(hourly) == []


# --- by hand ---------------------------------------------------------------------------------------------------------------
def test_pause_and_resume__what_came_due_meanwhile_does_not_fire(make):
    hourly = make(due_ago=5 * HOUR, missed="all")
    schedules.pause(schedules.pause(hourly, **WHO), **WHO)
    assert schedules.next_runs(again(hourly)) == []
    schedules.resume(hourly, **WHO)
    assert firing.fire_due() == 0
    following = again(hourly).next_at
    assert following is not None
    assert clock.now() < following <= clock.now() + HOUR
    assert audited() == ["schedule.create", "schedule.pause", "schedule.resume"]


def test_run_now__paused_or_not__one_job_more_and_the_same_next_moment(make):
    hourly = make(overlap="skip")
    schedules.pause(hourly, **WHO)
    jobs = {schedules.run_now(hourly, **WHO).id for _ in range(2)}
    assert len(jobs) == 2
    assert again(hourly).next_at == hourly.next_at
    assert {*Firing.objects.values_list("cause", "outcome")} == {("hand", "fired")}


def test_run_now__several_times_in_one_moment__a_job_each(make):
    with frozen_time():
        hourly = make()
        jobs = {schedules.run_now(hourly, **WHO).id for _ in range(3)}
        assert {*hourly.firings.values_list("job", flat=True)} == jobs
        assert len(jobs) == 3


def test_run_now__the_last_job_runs__the_moment_that_waits_goes_on_to_wait_for_it(meet):
    schedule, first = meet("wait", "PROCESSING")
    by_hand = schedules.run_now(schedule, **WHO)
    Job.objects.filter(id=by_hand.id).update(state="COMPLETED")
    assert firing.let_go() == 0
    Job.objects.filter(id=first.id).update(state="COMPLETED")
    assert firing.let_go() == 1


def test_run_now__nothing_runs__the_next_moment_meets_its_job(meet):
    schedule, _ = meet("skip", "COMPLETED", moments=0)
    schedules.run_now(schedule, **WHO)
    come(schedule)
    assert outcomes(schedule)[-1] == "overlapped"


def test_run_now__in_a_transaction_that_fails__nothing_happened(make):
    hourly = make()
    with pytest.raises(RuntimeError), transaction.atomic():
        schedules.run_now(hourly, **WHO)
        raise RuntimeError
    assert not Job.objects.exists()
    Schedule.objects.update(task="was.removed")
    with pytest.raises(Refused, match=r"was\.removed"):
        schedules.run_now(hourly, **WHO)
    assert not Firing.objects.exists()


def test_backfill__moments_without_a_job__get_one_each_and_never_two(make):
    late = make(due_ago=10 * HOUR + HOUR / 2, missed="last")
    firing.fire_due()
    start, end = late.next_at, clock.now()
    assert len(schedules.backfillable(late, start, end)) == 10
    assert len(schedules.backfill(late, start, end, **WHO)) == 10
    assert schedules.backfill(late, start, end, **WHO) == []
    assert outcomes(late) == ["fired"] * 11
    assert Job.objects.count() == 11


def test_backfill__older_than_the_record_of_what_fired__is_refused(make):
    old, start = make(), clock.now() - timedelta(seconds=conf().FIRING_RETENTION_S) - HOUR
    assert len(schedules.backfillable(old, start, start + 2 * HOUR)) == 0  # made since: no moment had fired
    Schedule.objects.update(created_at=start - DAY)
    with pytest.raises(BadSchedule, match="not on record"):
        schedules.backfill(again(old), start, start + 2 * HOUR, **WHO)
    assert not Job.objects.exists()


def test_backfill__bad_ends__are_refused(make):
    hourly, now = make(due_ago=DAY, interval_s=1), clock.now()
    for start, end, told in [
        (now, now - HOUR, "before the start"),
        (now - HOUR, now + HOUR, "in the future"),
        (now - HOUR, now, "more than 1,000"),
        (datetime(2026, 1, 1), now, "time zone"),  # noqa: DTZ001
    ]:
        with pytest.raises(BadSchedule, match=told):
            schedules.backfill(hourly, start, end, **WHO)
    assert not Job.objects.exists()
