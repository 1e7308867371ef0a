from __future__ import annotations

from benchmarks.queue.producer import serve

from . import app as peer

TASKS = {"noop": peer.noop, "work_1ms": peer.work_1ms}


def one(task: str, number: int) -> None:
    TASKS[task].apply_async((number,))


def many(task: str, numbers: range) -> None:
    with peer.app.producer_pool.acquire(block=True) as producer, producer.batch(len(numbers)):
        for number in numbers:
            TASKS[task].apply_async((number,), producer=producer)


if __name__ == "__main__":
    serve(one, many)
