from __future__ import annotations

from benchmarks.queue.producer import each, serve

from . import app

TASKS = {"noop": app.noop, "work_1ms": app.work_1ms}


def one(task: str, number: int) -> None:
    TASKS[task](number)


if __name__ == "__main__":
    serve(one, each(one))
