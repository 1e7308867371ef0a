"""Replays of many dead letters."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class Replay(models.Model):
    """Dead letters that are to be replayed, at a rate. The reconciler's leader works it off; only replays.py writes it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    queue = models.CharField(max_length=100, blank=True)
    task = models.CharField(max_length=200, blank=True)
    fingerprint = models.CharField(max_length=16, blank=True)
    rate = models.FloatField(null=True, help_text="Jobs per second; empty: as fast as it goes")
    wanted = models.PositiveIntegerField(help_text="Dead letters that it found at the start")
    replayed = models.PositiveIntegerField(default=0)
    passed_over = models.PositiveIntegerField(default=0, help_text="Their arguments were not recorded")
    position = models.UUIDField(null=True, help_text="The last job that it has looked at")
    actor = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    counted_to = models.DateTimeField(help_text="The time that the rate has used up")
    finished_at = models.DateTimeField(null=True)
    is_stopped = models.BooleanField(default=False, help_text="By hand, before its end")

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(rate__isnull=True) | models.Q(rate__gt=0), name="replay_rate_positive"
            )
        ]

    def __str__(self) -> str:
        return f"replay {self.id}"
