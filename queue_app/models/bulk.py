"""One action on many jobs."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from queue_app.states import Bulk


class BulkAction(models.Model):
    """What is to be done to all jobs of a selection, at a rate. The reconciler's leader works it off; only bulk.py writes it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    action = models.CharField(max_length=7, choices=[(action.value, action.value) for action in Bulk])
    selection = models.JSONField(default=dict, help_text="Field → text, as selection.read takes it")
    rate = models.FloatField(null=True, help_text="Jobs per second; empty: as fast as it goes")
    is_forced = models.BooleanField(default=False, db_default=False, help_text="Of a cancel")
    wanted = models.PositiveIntegerField(help_text="Jobs that it found at the start, to be looked at")
    seen = models.PositiveIntegerField(default=0, db_default=0, help_text="Jobs that it has looked at")
    done = models.PositiveIntegerField(default=0)
    passed_over = models.PositiveIntegerField(
        default=0, help_text="Not in a state for it any more, or their arguments were not recorded"
    )
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
                condition=models.Q(rate__isnull=True) | models.Q(rate__gt=0), name="bulk_rate_positive"
            ),
            models.CheckConstraint(
                condition=models.Q(action__in=[action.value for action in Bulk]), name="bulk_known_action"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.id}"

    @property
    def progress(self) -> float:
        """0 to 1: the share of its jobs that it has looked at."""
        if self.finished_at is not None and not self.is_stopped:
            return 1.0
        return min(1.0, self.seen / self.wanted) if self.wanted else 0.0
