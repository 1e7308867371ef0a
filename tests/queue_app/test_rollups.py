"""Statistics counted from the history: every step once, on each database, and minutes that become hours and days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from queue_app import (
    deadletter,
    enqueue,
    enqueue_many,
    folding,
    interventions,
    ledger,
    policies,
    publication,
    reconciler,
    rollup_rows,
    rollups,
    wakeup,
    workers,
)
from queue_app.conf import conf
from queue_app.histograms import Tally, bucket, total
from queue_app.levels import LEVELS, LEVELS_OF_TENANT
from queue_app.models import Job, JobEvent, Lease, Queue, Rollup, RollupLevel, Worker
from queue_app.statements import Claimed, End, counting
from queue_app.states import State

from .conftest import until

pytestmark = pytest.mark.usefixtures("every_database")

ERROR = '{"type": "ValueError", "message": "no", "traceback": ""}'
OPERATOR = {"actor": "kim", "source": "cli"}


@pytest.fixture(autouse=True)
def counted_anew(monkeypatch: pytest.MonkeyPatch, every_database: None) -> Iterator[None]:
    """Wake-ups go nowhere; counts begin at the newest step, and nothing is left of them."""
    monkeypatch.setattr(wakeup, "publish", lambda wakeups: True)
    Lease.objects.update_or_create(
        name=rollups.NAME, defaults={"position": str(counting.mark().event or ""), "until": timezone.now()}
    )
    yield
    Rollup.objects.all().delete()
    RollupLevel.objects.all().delete()


@pytest.fixture
def worker() -> Worker:
    return workers.register(pool="threads", concurrency=1, queues=["email_queue"])


def claim(worker: Worker, *jobs: Job) -> list[Claimed]:
    return ledger.exchange(worker.id, [job.id for job in jobs], [])[0]


def end(worker: Worker, job: Job, state: State, fence: int = 1, **more: Any) -> set[UUID]:
    error = ERROR if state in (State.FAILED, State.DEAD_LETTER) else None
    return ledger.exchange(worker.id, [], [End(job.id, fence, state, 1, error=error, **more)])[1]


def count() -> None:
    upto = counting.mark().event
    while rollups.position() < upto:
        after = rollups.position()
        rollups.count_part(after, counting.part(after, upto, rollups._STEPS))


def tally(**wanted: Any) -> Tally:
    """Of all tenants, where none is wanted."""
    rows = Rollup.objects.filter(**{"step_s": rollups.MINUTE_S, "tenant": "", **wanted})
    return total(tally for _, tally in rollup_rows.tallied(rows))


def counts(found: Tally) -> tuple[int, ...]:
    return found.started, found.completed, found.failed, found.dead, found.cancelled


def set_back(job: Job, state: State, seconds: float) -> None:
    """As if the job's last step to this state had been so long ago."""
    event = JobEvent.objects.filter(job=job, state=state).latest("id")
    JobEvent.objects.filter(id=event.id).update(at=event.at - timedelta(seconds=seconds))


def test_count__each_kind_of_end__is_counted_by_queue_task_and_tenant(worker: Worker) -> None:
    done, failing, dead, given_up = (enqueue("email_queue", {}, tenant=name) for name in ("a", "b", "c", "d"))
    claim(worker, done, failing, dead)
    end(worker, done, State.COMPLETED)
    end(worker, failing, State.FAILED, delay_s=60)
    end(worker, dead, State.DEAD_LETTER)
    interventions.cancel(given_up, actor="kim")
    count()
    assert counts(tally()) == (3, 1, 1, 1, 1)
    assert counts(tally(tenant="b", queue="email_queue", name=failing.name)) == (1, 0, 1, 0, 0)
    found = tally(tenant="d")
    assert (counts(found), found.run, found.wait) == ((0, 0, 0, 0, 1), {}, {})
    assert counts(tally(step_s=rollups.ALL_TIME_S, tenant="")) == (3, 1, 1, 1, 1)


def test_count__again_and_by_two_leaders__counts_each_step_once(worker: Worker) -> None:
    jobs = enqueue_many("email_queue", [{}] * 3)
    claim(worker, *jobs)
    began, upto = rollups.position(), counting.mark().event
    rollups.count_part(began, upto)
    assert rollups.count_part(began, upto) == upto  # the other one, who has not heard of it
    count()
    assert counts(tally()) == (3, 0, 0, 0, 0)
    end(worker, jobs[0], State.COMPLETED)
    count()
    assert counts(tally()) == (3, 1, 0, 0, 0)


def test_count__leader_dies_before_its_commit__the_next_one_counts_all(worker: Worker) -> None:
    claim(worker, *enqueue_many("email_queue", [{}] * 3))
    began, upto = rollups.position(), counting.mark().event
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        rollups.count_part(began, upto)
        raise ZeroDivisionError
    assert (rollups.position(), Rollup.objects.count()) == (began, 0)
    count()
    assert counts(tally()) == (3, 0, 0, 0, 0)


def test_count__small_parts__add_up(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "_STEPS", 2)
    claim(worker, *enqueue_many("email_queue", [{}] * 5))
    count()
    assert counts(tally()) == (5, 0, 0, 0, 0)


def test_count__wait__is_from_when_the_job_was_due(worker: Worker) -> None:
    late, delayed = enqueue("email_queue", {}), enqueue("email_queue", {}, delay=3600)
    now = timezone.now()
    Job.objects.filter(id=late.id).update(created_at=now - timedelta(seconds=10_000))
    Job.objects.filter(id=delayed.id).update(
        created_at=now - timedelta(seconds=360_000), run_after=now - timedelta(seconds=1000)
    )
    claim(worker, late, delayed)
    count()
    found = tally()
    assert found.wait_s == pytest.approx(11_000, abs=60)
    assert sorted(found.wait) == [pytest.approx(bucket(1000), abs=2), pytest.approx(bucket(10_000), abs=1)]


def test_count__run__is_from_the_claim_before_its_end(worker: Worker) -> None:
    job = enqueue("email_queue", {})
    claim(worker, job)
    Job.objects.update(started_at=timezone.now() - timedelta(seconds=2000))
    end(worker, job, State.COMPLETED)
    count()
    found = tally()
    assert (found.run_s, sum(found.run.values())) == (pytest.approx(2000, abs=30), 1)


def test_count__retry__is_measured_from_its_own_start_and_from_when_it_was_due(worker: Worker) -> None:
    job = enqueue("email_queue", {})
    set_back(job, State.PENDING, 60_000)
    claim(worker, job)
    set_back(job, State.PROCESSING, 50_000)
    end(worker, job, State.FAILED, delay_s=0)
    set_back(job, State.FAILED, 4000)
    Job.objects.update(run_after=timezone.now() - timedelta(seconds=3000))
    claim(worker, job)
    set_back(job, State.PROCESSING, 500)
    end(worker, job, State.COMPLETED, fence=2)
    count()
    found = tally()
    assert counts(found) == (2, 1, 1, 0, 0)
    assert found.run_s == pytest.approx(46_000 + 500, abs=60)
    assert found.wait_s == pytest.approx(10_000 + 2500, abs=60)


def test_count__replay__waits_from_the_replay(worker: Worker) -> None:
    job = enqueue("email_queue", {})
    Job.objects.update(created_at=timezone.now() - timedelta(days=3))
    claim(worker, job)
    end(worker, job, State.DEAD_LETTER)
    count()
    Rollup.objects.all().delete()
    deadletter.replay(Job.objects.get(), **OPERATOR)
    claim(worker, job)
    count()
    assert tally().wait_s < 600


def test_count__what_people_note_beside_the_steps__is_no_step(worker: Worker) -> None:
    job, waits = enqueue_many("email_queue", [{}] * 2)
    claim(worker, job)
    interventions.cancel(Job.objects.get(id=job.id), actor="kim")
    Job.objects.filter(id=waits.id).update(published_at=timezone.now() - timedelta(hours=1), state="FAILED")
    publication.age(60)
    count()
    assert counts(tally()) == (1, 0, 0, 0, 0)


def test_counter__step_on_its_way__is_waited_for(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "_EVERY_S", 0.0)
    settled = [False, True]
    monkeypatch.setattr(counting, "is_settled", lambda after, upto, horizon: settled.pop(0))
    claim(worker, enqueue("email_queue", {}))
    counter = rollups.Counter()
    looks = [counter.look(), counter.look()]
    assert (looks, Rollup.objects.count()) == ([False, False], 0)
    assert counter.look()
    assert counts(tally()) == (1, 0, 0, 0, 0)


def test_counter__all_is_counted__sums_up_what_is_over(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_EVERY_S", 0.0)
    for module in (rollups, folding):  # on a busy machine one look does not get through
        monkeypatch.setattr(module, "_LOOK_S", 60.0)
    job = enqueue("email_queue", {}, tenant="acme")
    claim(worker, job)
    set_back(job, State.PROCESSING, 3 * 86_400)
    counter = rollups.Counter()
    assert not counter.look()
    until(counter.look, "all is counted")  # PostgreSQL's own transactions have to end as well
    found = Rollup.objects.filter(started=1).exclude(step_s=rollups.ALL_TIME_S)
    assert {*found.filter(tenant="").values_list("step_s", flat=True)} == {*LEVELS}
    assert {*found.filter(tenant="acme").values_list("step_s", flat=True)} == {*LEVELS_OF_TENANT}


def test_counter__switched_off__counts_nothing(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    monkeypatch.setattr("queue_app.rollups.conf", lambda: replace(conf(), ROLLUPS=False))
    claim(worker, enqueue("email_queue", {}))
    assert rollups.Counter().look()
    assert rollups.position() < counting.mark().event


def test_is_settled__older_transaction_is_open__not_before_it_has_ended() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("one writer at a time")
    job = enqueue("email_queue", {})
    began = rollups.position()
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO queue_app_jobevent (job_id, state, at, detail)"
                " SELECT job_id, state, at, detail FROM queue_app_jobevent WHERE job_id = %s",
                [job.id if connection.features.has_native_uuid_field else job.id.hex],
            )
        enqueue("email_queue", {})
        mark = counting.mark()
        assert not counting.is_settled(began, *mark)
        other.commit()
        until(
            lambda: counting.is_settled(began, *mark), "it is settled"
        )  # PostgreSQL has transactions of its own
    finally:
        other.close()
        if connection.vendor == "postgresql":
            other.close_pool()


def test_prune__with_a_floor__keeps_what_may_not_be_counted_yet(worker: Worker) -> None:
    job = enqueue("email_queue", {})
    Queue.objects.filter(name="email_queue").update(retention_s=0)
    claim(worker, job)
    end(worker, job, State.COMPLETED)
    Job.objects.update(finished_at=timezone.now() - timedelta(seconds=10))
    policies.by_name(fresh=True)
    reconciler.prune(at_least_s=rollups.SETTLE_S)
    assert Job.objects.exists()
    reconciler.prune()
    assert not Job.objects.exists()


def test_counter__counted_long_ago__lets_nothing_be_deleted(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_EVERY_S", 0.0)
    counter = rollups.Counter()
    assert not counter.look()
    until(counter.look, "all is counted")
    assert counter._level_at is not None
    counter._level_at -= 1000  # another led meanwhile, and may have died before it counted
    monkeypatch.setattr(rollups, "_EVERY_S", 60.0)
    assert not counter.look()


def test_count__names_that_differ_by_case__are_two(worker: Worker) -> None:
    claim(worker, *(enqueue("email_queue", {}, tenant=name) for name in ("acme", "ACME")))
    count()
    count_again = enqueue("email_queue", {}, tenant="Acme")
    claim(worker, count_again)
    count()
    found = {tenant: tally(tenant=tenant).started for tenant in ("", "acme", "ACME", "Acme")}
    assert found == {"": 3, "acme": 1, "ACME": 1, "Acme": 1}
    assert counts(tally(step_s=rollups.ALL_TIME_S)) == (3, 0, 0, 0, 0)
