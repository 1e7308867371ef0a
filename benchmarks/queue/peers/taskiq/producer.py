from __future__ import annotations

import asyncio

from benchmarks.queue.producer import serve

from . import app

TASKS = {"noop": app.noop, "work_1ms": app.work_1ms}
CONCURRENT = 20

loop = asyncio.new_event_loop()


def one(task: str, number: int) -> None:
    loop.run_until_complete(TASKS[task].kiq(number))


def many(task: str, numbers: range) -> None:
    async def send() -> None:
        for start in range(0, len(numbers), CONCURRENT):
            await asyncio.gather(*(TASKS[task].kiq(n) for n in numbers[start : start + CONCURRENT]))

    loop.run_until_complete(send())


if __name__ == "__main__":
    loop.run_until_complete(app.broker.startup())
    serve(one, many)
