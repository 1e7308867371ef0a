"""The database's clock, carried on by this host's steady one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from queue_app import clock, enqueue, ledger, workers
from queue_app.clock import REFRESH_S, Clock, Reading
from queue_app.models import Job

READING = Reading(datetime(2026, 1, 1, tzinfo=UTC), steady_s=1000.0, wall_s=9000.0)


def test_carried_to__clocks_agree__the_databases_time() -> None:
    assert READING.carried_to(1030.5, 9030.5) == READING.moment + timedelta(seconds=30.5)


@pytest.mark.parametrize(
    ("steady_s", "wall_s"),
    [
        pytest.param(1000 + REFRESH_S, 9000 + REFRESH_S, id="it is old"),
        pytest.param(1010, 9010 + 3600, id="the host's clock was set"),
        pytest.param(1010, 9010 - 3600, id="and back"),
        pytest.param(1001, 9001 + 20, id="the host has slept"),
    ],
)
def test_carried_to__says_nothing_any_more__none(steady_s: float, wall_s: float) -> None:
    assert READING.carried_to(steady_s, wall_s) is None


@pytest.mark.usefixtures("every_database")
def test_now__asked_twice__reads_once_and_does_not_fall_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_last", None)
    first = clock.now()
    truth = clock.read()
    monkeypatch.setattr(clock, "read", lambda: pytest.fail("asked again"))
    later = clock.now()
    assert first <= truth <= later < truth + timedelta(seconds=60)


@pytest.mark.django_db
def test_statements__stamped_before_in_microseconds__sqlites_milliseconds_are_not_behind() -> None:
    worker = workers.register(pool="threads", concurrency=1, queues=[])
    for _ in range(100):
        job = enqueue("email_queue", {})
        assert len(ledger.exchange(worker.id, [job.id], [])[0]) == 1
        found = Job.objects.get(pk=job.pk)
        assert found.created_at <= found.started_at
        stamped = clock.now()
        Job.objects.filter(pk=job.pk).update(published_at=Clock())
        assert stamped <= Job.objects.get(pk=job.pk).published_at
