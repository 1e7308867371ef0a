"""Alerts on real rows of each database: every condition, and one alert and one notice however many look."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from queue_app import (  # fmt: skip
    alert_rules,
    alerting,
    alerts_told,
    clock,
    notices,
    policies,
    queues,
    schedules,
    silences,
    tenants,
    workers,
)
from queue_app.broker import stream
from queue_app.models import Alert, AlertRule, Job, Notice, Schedule, Silence
from queue_app.states import State

from .alert_flows import QUEUE, WHO, conf, forget, hooked, late_job, later, rolled_up, rule, standing
from .dead_letters import PAYLOAD
from .receivers import Receiver

pytestmark = pytest.mark.usefixtures("every_database")


@pytest.fixture(autouse=True)
def no_rules(every_database: None) -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def hook(settings: Any) -> Iterator[Receiver]:
    with hooked(settings) as one:
        yield one


# --- each condition --------------------------------------------------------------------------------------------------------
def test_look__job_waits_too_long__fires_until_it_does_not():
    rule()
    job = late_job()
    assert alerting.look() == 1
    assert standing() == [("latency", QUEUE, "firing")]
    assert "the oldest due job has waited 2 minutes" in Alert.objects.get().words
    Job.objects.filter(id=job.id).update(state=State.COMPLETED.value)
    alerting.look()
    alert = Alert.objects.get()
    assert (alert.state, alert.open_key) == ("resolved", None)
    assert alert.resolved_at is not None


def test_look__queue_is_paused__its_jobs_may_wait():
    rule()
    late_job()
    queues.configure(QUEUE, paused=True, **WHO)
    alerting.look()
    assert standing() == []


def test_look__tenant_is_paused__its_jobs_may_wait_and_no_others():
    rule()
    job = late_job()
    Job.objects.filter(id=job.id).update(tenant="acme")
    tenants.configure(QUEUE, "acme", paused=True, **WHO)
    alerting.look()
    assert standing() == []
    late_job()
    alerting.look()
    assert standing() == [("latency", QUEUE, "firing")]


def test_look__no_living_worker_consumes__fires_until_one_does():
    rule("no_worker", threshold=30)
    late_job()
    workers.register(pool="threads", concurrency=1, queues=["another"])
    alerting.look()
    assert standing() == [("no_worker", QUEUE, "firing")]
    worker = workers.register(pool="threads", concurrency=1, queues=[QUEUE])
    alerting.look()
    assert standing() == [("no_worker", QUEUE, "resolved")]
    workers.leave(worker.id)
    alerting.look()
    assert standing()[1:] == [("no_worker", QUEUE, "firing")]


@pytest.mark.parametrize(
    ("completed", "failed", "dead", "fires"), [(10, 8, 2, True), (11, 8, 1, False), (0, 9, 0, False)]
)
def test_look__share_of_failed_runs__fires_from_the_threshold_with_enough_runs(
    completed, failed, dead, fires
):
    rule("failures", threshold=0.5, at_least=10, window_s=600)
    ended = {"completed": completed, "failed": failed, "dead": dead}
    rolled_up(clock.now() - timedelta(minutes=5), **ended)
    rolled_up(clock.now() - timedelta(minutes=20), failed=100)
    alerting.look()
    assert (standing() == [("failures", QUEUE, "firing")]) is fires


def test_look__new_dead_letters__fires_and_is_over_when_they_are_old():
    rule("new_dead", threshold=2)
    now = clock.now()  # once: two moments may be in minutes that are not the next to each other
    rolled_up(now, dead=1)
    alerting.look()
    assert standing() == []
    rolled_up(now - timedelta(minutes=1), dead=1)
    alerting.look()
    assert standing() == [("new_dead", QUEUE, "firing")]
    alerting.look(later(900))
    assert standing() == [("new_dead", QUEUE, "resolved")]


def test_look__dead_letters_stand__fires():
    rule("dead", threshold=3)
    for _ in range(3):
        Job.objects.filter(id=late_job().id).update(state=State.DEAD_LETTER.value)
    alerting.look()
    assert standing() == [("dead", QUEUE, "firing")]


def test_look__schedule_is_late__fires():
    rule("schedule", threshold=60)
    schedules.create("hourly", task=QUEUE, payload=PAYLOAD, interval_s=3600, **WHO)
    alerting.look()
    assert standing() == []
    Schedule.objects.update(next_at=clock.now() - timedelta(seconds=61))
    alerting.look()
    assert standing() == [("schedule", "", "firing")]
    assert Alert.objects.get().words.startswith("schedule 'hourly' is 1 minute ")


def test_look__recorder_is_behind__fires(empty_valkey):
    rule("recorder", threshold=60)
    alerting.look()
    assert standing() == []
    with stream.client() as (client, key):
        client.xadd(key, {"e": "[]"}, id="1700000000000-0")
        alerting.look()
        client.delete(key)
    assert standing() == [("recorder", "", "firing")]


# --- looks -----------------------------------------------------------------------------------------------------------------
def test_look__pending_and_calm_again__leaves_no_row():
    rule(for_s=60)
    job = late_job()
    alerting.look()
    assert standing() == [("latency", QUEUE, "pending")]
    Job.objects.filter(id=job.id).update(state=State.COMPLETED.value)
    assert alerting.look() == 0
    assert standing() == []


def test_look__rule_is_changed_or_off_or_deleted__what_fires_by_it_is_over():
    kept, off, gone, too = (rule(name=name) for name in ("kept", "off", "gone", "too"))
    late_job()
    assert alerting.look() == 4
    alert_rules.change(kept, threshold=3600, **WHO)
    alert_rules.change(off, enabled=False, **WHO)
    alert_rules.delete(gone, **WHO)
    alert_rules.delete(too, **WHO)
    alerting.look()
    assert [(name, state) for name, _, state in standing()] == [
        (n, "resolved") for n in ("gone", "kept", "off", "too")
    ]
    assert Alert.objects.get(name="gone").rule is None


def test_look__rule_is_about_something_else_now__the_old_alert_is_over_and_a_new_one_begins():
    row = rule("latency", "mine")
    late_job()
    alerting.look()
    alert_rules.change(row, condition="no_worker", **WHO)
    alerting.look()
    assert [*Alert.objects.order_by("id").values_list("condition", "state")] == [
        ("latency", "resolved"),
        ("no_worker", "firing"),
    ]


def test_look__older_than_the_last__changes_nothing():
    rule()
    alerting.look(later(60))
    late_job(waited_s=600)
    assert alerting.look() == 0
    assert standing() == []
    assert alerting.look(later(61)) == 1


def test_look__database_clock_was_set_back_an_hour__looks_on_and_counts_from_now():
    rule("latency", for_s=60, clear_s=60)
    job = late_job(waited_s=7200)
    alerting.look(later(3600))
    alerting.look(later(1))
    assert standing() == [("latency", QUEUE, "pending")]
    assert alerting.look(later(62)) == 1
    Job.objects.filter(id=job.id).update(state=State.COMPLETED.value)
    alerting.look(later(63))
    alerting.look(later(124))
    assert standing() == [("latency", QUEUE, "resolved")]


def test_look__twenty_queues_and_rules__as_many_statements_as_one(monkeypatch):
    def statements() -> int:
        policies.by_name(fresh=True)
        monkeypatch.setattr(clock, "_last", None)
        clock.now()  # what a process knows for a while is known while the look is counted
        with CaptureQueriesContext(connection) as seen:
            alerting.look()
        return len(seen)

    for condition, threshold in (("failures", 0.5), ("new_dead", 9), ("dead", 9), ("schedule", 60)):
        rule(condition, threshold=threshold)
    rule("no_worker", threshold=1e6)
    rule("latency", threshold=1e6)
    late_job()
    rolled_up(clock.now(), completed=1)
    statements()
    few = statements()
    for n in range(20):
        queues.create_queue(f"q{n}")
        late_job(f"q{n}")
        rule("latency", f"rule {n}", queue=f"q{n}", threshold=1e6)
    assert statements() == few <= 16


def test_look__rules_of_the_migration__say_nothing_of_a_platform_at_rest(empty_valkey):
    migration: Any = import_module("queue_app.migrations.0018_alerts")
    migration.make_rules(apps, SimpleNamespace(connection=connection))
    assert AlertRule.objects.count() == 6
    for row in AlertRule.objects.all():
        alert_rules.change(row, threshold=row.threshold, **WHO)  # each of them is one that could be made
    assert alerting.look() == 0
    late_job(waited_s=1000)
    rolled_up(clock.now(), dead=1)
    now = clock.now()
    alerting.look(now)
    alerting.look(now + timedelta(seconds=61))
    assert {name for name, _, state in standing() if state == "firing"} == {
        "latency",
        "no-worker",
        "dead-letters",
    }


# --- one alert, one notice ---------------------------------------------------------------------------------------------------
def test_look__four_at_once__one_alert_and_one_notice(hook):
    rule()
    late_job()
    errors: list[Exception] = []
    ready = threading.Barrier(4)

    def leader() -> None:
        try:
            ready.wait(60)
            for _ in range(3):
                alerting.look()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=leader) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert standing() == [("latency", QUEUE, "firing")]
    assert Notice.objects.count() == 1
    assert Alert.objects.get().notices == 1


def test_delivery__two_senders__sent_once(hook):
    rule()
    late_job()
    alerting.look()

    def send() -> None:
        try:
            notices.send_due(for_s=1)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hook.received) == 1


# --- who looks -----------------------------------------------------------------------------------------------------------------
def test_watch__another_leads__neither_looks_nor_tells_until_that_one_stops(hook):
    rule()
    late_job()
    ids = uuid4(), uuid4()
    me, other = alerting.Watch(lambda: ids[0]), alerting.Watch(lambda: ids[1])
    me.look()
    other.look()
    assert Alert.objects.get().notices == 1
    other.tell()
    assert hook.received == []
    me.stop()
    other.look()
    other.tell()
    assert len(hook.received) == 1


def test_watch__switched_off__looks_at_nothing(settings):
    conf(settings, ALERTS=False)
    rule()
    late_job()
    alerting.Watch(uuid4).look()
    assert standing() == []


def test_prune__old__resolved_alerts_and_sent_notices_and_ended_silences_go(hook):
    rule()
    late_job()
    queues.create_queue("pay")
    silences.silence(until=later(60), reason="known", queue="pay", **WHO)
    alerting.look()
    notices.send_due()
    assert alerting.prune() == 0
    Alert.objects.update(state="resolved", open_key=None, resolved_at=later(-2_700_000))
    Notice.objects.update(created_at=later(-2_700_000))
    Silence.objects.update(until=later(-2_700_000))
    assert alerting.prune() == 1
    for model in (Alert, Notice, Silence):
        assert not model.objects.exists()


def test_families__firing_and_unsent__told_with_the_age_of_the_look(hook):
    rule()
    late_job()
    alerting.look()
    found = {sample.name: sample for family in alerts_told.families() for sample in family.samples}
    assert found["brain_queue_alerts_firing"].labels == {"rule": "latency", "queue": QUEUE}
    assert found["brain_queue_notices_unsent"].value == 1
    assert 0 <= found["brain_queue_alerts_look_age_seconds"].value < 60
