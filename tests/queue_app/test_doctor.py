"""What the doctor finds, each on a ledger that has just that."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from foundation.findings import Finding, Level
from queue_app import bulk, clock, doctor, firing, notice_channels, queues, schedules, workers
from queue_app.models import BulkAction, Job, Lease, Notice, Schedule, Worker
from queue_app.selection import Selection
from queue_app.states import State
from queue_app.uuid7 import uuid7

from .alert_flows import conf
from .dead_letters import job

pytestmark = pytest.mark.django_db
WHO = {"actor": "ada", "source": "cli"}


def found(about: str) -> list[Finding]:
    return [finding for finding in doctor.examine() if finding.about.startswith(about)]


def waits() -> Job:
    one = job(State.PENDING)
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=600))
    return one


def serve(**changes: object) -> Worker:
    worker = workers.register(pool="threads", concurrency=4, queues=["email_queue"])
    Worker.objects.filter(id=worker.id).update(**changes)
    return worker


def test_examine__nothing_wrong__every_look_says_so() -> None:
    serve()
    job(State.COMPLETED)
    assert {finding.level for finding in doctor.examine()} == {Level.OK}
    assert [finding.told for finding in found("workers")] == ["1 alive, 4 slots"]


def test_queue__old_backlog__error_without_workers_warning_with_them() -> None:
    waits()
    (nobody,) = found("queue email_queue")
    assert (nobody.level, "no worker consumes it" in nobody.told) == (Level.ERROR, True)
    serve()
    (slow,) = found("queue email_queue")
    assert (slow.level, "autoscale" in slow.hint) == (Level.WARNING, True)
    queues.pause("email_queue", is_paused=True, **WHO)
    (paused,) = found("queue email_queue")
    assert (paused.level, paused.hint) == (Level.WARNING, "manage.py queue resume email_queue")


def test_schedules__late_refused_or_stopped__named() -> None:
    task = "email_queue"
    for name in ("fine", "late", "refused", "paused", "stopped"):
        schedules.create(name, task=task, interval_s=3600, **WHO)
    due = clock.now() - timedelta(seconds=5)
    Schedule.objects.filter(name__in=["refused", "paused"]).update(next_at=due, task="was.removed")
    firing.fire_due()
    schedules.pause(Schedule.objects.get(name="paused"), **WHO)
    Schedule.objects.filter(name="stopped").update(next_at=None)
    Schedule.objects.filter(name="late").update(next_at=clock.now() - timedelta(hours=1))
    all_of_them, refused, stopped = found("schedule")
    assert (all_of_them.level, "'late' should have fired" in all_of_them.told) == (Level.ERROR, True)
    assert (refused.about, "was.removed" in refused.told) == ("schedule refused", True)
    assert (stopped.about, stopped.level) == ("schedule stopped", Level.WARNING)
    assert stopped.hint == "manage.py queue schedules show stopped"


def test_alerts__nobody_looks_or_a_channel_takes_nothing__named(settings) -> None:
    (alone,) = found("alert")
    assert (alone.level, alone.told) == (Level.OK, "what fires is told to nobody")
    assert "BRAIN_ALERT_MAIL" in alone.hint
    conf(settings, ALERT_MAIL=("ops@example.com",), ALERT_WEBHOOKS=("https://example.com/secret",))
    now = clock.now()
    for number, channel in enumerate(notice_channels.channels()):
        errors = {"last_error": "HTTP 500"} if channel.url else {"sent_at": now}
        Notice.objects.create(
            id=uuid7(), channel=channel.name, body={}, created_at=now - timedelta(hours=1 + number), **errors
        )
    look, channel = found("alert")
    assert (look.level, "secret" in look.told + channel.told) == (Level.OK, False)
    assert (channel.level, channel.told) == (Level.WARNING, "does not take its notices: HTTP 500")
    Notice.objects.all().delete()
    Lease.objects.create(name="alerts", until=now, position=(now - timedelta(hours=1)).isoformat())
    (nobody,) = found("alert")
    assert (nobody.level, "nobody has looked at the rules since" in nobody.told) == (Level.WARNING, True)
    conf(settings, ALERTS=False)
    assert [one.told for one in found("alert")] == ["are switched off"]


def test_workers__stuck_or_quiet__named() -> None:
    serve(stuck=2)
    serve(asked="quiet")
    assert sorted(finding.told for finding in found("worker ")) == [
        "2 threads do not come back",
        "was asked to be quiet",
    ]


def test_tasks__open_job_of_a_task_that_is_gone__error() -> None:
    gone = job(State.PENDING)
    Job.objects.filter(id=gone.id).update(name="old.module.task")
    (finding,) = found("task")
    assert (finding.level, finding.about) == (Level.ERROR, "task old.module.task")


def test_clock__host_is_off__warning(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = clock.read() - timedelta(hours=1)
    monkeypatch.setattr(clock, "read", lambda: moment)
    (finding,) = found("clock")
    assert (finding.level, "NTP" in finding.hint) == (Level.WARNING, True)


def test_bulk_action__nobody_works_it_off__warning() -> None:
    job()
    bulk.start("replay", Selection(), rate=1, **WHO)
    assert found("bulk") == []
    BulkAction.objects.update(counted_to=clock.now() - timedelta(hours=1))
    assert [finding.level for finding in found("bulk")] == [Level.WARNING]


def test_command__exit_code__says_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    def code() -> int:
        try:
            call_command("queue", "doctor", "--json")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert code() == 0
    serve(asked="quiet")
    assert code() == 3
    Worker.objects.all().delete()
    waits()
    assert code() == 1
    assert "no worker consumes it" in capsys.readouterr().out
