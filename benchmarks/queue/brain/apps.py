"""Our side: the site's own settings with an app of benchmark tasks."""

from __future__ import annotations

import os
from typing import Any

from django.apps import AppConfig


class BenchmarkConfig(AppConfig):
    name = "benchmarks.queue.brain"
    label = "benchmark"

    def ready(self) -> None:
        if os.environ.get("BENCH_RECORDED") == "0":
            _record_nothing()


def _record_nothing() -> None:
    """There is no setting for it: broker delivery is always recorded."""
    from brain_project.celery import app
    from queue_app.broker.publishing import Sender

    app.steps["worker"].discard("queue_app.broker.recording:JournalStep")
    app.steps["consumer"].discard("queue_app.broker.recording:JournalConnection")

    def send(self: Any, producer: Any, name: str, message: Any, options: dict[str, Any], event: Any) -> Any:
        return self._send(producer, name, message, **options)

    Sender._tell_and_send = send  # type: ignore[method-assign]
