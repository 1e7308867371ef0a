from __future__ import annotations

import django

from benchmarks.queue.producer import each, serve


def main() -> None:
    django.setup()
    from . import tasks

    known = {"noop": tasks.noop, "work_1ms": tasks.work_1ms}

    def one(task: str, number: int) -> None:
        known[task].enqueue(number)

    serve(one, each(one))


if __name__ == "__main__":
    main()
