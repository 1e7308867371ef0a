"""Statistics read back: by step, in sum, over the API, the command and Prometheus."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from foundation import roles
from foundation.commands import USAGE, Failed
from queue_app import levels, rollups, spans, stats
from queue_app.histograms import bucket
from queue_app.models import Rollup, RollupLevel
from queue_app.states import State
from tests.foundation.people import client_of

from .dead_letters import job

pytestmark = pytest.mark.django_db

URL = "/api/v1/queue/stats"


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


@pytest.fixture(autouse=True)
def counted() -> None:
    now = timezone.now()
    for minutes_ago, queue, completed, dead in ((0, "mail", 3, 1), (10, "mail", 2, 0), (90, "pay", 7, 0)):
        put(rollups.MINUTE_S, rollups.floor(now - timedelta(minutes=minutes_ago), 60), queue, completed, dead)
    put(rollups.ALL_TIME_S, rollups.EPOCH, "mail", 5, 1)


def put(step_s, at, queue, completed, dead):
    seconds = {str(bucket(0.5)): completed}
    Rollup.objects.create(
        step_s=step_s, at=at, queue=queue, name="send", completed=completed, dead=dead, run=seconds, run_s=1.0
    )


def asked(**texts: str) -> spans.Question:
    return spans.question(texts, timezone.now())


def test_series__last_hour__has_every_minute_and_only_those() -> None:
    found = stats.series(asked())
    assert len(found) == 61
    assert [tally.completed for _, tally in found if tally.completed] == [2, 3]


def test_series__longer_steps__add_up() -> None:
    found = stats.series(asked(since="6h", step="6h"))
    assert sum(tally.completed for _, tally in found) == 12


def test_series__a_whole_hour_of_old_minutes__is_told_once() -> None:
    hour = levels.floor(timezone.now() - timedelta(minutes=90), 3600)
    Rollup.objects.filter(queue="pay").update(step_s=3600, at=hour)
    ends = hour + timedelta(hours=1)
    for step_s in (60, 300, 900):
        RollupLevel.objects.create(step_s=step_s, upto=ends, kept_from=ends)
    RollupLevel.objects.create(step_s=3600, upto=ends, kept_from=levels.EPOCH)
    assert sum(tally.completed for _, tally in stats.series(asked(since="3h", step="1m"))) == 12


def test_summary__filters__take_their_queue_alone() -> None:
    assert {key: tally.completed for key, tally in stats.summary(asked(since="2h")).items()} == {
        ("mail", "send"): 5,
        ("pay", "send"): 7,
    }
    assert list(stats.summary(asked(since="2h", queue="pay"))) == [("pay", "send")]
    assert stats.summary(asked(tenant="nobody")) == {}


def test_api__filters__answers_in_seconds_and_shares(viewer: Client) -> None:
    found = viewer.get(URL, {"queue": "mail", "since": "1h", "step": "5m"}).json()
    (row,) = found["summary"]
    assert (row["completed"], row["dead"], row["failure_share"]) == (5, 1, pytest.approx(1 / 6))
    assert row["run_s"]["p95"] == pytest.approx(0.5, rel=0.05)
    assert row["wait_s"]["p50"] is None
    assert (found["step_s"], len(found["series"])) == (300, 13)


def test_api__bad_question__is_a_problem_that_names_the_field(viewer: Client) -> None:
    answer = viewer.get(URL, {"since": "yesterday"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert "since" in answer.content.decode()


def test_api__stranger__is_refused() -> None:
    assert Client().get(URL).status_code in (401, 403)


def test_command__as_json__lists_queues_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("queue", "stats", "--since", "2h", "--json")
    told = capsys.readouterr().out
    assert '"mail"' in told
    assert json.loads(told)


def test_command__bad_span__exits_2_and_says_how() -> None:
    with pytest.raises(Failed, match="30m, 1h or 30d") as ended:
        call_command("queue", "stats", "--since", "soon")
    assert ended.value.returncode == USAGE


def test_families__counters_and_histograms__are_of_all_time() -> None:
    found = {sample.name: sample for family in stats._rollup_families() for sample in family.samples}
    assert found["brain_queue_run_seconds_count"].value == 5
    assert found["brain_queue_run_seconds_sum"].value == 1.0
    kinds = {
        sample.labels["kind"]: sample.value
        for family in stats._rollup_families()
        for sample in family.samples
        if sample.name == "brain_queue_steps_total"
    }
    assert (kinds["completed"], kinds["dead"]) == (5, 1)


def test_depths__jobs_that_are_over__come_from_the_statistics_and_their_rows_are_not_counted() -> None:
    for state in (State.COMPLETED, State.DEAD_LETTER, State.PENDING):
        job(state)
    with CaptureQueriesContext(connection) as asked_of_jobs:
        found = {depth.queue: depth.jobs for depth in stats.depths()}
    assert (found["mail"]["COMPLETED"], found["mail"]["PENDING"]) == (5, 0)
    mail = found["email_queue"]
    assert (mail["COMPLETED"], mail["DEAD_LETTER"], mail["PENDING"]) == (0, 1, 1)
    assert len(asked_of_jobs) == 4
