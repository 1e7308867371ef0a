from __future__ import annotations

import django

from benchmarks.queue.producer import each, serve

MODULE = "benchmarks.queue.peers.django_q2.app"


def main() -> None:
    django.setup()
    from django_q.tasks import async_task

    def one(task: str, number: int) -> None:
        async_task(f"{MODULE}.{task}", number)

    serve(one, each(one))


if __name__ == "__main__":
    main()
