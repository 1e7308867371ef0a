"""The demo's data: the customer's queue and a few tasks."""

from __future__ import annotations

from cache_app import cache_lock
from orm_app import db
from queue_app.queues import create_queue

from .models import Task
from .tasks import QUEUE

MAX_RETRIES = 3
BACKOFF_BASE_S = 1.0  # short, so that a poisoned address reaches the dead letters while one watches
TASKS = (
    ("Write the release notes", "ada@example.com", True),
    ("Rotate the signing key", "grace@example.com", False),
    ("Call the printer's support", "ada@example.com", False),
)


def seed() -> None:
    """Make what is missing. Two sites on one database that do it at once make it once."""
    with cache_lock("tasks_service.seed"), db.transaction():
        create_queue(QUEUE, max_retries=MAX_RETRIES, backoff_base_s=BACKOFF_BASE_S, source="cli")
        if not Task.objects.exists():
            Task.objects.bulk_create(
                Task(title=title, assignee_email=email, done=done) for title, email, done in TASKS
            )
