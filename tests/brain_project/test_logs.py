from __future__ import annotations

import pytest
import structlog

from brain_project import logs
from brain_project.logs import news_only
from queue_app import wakeup


def is_dropped(method: str, **event: object) -> bool:
    try:
        return news_only(None, method, dict(event)) != event
    except structlog.DropEvent:
        return True


@pytest.mark.parametrize(
    ("method", "event", "expected"),
    [
        ("info", {"event": "request_started", "request": "GET /admin/"}, True),
        ("info", {"event": "request_finished", "request": "GET /admin/", "code": 200}, False),
        ("info", {"event": "request_finished", "request": "GET /readyz", "code": 200}, True),
        ("info", {"event": "request_finished", "request": "HEAD /metrics?x=1", "code": 200}, True),
        ("error", {"event": "request_finished", "request": "GET /readyz", "code": 503}, False),
        ("info", {"event": "request", "path": "/gateway/health", "status": 200}, True),
        ("info", {"event": "request", "path": "/api/v1/tasks", "status": 200}, False),
        ("info", {"event": "request_finished", "request": "GET /api/v1/tasks", "view": "proxy"}, True),
        ("info", {"event": "streaming_started"}, True),
        ("info", {"event": "task_enqueued", "child_task_name": "queue_app.run"}, True),
        ("info", {"event": "task_enqueued", "child_task_name": "their.task", "task": "queue_app.run"}, False),
        ("info", {"event": "task_succeeded", "task": "queue_app.run"}, True),
        ("info", {"event": "task_started", "task": "their.task"}, False),
        ("info", {"event": "breaker_opened", "path": "/gateway/health"}, False),
    ],
)
def test_news_only__event__is_kept_when_a_person_wants_it(method, event, expected):
    assert is_dropped(method, **event) is expected


def test_news_only__wake_up__is_the_name_that_the_queue_uses():
    assert logs._WAKE_UP == wakeup.RUN
