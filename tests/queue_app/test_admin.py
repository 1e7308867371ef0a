from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from foundation import roles
from foundation.models import AuditEntry
from queue_app import queues, workers
from queue_app.admin import timeline
from queue_app.models import Job, JobEvent, Queue, Tag, Worker
from queue_app.states import State
from queue_app.uuid7 import uuid7
from tests.foundation.people import client_of

from .dead_letters import job, standing

pytestmark = pytest.mark.django_db

JOBS = "admin:queue_app_job_changelist"
QUEUES, ADD_QUEUE = "admin:queue_app_queue_changelist", "admin:queue_app_queue_add"
WORKERS = "admin:queue_app_worker_changelist"
CONFIRMED = {"_form_submitted": "True"}
SCRIPT = "<script>alert(1)</script>"


def page(one: Job) -> str:
    return reverse("admin:queue_app_job_change", args=[one.pk])


def act(name: str, one: Job) -> str:
    return reverse(f"admin:queue_app_job_{name}_this", args=[one.pk])


def selected(name: str, *jobs: Job) -> dict[str, Any]:
    return {"action": f"{name}_selected", "_selected_action": [str(one.pk) for one in jobs]}


def policy(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "max_retries": "", "backoff_base_s": "", "backoff_max_s": ""} | fields


def worker(**fields: Any) -> Worker:
    made = workers.register(pool="threads", concurrency=2, queues=["email_queue"])
    Worker.objects.filter(pk=made.pk).update(**fields)
    return made


# --- who may do what ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "sees", "acts"),
    [
        (None, False, False),
        (roles.VIEWER, True, False),
        (roles.OPERATOR, True, True),
        (roles.ADMIN, True, True),
    ],
)
def test_jobs__role__sees_and_acts_as_in_the_matrix(role, sees, acts):
    dead, other = job(), job()
    client = client_of(role)
    assert (client.get(reverse(JOBS)).status_code == 200) is sees
    shown = client.get(page(dead))
    assert (shown.status_code == 200) is sees
    for name, one in (("replay", dead), ("discard", other)):
        assert (act(name, dead) in shown.content.decode()) is acts
        assert client.post(act(name, one), CONFIRMED).status_code == (302 if acts else 403)
    assert standing(dead, other) == (["PENDING", "CANCELLED"] if acts else ["DEAD_LETTER"] * 2)
    assert AuditEntry.objects.filter(target_label="queue_app.Job").count() == (2 if acts else 0)


@pytest.mark.parametrize("role", [roles.VIEWER, roles.ADMIN])
def test_jobs__anybody__neither_edits_nor_adds_nor_deletes(role):
    dead, client = job(), client_of(role)
    assert client.post(page(dead), {"state": "COMPLETED"}).status_code == 403
    assert client.get(reverse("admin:queue_app_job_add")).status_code == 403
    gone = reverse("admin:queue_app_job_delete", args=[dead.pk])
    assert client.post(gone, {"post": "yes"}).status_code == 403
    assert standing(dead) == ["DEAD_LETTER"]


def test_selected__by_a_viewer__not_offered_and_not_run():
    dead, client = job(), client_of(roles.VIEWER)
    assert b"replay_selected" not in client.get(reverse(JOBS)).content
    client.post(reverse(JOBS), selected("replay", dead))
    assert standing(dead) == ["DEAD_LETTER"]


# --- replay and discard --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "after"), [("replay", "PENDING"), ("discard", "CANCELLED")])
def test_act__on_a_dead_job__audited_with_actor_and_request_id(name, after):
    dead, client = job(), client_of(roles.OPERATOR)
    answer = client.post(act(name, dead), CONFIRMED, headers={"X-Request-Id": "r-click"})
    assert (answer.status_code, answer.headers["Location"]) == (302, page(dead))
    assert standing(dead) == [after]
    entry = AuditEntry.objects.get(target_id=str(dead.pk))
    assert (entry.actor, entry.action, entry.source) == ("some-operator", f"job.{name}", "admin")
    assert (entry.request_id, entry.ip) == ("r-click", "127.0.0.1")
    assert (entry.before["state"], entry.after["state"]) == ("DEAD_LETTER", after)
    event = JobEvent.objects.filter(job=dead).last()
    assert (event.state, event.detail["actor"]) == (after, "some-operator")


@pytest.mark.parametrize("state", [State.PENDING, State.PROCESSING, State.COMPLETED, State.CANCELLED])
@pytest.mark.parametrize("name", ["replay", "discard"])
def test_act__on_a_job_that_is_not_dead__refused_in_words(name, state):
    one, client = job(state), client_of(roles.OPERATOR)
    assert act(name, one) not in client.get(page(one)).content.decode()
    answer = client.post(act(name, one), CONFIRMED, follow=True)
    assert f"is {state.value}, not DEAD_LETTER" in answer.content.decode()
    assert standing(one) == [state.value]
    assert not AuditEntry.objects.filter(target_id=str(one.pk)).exists()


@pytest.mark.parametrize(("name", "after"), [("replay", "PENDING"), ("discard", "CANCELLED")])
def test_act__merely_opened__asks_first_and_changes_nothing(name, after):
    dead, client = job(), client_of(roles.OPERATOR)
    asked = client.get(act(name, dead))
    assert f"{name.capitalize()} this job?" in asked.content.decode()
    assert standing(dead) == ["DEAD_LETTER"]
    answer = client.post(act(name, dead), CONFIRMED, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (200, page(dead))
    assert standing(dead) == [after]


def test_act__on_a_job_that_does_not_exist__not_found():
    client = client_of(roles.OPERATOR)
    missing = reverse("admin:queue_app_job_replay_this", args=[uuid.uuid4()])
    assert client.post(missing, CONFIRMED).status_code == 404


@pytest.mark.parametrize(
    ("name", "after", "told"),
    [("replay", "PENDING", "2 replayed."), ("discard", "CANCELLED", "2 discarded.")],
)
def test_selected__dead_and_others__only_the_dead_ones_move(name, after, told):
    dead, done, kept = [job(), job()], job(State.COMPLETED), job()
    client = client_of(roles.OPERATOR)
    answer = client.post(reverse(JOBS), selected(name, *dead, done), follow=True)
    assert told in answer.content.decode()
    assert standing(*dead, done, kept) == [after, after, "COMPLETED", "DEAD_LETTER"]
    entries = AuditEntry.objects.filter(action=f"job.{name}")
    assert {entry.target_id for entry in entries} == {str(one.pk) for one in dead}
    assert {entry.actor for entry in entries} == {"some-operator"}


# --- what the pages show -------------------------------------------------------------------------------------------------
def test_list__many_jobs__bounded_queries_and_no_payloads(django_assert_max_num_queries):
    for _ in range(30):
        job()
    client = client_of(roles.VIEWER)
    with django_assert_max_num_queries(10), CaptureQueriesContext(connection) as queries:
        answer = client.get(reverse(JOBS))
    assert answer.content.count(b"tasks_service.send_email") >= 30
    assert not any('"payload"' in query["sql"] for query in queries)


def test_detail__long_history__bounded_queries_and_workers_by_name(django_assert_max_num_queries):
    ran_on = worker(host="host-7", pid=4711)
    dead = job(owner=ran_on.pk)
    for _ in range(20):
        JobEvent.objects.create(job=dead, state="PROCESSING", worker=ran_on.pk)
    gone = uuid7()
    JobEvent.objects.create(job=dead, state="DEAD_LETTER", worker=gone)
    client = client_of(roles.VIEWER)
    with django_assert_max_num_queries(9):
        text = client.get(page(dead)).content.decode()
    assert (
        text.count("host-7:4711") == 41
    )  # 20 runs in the timeline, 20 steps of the history, and the last run's worker
    assert str(gone) in text


def test_detail__failed_twice__timeline_with_waits_workers_and_what_is_known_of_the_errors():
    ran_on = worker(host="host-7", pid=4711)
    dead, now = job(owner=ran_on.pk), timezone.now()
    for seconds, state, detail in (
        (1, "PROCESSING", {}), (2, "FAILED", {"error": "ValueError", "retry_in_s": 3.0}),
        (9, "PROCESSING", {}), (70, "DEAD_LETTER", {"error": "OSError", "reason": SCRIPT}),
    ):  # fmt: skip
        at = now + timedelta(seconds=seconds)
        JobEvent.objects.create(job=dead, state=state, worker=ran_on.pk, at=at, detail=detail)
    JobEvent.objects.filter(job=dead, state="PENDING").update(at=now)
    answer = client_of(roles.VIEWER).get(page(dead))
    first, last = answer.context["timeline"]["runs"]
    assert (first["waited"], first["ran"], first["outcome"], first["told"]) == (
        "1 s",
        "1 s",
        "failed",
        "again after 3 s",
    )
    assert (last["waited"], last["ran"], last["outcome"]) == ("4 s", "61 s", "dead letter")
    assert (first["run"].error, last["run"].error["message"]) == ({"type": "ValueError"}, "refused")
    assert "<summary>Traceback</summary>" in answer.content.decode()
    assert SCRIPT not in answer.content.decode()


def test_detail__long_history__the_latest_runs_and_it_says_so(monkeypatch):
    monkeypatch.setattr(timeline, "_STEPS", 3)
    dead = job()
    for state in ("PROCESSING", "FAILED") * 3:
        JobEvent.objects.create(job=dead, state=state)
    text = client_of(roles.VIEWER).get(page(dead)).content.decode()
    assert "these are the latest runs" in text


def test_detail__markup_in_every_text__shown_as_text():
    dead = job(
        payload={SCRIPT: SCRIPT},
        result=[SCRIPT],
        name=SCRIPT,
        last_error={"type": SCRIPT, "message": SCRIPT, "traceback": SCRIPT},
        request_id=SCRIPT,
    )
    Job.objects.filter(pk=dead.pk).update(request_id=SCRIPT)
    JobEvent.objects.create(job=dead, state="DEAD_LETTER", detail={SCRIPT: SCRIPT})
    client = client_of(roles.OPERATOR)
    for url in (page(dead), reverse(JOBS)):
        text = client.get(url).content.decode()
        assert SCRIPT not in text
        assert "&lt;script&gt;alert(1)" in text


def test_detail__no_error__no_section_for_it():
    client = client_of(roles.VIEWER)
    assert b"Last error" in client.get(page(job())).content
    assert b"Last error" not in client.get(page(job(State.COMPLETED))).content


@pytest.mark.parametrize("term", ["id", "request id"])
def test_search__whole_id_or_request_id__that_job_alone(term):
    found, other = job(request_id="r-1"), job(request_id="r-2")
    text = str(found.pk) if term == "id" else " r-1 "
    answer = client_of(roles.VIEWER).get(reverse(JOBS), {"q": text}).content.decode()
    assert page(found) in answer
    assert page(other) not in answer


@pytest.mark.parametrize("term", ["r-", "no-such", "'; DROP TABLE"])
def test_search__anything_else__empty_list(term):
    one = job(request_id="r-1")
    answer = client_of(roles.VIEWER).get(reverse(JOBS), {"q": term})
    assert answer.status_code == 200
    assert page(one) not in answer.content.decode()


def test_filters__state_and_queue__narrow_the_list():
    queues.create_queue("other")
    dead, done, elsewhere = job(), job(State.COMPLETED), job(queue="other")
    client = client_of(roles.VIEWER)

    def shown(**asked: str) -> list[bool]:
        text = client.get(reverse(JOBS), asked, follow=True).content.decode()
        return [page(one) in text for one in (dead, done, elsewhere)]

    assert shown(state__exact="DEAD_LETTER") == [True, False, True]
    assert shown(queue="other") == [False, False, True]
    assert shown(state__exact="DEAD_LETTER", queue="email_queue") == [True, False, False]
    assert shown(queue="no_such_queue") == [False] * 3
    assert shown(state__exact="NOT_A_STATE") == [True] * 3  # told, and left out


def test_filters__unknown_one__back_to_the_whole_list():
    one, client = job(), client_of(roles.VIEWER)
    for asked in ({"no_such_field": "x"}, {"created_at__gte": "yesterday"}):
        answer = client.get(reverse(JOBS), asked, follow=True)
        assert answer.redirect_chain
        assert page(one) in answer.content.decode()


# --- queues --------------------------------------------------------------------------------------------------------------
def test_queue_add__by_an_admin__created_configured_and_audited():
    client = client_of(roles.ADMIN)
    fields = policy("reports", max_retries="5", backoff_base_s="0.5", paused="on")
    answer = client.post(reverse(ADD_QUEUE), fields, headers={"X-Request-Id": "r-add"})
    assert answer.status_code == 302
    made = Queue.objects.get(name="reports")
    assert (made.max_retries, made.backoff_base_s, made.backoff_max_s, made.paused) == (5, 0.5, None, True)
    entries = AuditEntry.objects.filter(target_id="reports").order_by("pk")
    assert [entry.action for entry in entries] == ["queue.create", "queue.configure"]
    assert {(entry.actor, entry.source, entry.request_id) for entry in entries} == {
        ("some-admin", "admin", "r-add")
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "two words"},
        {"name": "-x"},
        {"name": "a/b"},
        {"name": SCRIPT},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "taken"},
        {"max_retries": "101"},
        {"max_retries": "-1"},
        {"backoff_base_s": "-0.1"},
        {"backoff_max_s": "nan"},
    ],
)
def test_queue_add__bad_value__form_says_so_and_nothing_is_made(fields):
    queues.create_queue("taken")
    before = AuditEntry.objects.count()
    answer = client_of(roles.ADMIN).post(reverse(ADD_QUEUE), policy("fine") | fields)
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors
    assert SCRIPT not in answer.content.decode()
    assert set(Queue.objects.values_list("name", flat=True)) == {"taken"}
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize(
    ("role", "changes", "adds"),
    [
        (None, False, False),
        (roles.VIEWER, False, False),
        (roles.OPERATOR, True, False),
        (roles.ADMIN, True, True),
    ],
)
def test_queue__role__changes_and_adds_as_in_the_matrix(role, changes, adds):
    queues.create_queue("q")
    url, client = reverse("admin:queue_app_queue_change", args=["q"]), client_of(role)
    assert (client.get(reverse(QUEUES)).status_code == 200) is (role is not None)
    answer = client.post(url, {"paused": "on", "max_retries": "1", "name": "renamed"})
    assert (answer.status_code == 302) is changes
    assert Queue.objects.get().name == "q"
    assert Queue.objects.get().paused is changes
    assert (client.get(reverse(ADD_QUEUE)).status_code == 200) is adds
    gone = reverse("admin:queue_app_queue_delete", args=["q"])
    assert client.post(gone, {"post": "yes"}).status_code == 403


def test_queue_change__twice_the_same__one_entry_with_before_and_after():
    queues.create_queue("q", max_retries=2)
    url, client = reverse("admin:queue_app_queue_change", args=["q"]), client_of(roles.OPERATOR)
    for _ in range(2):
        client.post(url, {"paused": "on", "max_retries": "4"})
    entry = AuditEntry.objects.get(action="queue.configure")
    assert (entry.actor, entry.ip) == ("some-operator", "127.0.0.1")
    assert (entry.before["max_retries"], entry.after["max_retries"]) == (2, 4)
    assert (entry.before["paused"], entry.after["paused"]) == (False, True)


def test_queue_list__many_queues__counts_and_defaults_in_bounded_queries(
    django_assert_max_num_queries,
):
    for number in range(20):
        queues.create_queue(f"q{number}")
    job(), job(), job(State.PENDING), job(State.FAILED), job(State.PROCESSING)
    client = client_of(roles.VIEWER)
    # Two of them are the savepoint of the list.
    with django_assert_max_num_queries(12), CaptureQueriesContext(connection) as asked:
        answer = client.get(reverse(QUEUES))
    shown = {row.name: row.depth for row in answer.context["cl"].result_list}
    mail = shown["email_queue"]
    assert (mail.waiting, mail.running, mail.dead) == (2, 1, 2)
    assert shown["q0"].dead == 0
    assert sum('FROM "queue_app_job"' in query["sql"] for query in asked) == 2  # and no subqueries by row
    text = answer.content.decode()
    assert "?queue=email_queue&amp;state=DEAD_LETTER" in text
    assert text.count("<svg class=") == 21
    assert "3 (default)" in text


@pytest.mark.parametrize("name", ["email_queue", "a_de.f-1"])  # in an address "_de" is another letter
def test_queue_page__operator__pauses_and_resumes_by_dialog_and_it_is_audited(name):
    queues.create_queue(name)
    client, url = client_of(roles.OPERATOR), reverse("admin:queue_app_queue_change", args=[quote(name)])
    pause, resume = (
        reverse(f"admin:queue_app_queue_{verb}", args=[quote(name)]) for verb in ("pause", "resume")
    )
    text = client.get(url).content.decode()
    assert (pause in text, resume in text) == (True, False)
    assert "Pause this queue?" in client.get(pause).content.decode()
    assert not Queue.objects.get(name=name).paused
    answer = client.post(pause, CONFIRMED, headers={"HX-Request": "true", "X-Request-Id": "r-pause"})
    assert answer.headers["HX-Redirect"] == url
    assert Queue.objects.get(name=name).paused
    entry = AuditEntry.objects.get(action="queue.configure")
    assert (entry.actor, entry.source, entry.request_id) == ("some-operator", "admin", "r-pause")
    assert (entry.before, entry.after) == ({"paused": False}, {"paused": True})
    text = client.get(url).content.decode()
    assert (pause in text, resume in text) == (False, True)
    client.post(resume, CONFIRMED)
    assert not Queue.objects.get(name=name).paused


def test_queue_page__viewer__looks_at_charts_and_pauses_nothing():
    queues.create_queue("q")
    client = client_of(roles.VIEWER)
    text = client.get(reverse("admin:queue_app_queue_change", args=["q"])).content.decode()
    assert text.count("<canvas") == 4
    assert "Nothing ran in the last hour" in text
    pause = reverse("admin:queue_app_queue_pause", args=["q"])
    assert pause not in text
    assert client.post(pause, CONFIRMED).status_code == 403
    assert not Queue.objects.get().paused


def test_queue_page__its_fragment__fixed_queries_and_nobody_else_sees_it(django_assert_max_num_queries):
    queues.create_queue("q", max_retries=1)
    queues.configure("q", actor=None, source="system", max_concurrency=2)
    job(), job(State.PENDING)
    url = reverse("admin:queue_app_queue_live", args=["q"])
    client = client_of(roles.VIEWER)
    with django_assert_max_num_queries(14):
        text = client.get(url).content.decode()
    assert "2 at once: 0 in use, 0 wait" in text
    assert "canvas" not in text
    assert client.get(reverse("admin:queue_app_queue_live", args=["none"])).status_code == 404
    assert client_of(None).get(url).status_code == 403


def test_queue_add__form__has_no_charts():
    assert b"<canvas" not in client_of(roles.ADMIN).get(reverse(ADD_QUEUE)).content


# --- workers -------------------------------------------------------------------------------------------------------------
def test_workers__alive_stopped_and_lost__told_apart_in_bounded_queries(django_assert_max_num_queries):
    ended = timezone.now() - timedelta(seconds=5)
    worker(host="living")
    worker(host="ended", lease_until=ended, stopped_at=ended)
    worker(host="silent", lease_until=ended)
    for _ in range(20):
        worker(host="crowd")
    client = client_of(roles.VIEWER)
    with django_assert_max_num_queries(8):
        answer = client.get(reverse(WORKERS))
    told = {
        row.host: answer.context["cl"].model_admin.status(row) for row in answer.context["cl"].result_list
    }
    assert told == {"living": "alive", "ended": "stopped", "silent": "lost", "crowd": "alive"}


def test_workers__list__slots_as_a_bar_and_the_last_beat_in_words():
    now = timezone.now()
    worker(host="busy", running=["a"], stuck=1, last_seen_at=now)
    worker(host="late", last_seen_at=now - timedelta(seconds=8))  # of a lease of 10 s
    worker(host="ended", last_seen_at=now - timedelta(hours=3), lease_until=now, stopped_at=now)
    answer = client_of(roles.VIEWER).get(reverse(WORKERS))
    admin = answer.context["cl"].model_admin
    rows = {row.host: row for row in answer.context["cl"].result_list}
    slots, (late, ended) = admin.slots(rows["busy"]), (admin.seen(rows[host]) for host in ("late", "ended"))
    assert slots.count("width:50%") == 2
    assert "1 of 2, 1 stuck" in slots
    assert re.search(r"brain-bad.*>\d+ s ago, stale<", late)
    assert "stale" not in ended
    assert "3 h ago" in ended


def test_workers__anybody__looks_only():
    one, client = worker(queues=[SCRIPT]), client_of(roles.ADMIN)
    url = reverse("admin:queue_app_worker_change", args=[one.pk])
    shown = client.get(url)
    assert shown.status_code == 200
    assert SCRIPT not in shown.content.decode()
    assert client.post(url, {"host": "x"}).status_code == 403
    assert client_of(None).get(reverse(WORKERS)).status_code == 403


def test_job__its_page__leads_to_its_queue_and_to_jobs_like_it():
    dead = job(request_id="r-1", tenant="a&b")
    listed = reverse(JOBS)
    Job.objects.filter(pk=dead.pk).update(fingerprint="f00d")
    Tag.objects.create(job=dead, name="vip")
    JobEvent.objects.create(job=dead, state="DEAD_LETTER", detail={"message": "m" * 500})
    shown = client_of(roles.VIEWER).get(page(dead)).content.decode()
    for query in (f"task={dead.name}", "tenant=a%26b", "tag=vip", "fingerprint=f00d", "q=r-1"):
        assert f'href="{listed}?{query}"' in shown
    assert f'href="{reverse("admin:queue_app_queue_change", args=[quote(dead.queue)])}"' in shown
    assert '<span class="brain-nowrap">DEAD_LETTER</span>' in shown
