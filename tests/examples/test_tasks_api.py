from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from examples.tasks_service import demo
from examples.tasks_service.models import Task
from queue_app.models import Job, Queue

pytestmark = pytest.mark.django_db(transaction=True)
VALID = {"title": "Buy milk", "assignee_email": "ada@example.com"}


@pytest.fixture(autouse=True)
def service(settings: LazySettings, prefix: str) -> None:
    """Django's client talks to this service, with a cache of its own and a queue that was seeded."""
    settings.CACHES = {"default": settings.CACHES["default"] | {"KEY_PREFIX": prefix.strip(":")}}
    settings.ROOT_URLCONF = "examples.tasks_service.urls"
    demo.seed()
    Task.objects.all().delete()


def send(client: Client, method: str, path: str, body: Any) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return client.generic(
        method, path, text, content_type="application/json", headers={"X-Request-Id": "test-1"}
    )


def test_post__valid_task__is_stored_with_a_job_for_the_assignee(client: Client) -> None:
    answer = send(client, "POST", "/api/v1/tasks", VALID)
    assert answer.status_code == 201
    task = Task.objects.get()
    assert answer["Location"] == f"/api/v1/tasks/{task.pk}"
    assert client.get(answer["Location"]).json() == answer.json()
    job = Job.objects.get()
    assert job.queue == "email_queue"
    assert job.payload == {"to": "ada@example.com", "subject": "New task: Buy milk", "task_id": task.pk}
    assert job.request_id == "test-1"
    assert answer["X-Request-Id"] == "test-1"


def test_post__job_cannot_be_enqueued__no_task_either(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("examples.tasks_service.views.enqueue", fail)
    with pytest.raises(RuntimeError):
        send(client, "POST", "/api/v1/tasks", VALID)
    assert not Task.objects.exists()


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "", "\xff", "[" * 100_000])
def test_post__no_json_object__is_400_problem(client: Client, body: str) -> None:
    answer = send(client, "POST", "/api/v1/tasks", body)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == "test-1"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"title": " "}, "/title"),
        ({"title": "x" * 201}, "/title"),
        ({"title": None}, "/title"),
        ({"title": "a\nBcc: x@example.com"}, "/title"),
        ({"assignee_email": "nobody"}, "/assignee_email"),
        ({"assignee_email": f"{'x' * 250}@example.com"}, "/assignee_email"),
        ({"done": "yes"}, "/done"),
        ({"owner": 1}, "/owner"),
    ],
)
def test_post__invalid_member__is_422_and_names_it(
    client: Client, change: dict[str, Any], pointer: str
) -> None:
    answer = send(client, "POST", "/api/v1/tasks", VALID | change)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not Task.objects.exists()


def test_get__many_tasks__are_paged_newest_first_to_the_end(client: Client) -> None:
    Task.objects.bulk_create(Task(title=f"t{n}", assignee_email="a@example.com") for n in range(5))
    path, titles, pages = "/api/v1/tasks?limit=2", [], 0
    while path:
        page = client.get(path).json()
        titles += [task["title"] for task in page["tasks"]]
        path, pages = page["next"], pages + 1
    assert titles == ["t4", "t3", "t2", "t1", "t0"]
    assert pages == 3


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "before=-1", f"before={2**63}", "limit=²"]
)
def test_get__impossible_page__is_400(client: Client, query: str) -> None:
    assert client.get(f"/api/v1/tasks?{query}").status_code == 400


def test_put_and_delete__existing_task__change_it_and_remove_it(client: Client) -> None:
    task = Task.objects.create(title="old", assignee_email="a@example.com")
    path = f"/api/v1/tasks/{task.pk}"
    assert send(client, "PUT", path, VALID | {"done": True}).json()["done"] is True
    task.refresh_from_db()
    assert (task.title, task.done) == ("Buy milk", True)
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    assert client.get(f"/api/v1/tasks/{10**30}").status_code == 404


def test_unknown_path_and_method__are_problems(client: Client) -> None:
    assert client.get("/api/v1/none")["Content-Type"] == "application/problem+json"
    answer = client.delete("/api/v1/tasks")
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")
    assert "GET" in answer["Allow"]


def test_stats__second_call__is_a_hit_that_asks_the_database_nothing(client: Client) -> None:
    Task.objects.create(title="a", assignee_email="a@example.com", done=True)
    Task.objects.create(title="b", assignee_email="a@example.com")
    first = client.get("/api/v1/stats")
    assert first["Cache-Status"] == "brain; fwd=miss"
    with CaptureQueriesContext(
        connection,
    ) as queries:
        second = client.get("/api/v1/stats")
    assert second["Cache-Status"].startswith("brain; hit; ttl=")
    assert len(queries) == 0
    assert first.json() == second.json()
    assert {name: first.json()[name] for name in ("total", "done", "open")} == {
        "total": 2,
        "done": 1,
        "open": 1,
    }
    assert first.json()["assignees"] == [{"assignee_email": "a@example.com", "total": 2, "done": 1}]
    assert first.json()["days"][0]["created"] == 2


def test_healthz__is_ok(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_seed__twice__makes_everything_once() -> None:
    demo.seed()
    demo.seed()
    assert Task.objects.count() == len(demo.TASKS)
    queue = Queue.objects.get(name="email_queue")
    assert (queue.max_retries, queue.backoff_base_s) == (3, 1.0)
