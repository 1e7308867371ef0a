"""What happened, in numbers."""

from __future__ import annotations

from django.db import models


class Rollup(models.Model):
    """What happened in one span of time to one queue's jobs of one task and tenant. Only rollups.py writes it.

    A step of a job is counted in one span, and in the row of all time (step_s 0), which knows no tenant.
    """

    step_s = models.PositiveIntegerField(help_text="60, 3600 or 86400; 0: of all time")
    at = models.DateTimeField(help_text="Where the span begins")
    queue = models.CharField(max_length=100)
    name = models.CharField("task", max_length=200)
    tenant = models.CharField(max_length=64, blank=True)
    started = models.PositiveBigIntegerField(default=0)
    completed = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0, help_text="Runs that are tried again")
    dead = models.PositiveBigIntegerField(default=0)
    cancelled = models.PositiveBigIntegerField(default=0)
    wait = models.JSONField(default=dict, help_text="From when it was due to its start: bucket → runs")
    wait_s = models.FloatField(default=0.0, help_text="Sum of the waits, in seconds")
    run = models.JSONField(default=dict, help_text="bucket → runs")
    run_s = models.FloatField(default=0.0, help_text="Sum of the runs, in seconds")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["step_s", "at", "queue", "name", "tenant"], name="rollup_once")
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.name} {self.at:%Y-%m-%d %H:%M}"
