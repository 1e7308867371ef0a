"""Worker processes, and who leads a duty."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from queue_app.states import Asked


class Worker(models.Model):
    """A worker process. It is alive while its lease lasts; every job it holds hangs on this one lease."""

    id = models.UUIDField(primary_key=True, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField("PID")
    version = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="Of its code, as BRAIN_VERSION says it",
    )
    pool = models.CharField(max_length=50)
    concurrency = models.PositiveIntegerField()
    queues = models.JSONField(default=list, help_text="What it consumes now")
    running = models.JSONField(default=list, help_text="Ids of the jobs that it ran at its last heartbeat")
    stuck = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Threads whose runs were given up and that have not come back"
    )
    memory_bytes = models.PositiveBigIntegerField(
        null=True,
        help_text="Resident, of the process and its pool's children; empty where the system does not say",
    )
    ended = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="Runs that have ended since it began"
    )
    asked = models.CharField(
        max_length=7,
        choices=[(asked.value, asked.value) for asked in Asked],
        blank=True,
        default="",
        db_default="",
    )
    started_at = models.DateTimeField(default=timezone.now)
    last_seen_at = models.DateTimeField()
    lease_until = models.DateTimeField(db_index=True)
    stopped_at = models.DateTimeField(null=True, help_text="Ended in order")

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Lease(models.Model):
    """Who leads a duty that has one leader at a time, and how far it has come."""

    name = models.CharField(max_length=50, primary_key=True)
    holder = models.UUIDField(null=True)
    until = models.DateTimeField()
    position = models.CharField(
        max_length=64,
        blank=True,
        help_text="Of the recorder and the rollups: the last entry, or step, it wrote",
    )

    def __str__(self) -> str:
        return f"{self.name} by {self.holder}"
