"""Workflows and the places of their jobs."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from queue_app.composition import Counts, Kind, Role, Status, status


class Workflow(models.Model):
    """Jobs that belong together. Its counts move in the transaction of each job's step; only releasing.py moves them."""

    id = models.UUIDField(primary_key=True, editable=False)  # uuid7: sorts by time
    kind = models.CharField(max_length=5, choices=[(kind.value, kind.value) for kind in Kind])
    name = models.CharField(max_length=100, blank=True)
    total = models.PositiveIntegerField(help_text="Jobs, callbacks of a batch left out")
    tried = models.PositiveIntegerField(default=0, help_text="Ran once, or are over")
    completed = models.PositiveIntegerField(default=0)
    dead = models.PositiveIntegerField(default=0)
    cancelled = models.PositiveIntegerField(default=0)
    is_cancelled = models.BooleanField(default=False, help_text="As a whole, by hand")
    parent = models.UUIDField(null=True, help_text="The job that started it")
    request_id = models.CharField(max_length=128, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, help_text="Nothing of it will run any more")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["finished_at"], name="workflow_finished"),
            models.Index(fields=["parent"], name="workflow_parent"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=[kind.value for kind in Kind]), name="workflow_known_kind"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    total__gte=models.F("completed") + models.F("dead") + models.F("cancelled")
                ),
                name="workflow_counts_fit",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name or self.id}"

    @property
    def counts(self) -> Counts:
        return Counts(self.total, self.tried, self.completed, self.dead, self.cancelled)

    @property
    def status(self) -> Status:
        return status(self.counts, is_cancelled=self.is_cancelled)

    @property
    def progress(self) -> float:
        """0 to 1: the share of its jobs that are COMPLETED."""
        return self.completed / self.total


class Member(models.Model):
    """A job's place in its workflow: the gate that it waits at, the gate that it opens, and what came of it."""

    job = models.UUIDField(primary_key=True)  # no foreign key: jobs are pruned by the thousand
    workflow = models.ForeignKey(
        Workflow, models.CASCADE, related_name="members", db_constraint=False, db_index=False
    )
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=11, blank=True, choices=[(role.value, role.value) for role in Role])
    behind = models.PositiveIntegerField(null=True)
    opens = models.PositiveIntegerField(null=True)
    is_held = models.BooleanField(default=False, help_text="Waits for other jobs")
    is_tried = models.BooleanField(default=False, help_text="Ran once, or is over")
    outcome = models.CharField(max_length=12, blank=True, help_text="The state in which it is over")
    # Of a held job: what its options say once it is held no more.
    delay_s = models.FloatField(null=True)
    run_at = models.DateTimeField(null=True)
    expires_s = models.FloatField(null=True)

    class Meta:
        ordering = ["workflow", "position"]
        indexes = [
            models.Index(fields=["workflow", "opens", "outcome"], name="member_gate"),
            models.Index(fields=["workflow", "behind"], name="member_behind"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["workflow", "position"], name="member_position"),
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]), name="member_known_role"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.position} of {self.workflow_id}"
