"""Plain tasks on threads: the messages that take the short way to the slots, and those that take Celery's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from brain_project.celery import app

from .conftest import WorkerProcess, call, ended, history

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Start = Callable[..., WorkerProcess]
ONE_THREAD = ("-P", "threads", "-c", "1")
POOLS = pytest.mark.parametrize("pool", [ONE_THREAD, ("-c", "1")], ids=["threads", "prefork"])


@POOLS
def test_connection__task_after_task__is_kept_and_closed_when_a_task_leaves_it_open(
    start: Start, pool: tuple[str, ...]
) -> None:
    start(*pool)
    first, second, _, third = call(
        "answer = [tasks.remembers.delay('mark').id, tasks.remembers.delay('mark').id,\n"
        "  tasks.leave_open.delay().id, tasks.remembers.delay('mark').id]"
    )
    assert ended(first, "COMPLETED").result is False
    assert ended(second, "COMPLETED").result is True
    assert ended(third, "COMPLETED").result is False


def test_system_exit__on_a_thread__the_task_is_retried_as_after_a_lost_child_and_the_slot_goes_on(
    start: Start,
) -> None:
    worker = start(*ONE_THREAD)
    left, after = call("answer = [tasks.leave.delay().id, tasks.add.delay(1, 2).id]")
    assert ended(after, "COMPLETED").result == 3
    assert ended(left, "DEAD_LETTER").last_error["type"] == "SystemExit"
    assert history(left).count("PROCESSING") == 2  # max_retries=1
    assert worker.process.poll() is None


def test_revoke__while_it_waits_for_a_slot__it_does_not_run(start: Start, tmp_path) -> None:
    file, gate = tmp_path / "notes", tmp_path / "gate"
    start(*ONE_THREAD)
    holds, waits = call(
        f"answer = [tasks.wait_for.delay({str(gate)!r}, {str(file)!r}, 'holds').id, tasks.note.delay({str(file)!r}, 'waits').id]"
    )
    ended(holds, "PROCESSING")
    with app.connection_for_write() as connection:
        told = app.control.revoke(waits, reply=True, timeout=30, limit=1, connection=connection)
    assert told
    gate.touch()
    ended(waits, "CANCELLED")
    ended(holds, "COMPLETED")
    assert file.read_text().split() == ["holds"]


def test_rate_limit__set_while_it_works__holds(start: Start, tmp_path) -> None:
    file = tmp_path / "notes"
    start("-P", "threads", "-c", "4")
    with app.connection_for_write() as connection:
        app.control.rate_limit("plain.note", "2/s", reply=True, timeout=30, limit=1, connection=connection)
    began = time.monotonic()
    ids = call(f"answer = [tasks.note.delay({str(file)!r}, n).id for n in range(5)]")
    for id in ids:
        ended(id, "COMPLETED")
    assert time.monotonic() - began > 1.4  # a limit that is late by a round trip is no limit


def test_events__somebody_listens__tasks_tell_all_of_them(start: Start) -> None:
    start(*ONE_THREAD, "-E")
    heard: list[str] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: heard.append(event["type"])})
        with contextlib.closing(receiver.itercapture(limit=None, timeout=60, wakeup=False)) as events:
            next(events)  # it listens
            call("tasks.add.delay(1, 2)")
            while "task-succeeded" not in heard:
                next(events)
    assert [kind for kind in heard if kind.startswith("task-")] == [
        "task-received",
        "task-started",
        "task-succeeded",
    ]
