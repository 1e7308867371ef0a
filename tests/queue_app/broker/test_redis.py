"""Plain Celery tasks on our Redis transport, from publication to their rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Process, call, ended, history

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., Process]
THREADS = ("-P", "threads", "-c", "2")


@pytest.mark.parametrize("pool", [THREADS, ("-c", "1")], ids=["threads", "prefork"])
def test_worker__each_kind_of_end__is_in_the_row_and_its_history(start: Start, pool: tuple[str, ...]) -> None:
    ids = call(
        "from foundation import request_id\n"
        "with request_id.bound('r-1'):\n"
        "  answer = {'good': tasks.add.delay(1, b=2).id, 'bad': tasks.fail.delay().id,\n"
        "    'again': tasks.retry.delay(2).id, 'never': tasks.retry.delay(9).id, 'early': tasks.early.delay(5).id,\n"
        "    'ignored': tasks.ignore.delay().id, 'rejected': tasks.reject.delay().id,\n"
        "    'late': tasks.add.apply_async((1, 1), expires=0.001).id,\n"
        "    'named': tasks.add.apply_async((1, 1), task_id='not a uuid').id}"
    )
    start(*pool)
    good = ended(ids["good"], "COMPLETED")
    assert (good.name, good.queue, good.delivery, good.priority) == ("plain.add", "default", "broker", 3)
    assert (good.payload, good.result, good.attempt) == ({"args": [1], "kwargs": {"b": 2}}, 3, 1)
    assert (good.request_id, good.owner is not None) == ("r-1", True)
    assert good.created_at <= good.started_at <= good.finished_at
    assert history(ids["good"]) == ["PENDING", "PROCESSING", "COMPLETED"]

    bad = ended(ids["bad"], "DEAD_LETTER")
    assert (bad.last_error["type"], bad.last_error["message"]) == ("ConnectionError", "refused by the test")
    assert "in fail" in bad.last_error["traceback"]
    again = ended(ids["again"], "COMPLETED")
    assert (again.attempt, again.max_attempts, again.result) == (2, 3, 2)
    assert history(ids["again"]) == ["PENDING", "PROCESSING", "FAILED", "PROCESSING", "COMPLETED"]
    assert ended(ids["never"], "DEAD_LETTER").attempt == 3
    assert ended(ids["early"], "COMPLETED").result == 5
    assert ended(ids["ignored"], "COMPLETED").result is None
    assert ended(ids["rejected"], "DEAD_LETTER").last_error["type"] == "Reject"
    assert history(ids["late"])[-1] == "CANCELLED"
