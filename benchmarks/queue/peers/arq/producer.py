from __future__ import annotations

import asyncio

from arq import create_pool

from benchmarks.queue.producer import serve

from .app import WorkerSettings

CONCURRENT = 20

loop = asyncio.new_event_loop()


def main() -> None:
    pool = loop.run_until_complete(create_pool(WorkerSettings.redis_settings))

    def one(task: str, number: int) -> None:
        loop.run_until_complete(pool.enqueue_job(task, number))

    def many(task: str, numbers: range) -> None:
        async def send() -> None:
            for start in range(0, len(numbers), CONCURRENT):
                await asyncio.gather(
                    *(pool.enqueue_job(task, n) for n in numbers[start : start + CONCURRENT])
                )

        loop.run_until_complete(send())

    serve(one, many)


if __name__ == "__main__":
    main()
