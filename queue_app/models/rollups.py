"""What happened, in numbers."""

from __future__ import annotations

from django.db import models


class Rollup(models.Model):
    """What happened in one span of time to one queue's jobs of one task, of all tenants or of one. Only rollup_rows.py writes it.

    A step of a job is counted once in each level that is filled so far (levels.py), and in the row of all time (step_s 0),
    which knows no tenant; at each in the row of all tenants and, if its job has one, in its tenant's.
    """

    step_s = models.PositiveIntegerField(help_text="60, 300, 900, 3600, 21600 or 86400; 0: of all time")
    at = models.DateTimeField(help_text="Where the span begins")
    queue = models.CharField(max_length=100)
    name = models.CharField("task", max_length=200)
    tenant = models.CharField(
        max_length=64, blank=True, help_text="Empty: of all jobs, whatever their tenant"
    )
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
        # The order of a question's reading: all rows of a level without a tenant lie beside each other.
        constraints = [
            models.UniqueConstraint(fields=["step_s", "tenant", "at", "queue", "name"], name="rollup_once")
        ]
        indexes = [models.Index(fields=["step_s", "at"], name="rollup_by_time")]

    def __str__(self) -> str:
        return f"{self.queue} {self.name} {self.at:%Y-%m-%d %H:%M}"


class RollupLevel(models.Model):
    """How far the rollups of one level have come: a Mark of levels.py."""

    step_s = models.PositiveIntegerField(primary_key=True)
    upto = models.DateTimeField(help_text="Finer rows that begin before are summed up in this level")
    row = models.BigIntegerField(default=0, help_text="So are those that begin there, up to this id")
    kept_from = models.DateTimeField(help_text="What began before is deleted, or will be")

    def __str__(self) -> str:
        return f"{self.step_s} s"
