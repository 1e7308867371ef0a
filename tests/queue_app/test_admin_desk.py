from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from queue_app import bulk, queues
from queue_app.admin import desk
from queue_app.api import dead_letters
from queue_app.models import BulkAction, Job
from tests.foundation.people import client_of

from .dead_letters import job

pytestmark = pytest.mark.django_db
DESK, START = "admin:queue_app_desk_changelist", "admin:queue_app_bulkaction_start"
JOBS = "admin:queue_app_job_changelist"
KEY = "0123456789abcdef"


def made(*names: str) -> None:
    for name in names:
        queues.create_queue(name)


def test_desk__failures_and_their_jobs__as_many_queries_for_one_as_for_ten():
    client = client_of(roles.VIEWER)
    counts = []
    for number in range(10):
        job(fingerprint=f"{KEY[:-1]}{number}")
        if number in (1, 9):
            with CaptureQueriesContext(connection) as queries:
                page = client.get(reverse(DESK))
            counts.append(len(queries))
    assert counts[0] == counts[1]
    assert b"OSError" in page.content
    assert b"Replay\xe2\x80\xa6" not in page.content  # a viewer acts on nothing
    jobs = client.get(reverse(JOBS), {"fingerprint": f"{KEY[:-1]}3"})
    assert jobs.context["cl"].result_count == 1


def test_desk__more_failures_than_fit__says_so(monkeypatch):
    monkeypatch.setattr(desk, "_MOST", 1)
    monkeypatch.setattr(dead_letters, "MOST", 1)
    client = client_of(roles.VIEWER)
    for number in range(2):
        job(fingerprint=f"{KEY[:-1]}{number}")
    assert "The 1 most frequent ones" in client.get(reverse(DESK)).content.decode()
    told = client.get("/api/v1/queue/dead-letters").json()
    assert (len(told["results"]), told["more"]) == (1, True)
    Job.objects.filter(fingerprint=f"{KEY[:-1]}0").delete()
    assert "most frequent" not in client.get(reverse(DESK)).content.decode()
    assert client.get("/api/v1/queue/dead-letters").json()["more"] is False


def test_desk__filtered__only_these_failures_and_bad_filters_are_told():
    client = client_of(roles.OPERATOR)
    made("one", "two")
    job(fingerprint=KEY, queue="one")
    job(fingerprint=f"{KEY[:-1]}0", queue="two")
    page = client.get(reverse(DESK), {"queue": "two"})
    assert [group.fingerprint for group in page.context["groups"]] == [f"{KEY[:-1]}0"]
    assert b"action=replay&amp;queue=two" in page.content
    Job.objects.filter(queue="one").update(finished_at=timezone.now() - timedelta(hours=1))
    page = client.get(reverse(DESK), {"died_since": "30m"})
    assert [group.fingerprint for group in page.context["groups"]] == [f"{KEY[:-1]}0"]
    assert b"action=replay&amp;died_since=30m" in page.content
    start = client.get(reverse("admin:queue_app_bulkaction_start"), {"action": "replay", "died_since": "30m"})
    assert start.context["count"] == 1
    assert client.get(reverse(JOBS), {"died_since": "30m"}).context["cl"].result_count == 1
    told = client.get(reverse(DESK), {"since": "yesterday"}, follow=True)
    assert "is not a span" in told.content.decode()


def test_start__asked_then_posted__is_on_the_desk_and_can_be_stopped():
    client = client_of(roles.OPERATOR)
    job(fingerprint=KEY)
    address = f"{reverse(START)}?action=replay&fingerprint={KEY}"
    assert b"Replay 1 dead letters?" in client.get(address).content
    assert not BulkAction.objects.exists()
    refused = client.post(address, {"rate": "-1"})
    assert (refused.status_code, BulkAction.objects.exists()) == (200, False)
    client.post(address, {"rate": "5"})
    row = BulkAction.objects.get()
    assert (row.action, row.rate, row.wanted, row.actor) == ("replay", 5, 1, "some-operator")
    assert b"0 of 1" in client.get(reverse("admin:queue_app_desk_failures")).content
    progress = client.get(reverse("admin:queue_app_bulkaction_progress", args=[row.pk]))
    assert b"0 of 1 looked at" in progress.content
    assert "HX-Refresh" not in progress.headers
    stop = reverse("admin:queue_app_bulkaction_stop_this", args=[row.pk])
    client.get(stop)
    assert BulkAction.objects.get().finished_at is None
    client.post(stop, {"_form_submitted": "True"})
    assert BulkAction.objects.get().is_stopped
    # Whose page is open sees all of it as it ended, and asks no more.
    over = client.get(reverse("admin:queue_app_bulkaction_progress", args=[row.pk]))
    assert over.headers["HX-Refresh"] == "true"
    assert client.get(reverse("admin:queue_app_bulkaction_changelist")).status_code == 200


@pytest.mark.parametrize("query", ["", "action=melt", "action=cancel&since=never"])
def test_start__no_such_action_or_bad_selection__told_and_nothing_started(query):
    client = client_of(roles.OPERATOR)
    answer = client.post(f"{reverse(START)}?{query}", {}, follow=True)
    assert [str(message.level_tag) for message in answer.context["messages"]] == ["error"]
    assert not BulkAction.objects.exists()


@pytest.mark.parametrize("role", [None, roles.VIEWER])
def test_start__no_operator__refused(role):
    client = client_of(role)
    job(fingerprint=KEY)
    assert client.post(f"{reverse(START)}?action=replay", {}).status_code in (302, 403)
    assert not BulkAction.objects.exists()


# --- from the jobs' list ----------------------------------------------------------------------------------------------
def act(client, query: str, action: str, **more):
    chosen = str(Job.objects.first().id)
    return client.post(
        f"{reverse(JOBS)}?{query}",
        {"action": action, "_selected_action": [chosen], "select_across": "1", **more},
    )


def test_list__all_matches_are_chosen__asks_with_the_lists_own_filters_and_does_it():
    client = client_of(roles.OPERATOR)
    made("one", "two")
    for number in range(4):
        job(queue="one" if number else "two")
    answer = act(client, "queue=one&state=DEAD_LETTER", "discard_selected")
    assert answer.status_code == 302
    assert "Discard 3 dead letters?" in client.get(answer.url).content.decode()
    assert not BulkAction.objects.exists()
    client.post(answer.url, {})
    bulk.work_off(look_s=1)
    assert dict(Job.objects.values_list("queue", "state").distinct()) == {
        "one": "CANCELLED",
        "two": "DEAD_LETTER",
    }
    assert BulkAction.objects.get().done == 3


def test_list__all_matches_of_what_is_no_filter__refused():
    client = client_of(roles.OPERATOR)
    job()
    answer = act(client, "priority__gt=0", "discard_selected")
    told = [str(message) for message in client.get(answer.url).context["messages"]]
    assert told == ["All matches of priority__gt cannot be acted on: use the filters."]
    assert not BulkAction.objects.exists()
    assert Job.objects.get().state == "DEAD_LETTER"


def test_list__bad_filter__told_and_left_out():
    client = client_of(roles.VIEWER)
    job()
    answer = client.get(reverse(JOBS), {"arguments": "nothing", "queue": "email_queue"}, follow=True)
    assert answer.redirect_chain[-1][0].endswith("?queue=email_queue")
    assert "cannot be read" in answer.content.decode()


def test_list__filters_of_every_kind__as_many_queries_for_one_job_as_for_ten():
    client = client_of(roles.VIEWER)
    filters = {
        "queue": "email_queue", "task": "send", "state": "DEAD_LETTER", "tenant": "", "tag": "red", "since": "1d",
        "arguments": "a=1", "worker": "nowhere",
    }  # fmt: skip
    counts = []
    for number in range(10):
        job()
        if number in (0, 9):
            for name, value in filters.items():
                with CaptureQueriesContext(connection) as queries:
                    assert client.get(reverse(JOBS), {name: value}).status_code == 200
                counts.append(len(queries))
    assert counts[: len(filters)] == counts[len(filters) :]


def test_start__field_is_misspelt__nothing_is_asked_for_all_jobs():
    job()
    answer = client_of(roles.OPERATOR).get(reverse(START), {"action": "replay", "queu": "other"}, follow=True)
    assert "queu is not one of" in answer.content.decode()
    assert "Replay 1 dead letters?" not in answer.content.decode()
