"""`python -m benchmarks.queue.brain.producer ledger|broker|recorder`."""

from __future__ import annotations

import sys
from typing import Any

import django

from benchmarks.queue.producer import serve


def main() -> None:
    django.setup()
    import brain_project.celery  # noqa: F401  (the current app of `.delay()`)

    calls = {"ledger": _ledger, "broker": _broker, "recorder": _recorder}[sys.argv[1]]
    serve(*calls(), _completed, {"replay": _replay})


def _replay(command: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.queue.brain.replaying import replay

    return replay(range(command["first"], command["first"] + command["count"]), command["rate"])


def _completed() -> int:
    from queue_app.models import Job

    return Job.objects.filter(state="COMPLETED").count()


def _ledger():  # type: ignore[no-untyped-def]
    import queue_app
    from benchmarks.queue.brain import tasks

    known = {"noop": tasks.noop, "work_1ms": tasks.work_1ms}

    def one(task: str, number: int) -> None:
        queue_app.enqueue(known[task], {"n": number})

    def many(task: str, numbers: range) -> None:
        queue_app.enqueue_many(known[task], [{"n": number} for number in numbers])

    return one, many


def _broker():  # type: ignore[no-untyped-def]
    from benchmarks.queue.brain import tasks
    from brain_project.celery import app

    known = {"noop": tasks.broker_noop, "work_1ms": tasks.broker_work_1ms}

    def one(task: str, number: int) -> None:
        known[task].delay(number)

    def many(task: str, numbers: range) -> None:
        with app.producer_pool.acquire(block=True) as producer, producer.batch(len(numbers)):
            for number in numbers:
                known[task].apply_async((number,), producer=producer)

    return one, many


def _recorder():  # type: ignore[no-untyped-def]
    from benchmarks.queue.brain.recording import Recording

    recording = Recording()
    return recording.one, recording.many


if __name__ == "__main__":
    main()
