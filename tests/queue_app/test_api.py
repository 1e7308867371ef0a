from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from foundation import roles
from foundation.models import AuditEntry
from orm_app.models import User
from queue_app import queues
from queue_app.models import JobEvent
from queue_app.states import State
from tests.foundation.people import client_of

from .dead_letters import ERROR, PAYLOAD, job, standing

pytestmark = pytest.mark.django_db

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "gateway.yaml")
JOBS, QUEUES = "/api/v1/queue/jobs", "/api/v1/queue/queues"
BULK = "/api/v1/queue/bulk-actions"


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


@pytest.fixture
def admin() -> Client:
    return client_of(roles.ADMIN)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR)


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The body of a refusal, after a look at what every problem has."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


def ids(answer: Any) -> list[str]:
    return [row["id"] for row in answer.json()["results"]]


# --- who may do what ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "reads", "acts"),
    [
        (None, False, False),
        (roles.VIEWER, True, False),
        (roles.OPERATOR, True, True),
        (roles.ADMIN, True, True),
    ],
)
def test_api__role__reads_and_replays_as_in_the_matrix(role, reads, acts):
    dead, client = job(), client_of(role)
    for url in (JOBS, f"{JOBS}/{dead.pk}", QUEUES):
        answer = client.get(url)
        assert answer.status_code == 200 if reads else problem(answer, 403)
    answer = client.post(f"{JOBS}/{dead.pk}/replay")
    assert answer.status_code == 200 if acts else problem(answer, 403)
    assert standing(dead) == ["PENDING" if acts else "DEAD_LETTER"]


@pytest.mark.parametrize("url", [JOBS, f"{JOBS}/00000000-0000-7000-8000-000000000001", QUEUES])
def test_api__nobody__unauthorized(url):
    answer = Client().get(url)
    problem(answer, 401)
    assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_replay__nobody_or_a_session_without_csrf_token__refused():
    dead = job()
    problem(Client().post(f"{JOBS}/{dead.pk}/replay"), 401)
    browser = client_of(roles.OPERATOR)
    browser.handler.enforce_csrf_checks = True
    assert "CSRF" in problem(browser.post(f"{JOBS}/{dead.pk}/replay"), 403)["detail"]
    assert standing(dead) == ["DEAD_LETTER"]


# --- one job -------------------------------------------------------------------------------------------------------------
def test_job__dead_one__everything_about_it(viewer, django_assert_max_num_queries):
    dead = job()
    for _ in range(20):
        JobEvent.objects.create(job=dead, state="PROCESSING")
    with django_assert_max_num_queries(6):
        body = viewer.get(f"{JOBS}/{dead.pk}").json()
    assert (body["task"], body["queue"], body["state"]) == (
        "tasks_service.send_email",
        "email_queue",
        "DEAD_LETTER",
    )
    assert (body["payload"], body["last_error"], body["request_id"]) == (PAYLOAD, ERROR, "r-made")
    assert (body["attempt"], body["max_attempts"]) == (4, 4)
    assert len(body["events"]) == 21
    assert body["events"][0]["state"] == "PENDING"


@pytest.mark.parametrize("key", ["00000000-0000-7000-8000-000000000001", "1"])
def test_job__unknown_id__not_found(viewer, key):
    problem(viewer.get(f"{JOBS}/{key}"), 404)


# --- replay --------------------------------------------------------------------------------------------------------------
def test_replay__dead_job__waits_again_audited_with_actor_and_request_id(operator):
    dead = job(run_after=datetime(2020, 1, 1, tzinfo=UTC))  # of its last retry
    answer = operator.post(f"{JOBS}/{dead.pk}/replay", headers={"X-Request-Id": "r-call"})
    body = answer.json()
    assert body["run_after"] > "2026"
    assert (answer.status_code, body["state"], body["attempt"]) == (200, "PENDING", 0)
    assert body["events"][-1]["detail"]["actor"] == "some-operator"
    entry = AuditEntry.objects.get(target_id=str(dead.pk))
    assert (entry.actor, entry.action, entry.source) == ("some-operator", "job.replay", "api")
    assert (entry.request_id, entry.ip) == ("r-call", "127.0.0.1")
    assert (entry.before["state"], entry.after["state"]) == ("DEAD_LETTER", "PENDING")


def test_cancel__misspelt_field__is_not_taken_for_none(operator):
    waits = job(State.PENDING)
    answer = operator.post(f"{JOBS}/{waits.pk}/cancel", {"forced": True}, "application/json")
    assert problem(answer, 400)["errors"][0]["pointer"] == "/forced"
    assert standing(waits) == ["PENDING"]


@pytest.mark.parametrize("state", [State.PENDING, State.PROCESSING, State.COMPLETED, State.CANCELLED])
def test_replay__job_that_is_not_dead__conflict(operator, state):
    one = job(state)
    body = problem(operator.post(f"{JOBS}/{one.pk}/replay"), 409)
    assert body["title"] == "Conflict"
    assert f"is {state.value}, not DEAD_LETTER" in body["detail"]
    assert standing(one) == [state.value]
    assert not AuditEntry.objects.filter(action="job.replay").exists()


def test_replay__twice__second_one_conflicts(operator):
    dead = job()
    assert operator.post(f"{JOBS}/{dead.pk}/replay").status_code == 200
    problem(operator.post(f"{JOBS}/{dead.pk}/replay"), 409)
    assert AuditEntry.objects.filter(action="job.replay").count() == 1


def test_replay__unknown_job_or_wrong_method__problem(operator):
    problem(operator.post(f"{JOBS}/{uuid.uuid4()}/replay"), 404)
    answer = operator.get(f"{JOBS}/{job().pk}/replay")
    problem(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_replay__bearer_token__audited_by_the_name_in_it():
    dead = job()
    client_of(roles.OPERATOR)
    user = User.objects.get(username="some-operator")
    user.set_password("pw-of-somebody-9")
    user.save()
    login = {"username": user.username, "password": "pw-of-somebody-9"}
    call_command("gateway", "import", EXAMPLE)  # the issuer that signs
    token = Client().post("/api/v1/gateway/token", login, content_type="application/json").json()["access"]
    answer = Client().post(f"{JOBS}/{dead.pk}/replay", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert AuditEntry.objects.get(action="job.replay").actor == "some-operator"


# --- lists ---------------------------------------------------------------------------------------------------------------
def test_jobs__many__bounded_queries_and_no_payloads(viewer, django_assert_max_num_queries):
    for _ in range(30):
        job()
    with django_assert_max_num_queries(5), CaptureQueriesContext(connection) as queries:
        answer = viewer.get(JOBS)
    assert len(ids(answer)) == 30
    assert "payload" not in answer.json()["results"][0]
    assert not any('"payload"' in query["sql"] for query in queries)


def test_jobs__pages__newest_first_and_each_one_once_while_new_ones_come(viewer):
    made = [str(job().pk) for _ in range(7)]
    answer = viewer.get(JOBS, {"page_size": "3"})
    seen = [ids(answer)]
    assert answer.json()["previous"] is None
    while following := answer.json()["next"]:
        job()  # at the front: it must not push anything onto the next page
        answer = viewer.get(following)
        seen.append(ids(answer))
    assert [len(page) for page in seen] == [3, 3, 1]
    assert sum(seen, []) == made[::-1]
    back = viewer.get(answer.json()["previous"])
    assert ids(back) == seen[1]


@pytest.mark.parametrize(("asked", "shown"), [("2", 2), ("100000", 60)])
def test_jobs__page_size__kept_within_bounds(viewer, asked, shown):
    one = job()
    rows = []
    for _ in range(59):
        row = type(one).objects.get(pk=one.pk)
        row.pk = uuid.uuid4()
        rows.append(row)
    type(one).objects.bulk_create(rows)
    assert len(ids(viewer.get(JOBS, {"page_size": asked}))) == shown


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("jobs?page_size=many", "/page_size"),
        ("jobs?page_size=-1", "/page_size"),
        ("workflows?finised=false", "/finised"),
        ("alerts?page_size=0", "/page_size"),
        ("alerts?queu=a", "/queu"),
        ("schedules?name=a", "/name"),
        ("bulk-actions?page=2", "/page"),
    ],
)
def test_lists__parameter_that_is_unknown_or_no_number__is_refused(viewer, address, field):
    """It would show more than was asked for."""
    body = problem(viewer.get(f"/api/v1/queue/{address}"), 400)
    assert [error["pointer"] for error in body["errors"]] == [field]


def test_jobs__bad_cursor__not_found(viewer):
    job()
    problem(viewer.get(JOBS, {"cursor": "no-such-cursor"}), 404)


def test_jobs__filters__narrow_the_list(viewer):
    queues.create_queue("other")
    dead, done, elsewhere = job(request_id="r-1"), job(State.COMPLETED), job(queue="other")

    def shown(**asked: str) -> set[str]:
        return set(ids(viewer.get(JOBS, asked)))

    assert shown(state="DEAD_LETTER") == {str(dead.pk), str(elsewhere.pk)}
    assert shown(state="DEAD_LETTER", queue="other") == {str(elsewhere.pk)}
    assert shown(request_id="r-1") == {str(dead.pk)}
    assert shown(queue="no_such_queue") == shown(request_id="r-0") == set()
    assert shown(state="", queue="") == {str(one.pk) for one in (dead, done, elsewhere)}


@pytest.mark.parametrize("state", ["dead", "DEAD_LETTER ", "0", "<script>"])
def test_jobs__bad_state__names_the_field_and_the_states(viewer, state):
    body = problem(viewer.get(JOBS, {"state": state}), 400)
    (error,) = body["errors"]
    assert error["pointer"] == "/state"
    assert "DEAD_LETTER" in error["detail"]


def test_queues__counts_by_state__in_bounded_queries(viewer, django_assert_max_num_queries):
    for number in range(20):
        queues.create_queue(f"q{number}")
    queues.configure("q1", actor=None, source="system", paused=True)
    job(), job(State.PENDING)
    with django_assert_max_num_queries(7):
        answer = viewer.get(QUEUES)
    found = {row["name"]: row for row in answer.json()["results"]}
    assert (found["q0"]["paused"], found["q1"]["paused"]) == (False, True)
    mail = found["email_queue"]
    assert (mail["jobs"]["DEAD_LETTER"], mail["jobs"]["PENDING"], mail["jobs"]["FAILED"]) == (1, 1, 0)
    assert set(mail["jobs"]) == {state.value for state in State}
    assert mail["oldest_due_s"] >= 0


def test_api__markup_in_a_payload__json_that_no_browser_takes_for_a_page(viewer):
    dead = job(payload={"to": "<script>alert(1)</script>"})
    answer = viewer.get(f"{JOBS}/{dead.pk}", headers={"Accept": "text/html, */*;q=0.1"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_urls__names__lead_to_the_paths():
    assert reverse("queue_api:jobs") == JOBS
    assert reverse("queue_api:queues") == QUEUES


# --- the dead letters' desk ---------------------------------------------------------------------------------------------
DEAD = "/api/v1/queue/dead-letters"


def test_dead_letters__groups_then_replay_at_a_rate_then_stop(operator):
    dead = job(fingerprint="0123456789abcdef")
    (group,) = operator.get(f"{DEAD}?queue=email_queue").json()["results"]
    assert (group["jobs"], group["type"], group["newest"]) == (1, ERROR["type"], str(dead.pk))
    asked = {"action": "replay", "selection": {"fingerprint": group["fingerprint"]}, "rate": 5}
    counted = operator.post(BULK, {**asked, "dry_run": True}, "application/json")
    assert (counted.status_code, counted.json()) == (200, {"wanted": 1})
    started = operator.post(BULK, asked, "application/json")
    told = started.json()
    assert (started.status_code, told["wanted"], told["actor"]) == (202, 1, "some-operator")
    one = f"{BULK}/{told['id']}"
    assert (operator.get(one).json()["done"], operator.get(one).json()["progress"]) == (0, 0.0)
    assert operator.post(f"{one}/stop").json()["is_stopped"] is True
    problem(operator.post(f"{one}/stop"), 409)
    assert ids(operator.get(BULK)) == [told["id"]]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"action": "melt", "all": True}, 400),
        ({"action": "replay"}, 400),
        ({"action": "replay", "all": True, "selection": {"queue": "a"}}, 400),
        ({"action": "replay", "all": True, "rate": 0}, 400),
        ({"action": "replay", "all": True, "force": True}, 400),
        ({"action": "replay", "all": True, "rat": 5}, 400),
        ({"action": "replay", "selection": {"quue": "a"}}, 400),
        ({"action": "replay", "selection": {"queue": "", "task": "a"}}, 400),
        ({"action": "replay", "selection": {"since": "soon"}}, 400),
        ({"action": "replay", "selection": {"queue": "nowhere"}}, 409),
        ({"action": "run", "all": True}, 409),
    ],
)
def test_bulk_actions__no_choice_bad_rate_or_nothing_to_do__problem(operator, asked, status):
    job()
    problem(operator.post(BULK, asked, "application/json"), status)
    assert operator.get(BULK).json()["results"] == []


def test_dead_letters__viewer__looks_and_does_nothing(viewer):
    dead = job()
    assert viewer.get(DEAD).status_code == viewer.get(BULK).status_code == 200
    problem(viewer.post(BULK, {"action": "replay", "all": True}, "application/json"), 403)
    problem(viewer.post(JOBS, {"task": "email_queue"}, "application/json"), 403)
    for verb in ("payload", "discard", "run", "cancel"):
        problem(viewer.post(f"{JOBS}/{dead.pk}/{verb}", {"payload": {}}, "application/json"), 403)


def test_jobs__body_larger_than_django_reads__413_that_names_the_limit(operator, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    asked = {"task": "email_queue", "payload": {"text": "x" * 1000}}
    told = problem(operator.post(JOBS, asked, "application/json"), 413)
    assert told["detail"] == "The body is larger than 1,000 bytes (DATA_UPLOAD_MAX_MEMORY_SIZE)."
    assert ids(operator.get(JOBS)) == []


def test_jobs__posted__enqueued_with_options_and_audited(operator):
    asked = {
        "task": "email_queue",
        "payload": PAYLOAD,
        "tags": ["red"],
        "tenant": "acme",
        "delay_s": 60,
        "priority": 9,
    }
    answer = operator.post(JOBS, asked, "application/json")
    assert answer.status_code == 201
    made = operator.get(f"{JOBS}/{answer.json()['id']}").json()
    assert (made["tags"], made["tenant"], made["priority"], made["payload"]) == (["red"], "acme", 9, PAYLOAD)
    assert (
        ids(operator.get(JOBS, {"tag": "red"}))
        == ids(operator.get(JOBS, {"arguments": "task_id=1"}))
        == [made["id"]]
    )
    assert ids(operator.get(JOBS, {"tag": "blue"})) == []
    entry = AuditEntry.objects.get(action="job.enqueue")
    assert (entry.actor, entry.source) == ("some-operator", "api")
    assert operator.post(f"{JOBS}/{made['id']}/run").json()["run_after"] < made["run_after"]
    problem(operator.post(f"{JOBS}/{made['id']}/run"), 409)


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"task": "no_such"}, "/task"),
        ({"task": "email_queue", "queue": "no_such"}, "/queue"),
        ({"task": "email_queue", "payload": [1]}, "/payload"),
        ({"task": "email_queue", "priority": 77}, None),
        ({"task": "email_queue", "delay_s": -1}, None),
        ({"task": "email_queue", "tags": [""]}, None),
        ({"task": "email_queue", "tenannt": "x"}, "/tenannt"),
    ],
)
def test_jobs__posted_badly__problem_and_nothing_stored(operator, asked, pointer):
    body = problem(operator.post(JOBS, asked, "application/json"), 400)
    assert pointer is None or body["errors"][0]["pointer"] == pointer
    assert operator.get(JOBS).json()["results"] == []


def test_discard__dead_job__over_and_not_twice(operator):
    dead = job()
    assert operator.post(f"{JOBS}/{dead.pk}/discard").json()["state"] == "CANCELLED"
    problem(operator.post(f"{JOBS}/{dead.pk}/discard"), 409)


# --- queues --------------------------------------------------------------------------------------------------------------
def test_queues__made_changed_paused_purged_deleted__by_their_roles(operator, admin):
    problem(operator.post(QUEUES, {"name": "api-letters"}, "application/json"), 403)
    made = admin.post(QUEUES, {"name": "api-letters", "max_retries": 7}, "application/json")
    assert (made.status_code, made.json()["policy"]["max_retries"]) == (201, 7)
    one = f"{QUEUES}/api-letters"
    assert operator.patch(one, {"max_retries": 8}, "application/json").json()["policy"]["max_retries"] == 8
    assert operator.post(f"{one}/pause").json()["paused"] is True
    assert operator.post(f"{one}/resume").json()["paused"] is False
    problem(operator.post(f"{one}/purge"), 409)
    waiting = job(State.PENDING, queue="api-letters")
    assert operator.post(f"{one}/purge").json()["action"] == "cancel"
    problem(admin.delete(one), 409)
    waiting.delete()
    problem(operator.delete(one), 403)
    assert admin.delete(one).status_code == 204
    problem(admin.get(one), 404)
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"queue.create", "queue.configure", "queue.delete", "bulk.cancel"} <= actions


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [({"max_retries": 101}, "/max_retries"), ({"time_limit_s": 0}, "/time_limit_s"), ({"max_retries": "x"}, "/max_retries"),
     ({"dead_retention_s": -1}, "/dead_retention_s"), ({"backoff_base_s": -1}, "/backoff_base_s"),
     ({"pausd": True}, "/pausd"), ({"delivery": "pigeon"}, "/delivery")],
)  # fmt: skip
def test_queue__bad_policy__problem_and_nothing_changed(operator, changes, pointer):
    queues.create_queue("api-letters")
    before = operator.get(f"{QUEUES}/api-letters").json()["policy"]
    body = problem(operator.patch(f"{QUEUES}/api-letters", changes, "application/json"), 400)
    assert body["errors"][0]["pointer"] == pointer
    assert operator.get(f"{QUEUES}/api-letters").json()["policy"] == before


@pytest.mark.parametrize("name", ["", "with space", "x.high", "email_queue"])
def test_queues__bad_name_or_one_that_is_there__problem(admin, name):
    queues.create_queue("email_queue")
    problem(admin.post(QUEUES, {"name": name}, "application/json"), 400)


def test_queues__made_with_a_bad_policy__is_not_made(admin):
    problem(admin.post(QUEUES, {"name": "half", "dead_retention_s": -1}, "application/json"), 400)
    problem(admin.get(f"{QUEUES}/half"), 404)
    assert not AuditEntry.objects.filter(action="queue.create").exists()


def test_payload__edited__diff_is_the_answer_and_the_refused_one_changes_nothing(operator):
    dead = job()
    url = f"{JOBS}/{dead.pk}/payload"
    answer = operator.post(url, {"payload": {**PAYLOAD, "to": "b@example.com"}}, "application/json")
    assert answer.json()["changes"] == {"to": {"before": "a@example.com", "after": "b@example.com"}}
    problem(operator.post(url, {"payload": [1]}, "application/json"), 400)
    problem(operator.post(url, {"payload": {"to": "••••••"}}, "application/json"), 400)
    waiting = job(State.PENDING)
    problem(operator.post(f"{JOBS}/{waiting.pk}/payload", {"payload": {}}, "application/json"), 409)
    dead.refresh_from_db()
    assert dead.payload == {**PAYLOAD, "to": "b@example.com"}
