from __future__ import annotations

from benchmarks.queue.producer import serve

from . import app as peer

TASKS = {"noop": peer.noop, "work_1ms": peer.work_1ms}


def one(task: str, number: int) -> None:
    TASKS[task].defer(n=number)


def many(task: str, numbers: range) -> None:
    TASKS[task].batch_defer(*({"n": number} for number in numbers))


if __name__ == "__main__":
    with peer.app.open():
        serve(one, many)
