from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from structlog import contextvars

from brain_project.task_log import TaskReceiver
from orm_app import work

ABOUT = {"__django_structlog__": {"request_id": "r-1", "parent_task_id": "p-1"}}


@pytest.fixture
def task() -> Iterator[Any]:
    with contextvars.bound_contextvars(left_over=True):
        made = SimpleNamespace(name="plain.add", request=SimpleNamespace(**ABOUT))
        yield made
        TaskReceiver().receiver_task_postrun(task=made)
        contextvars.clear_contextvars()


@pytest.fixture(params=["INFO", "WARNING"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    logger = logging.getLogger("django_structlog")
    before = logger.level
    logger.setLevel(request.param)
    yield request.param
    logger.setLevel(before)


def test_prerun__whatever_the_level__binds_the_same(task: Any, level: str) -> None:
    TaskReceiver().receiver_task_prerun("t-1", task)
    assert contextvars.get_contextvars() == {
        "task_id": "t-1",
        "task": "plain.add",
        "request_id": "r-1",
        "parent_task_id": "p-1",
    }
    assert task.request._django_structlog_started_at > 0  # for the line of a failure


def test_prerun_and_success__info_is_off__write_nothing(
    task: Any, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = TaskReceiver()
    with caplog.at_level("DEBUG"):
        logging.getLogger("django_structlog").setLevel(level)
        receiver.receiver_task_prerun("t-1", task)
        receiver.receiver_task_success("None", sender=task)
    written = [record for record in caplog.records if record.name.startswith("django_structlog")]
    assert len(written) == (2 if level == "INFO" else 0)


def test_prerun_and_postrun__a_plain_task__is_a_unit_of_work(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[work.Unit] = []
    monkeypatch.setattr(work, "_at_end", [ended.append])
    receiver = TaskReceiver()
    receiver.receiver_task_prerun("t-1", task)
    unit = work.current()
    assert unit is not None
    assert (unit.kind, unit.name, unit.id) == ("job", "plain.add", "t-1")
    assert unit.since is not None  # no older rows than those of whoever sent it
    receiver.receiver_task_postrun(task=task)
    receiver.receiver_task_postrun(task=task)
    assert work.current() is None
    assert ended == [unit]


def test_prerun__a_wake_up_or_inside_a_request__begins_no_unit(task: Any) -> None:
    receiver = TaskReceiver()
    with work.unit("request", "GET /", "r") as outer:
        receiver.receiver_task_prerun("t-1", task)
        receiver.receiver_task_postrun(task=task)
        assert work.current() is outer
    task.name = "queue_app.run"
    receiver.receiver_task_prerun("t-2", task)
    assert work.current() is None
