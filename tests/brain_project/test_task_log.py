from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from structlog import contextvars

from brain_project.task_log import TaskReceiver

ABOUT = {"__django_structlog__": {"request_id": "r-1", "parent_task_id": "p-1"}}


@pytest.fixture
def task() -> Iterator[Any]:
    with contextvars.bound_contextvars(left_over=True):
        yield SimpleNamespace(name="plain.add", request=SimpleNamespace(**ABOUT))
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
    assert len(caplog.records) == (2 if level == "INFO" else 0)
