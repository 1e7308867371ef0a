"""Schedules and what became of their moments."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from queue_app.recurrence import LONGEST_EXPRESSION, Missed, Overlap
from queue_app.states import HIGHEST, LOWEST, Priority

_MISSED = [policy.value for policy in Missed]
_OVERLAP = [policy.value for policy in Overlap]


class Schedule(models.Model):
    """Enqueues a task again and again, by cron or an interval. Only schedules.py and firing.py write it."""

    name = models.CharField(max_length=100, unique=True)
    task = models.CharField(max_length=200, help_text="A task's name, or a queue's that has one task")
    payload = models.JSONField(
        default=dict, blank=True, help_text="An object; checked against the task's model"
    )
    queue = models.CharField(max_length=100, blank=True, help_text="Empty: the task's")
    priority = models.PositiveSmallIntegerField(default=Priority.NORMAL.value, help_text="0 to 9")
    tenant = models.CharField(max_length=64, blank=True)
    cron = models.CharField(
        max_length=LONGEST_EXPRESSION, blank=True, help_text="minute hour day month weekday; or an interval"
    )
    interval_s = models.PositiveIntegerField(
        "interval (s)", null=True, blank=True, help_text="Seconds between two moments; or cron"
    )
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Of the cron expression")
    missed = models.CharField(
        "missed runs",
        max_length=4,
        choices=[(policy, policy) for policy in _MISSED],
        default=Missed.LAST.value,
        help_text="What nobody fired in time: skip it, fire the last, or all within the window",
    )
    window_s = models.PositiveIntegerField(
        "window (s)", default=86_400, help_text="Missed runs older than this never fire; of the policy `all`"
    )
    overlap = models.CharField(
        max_length=7,
        choices=[(policy, policy) for policy in _OVERLAP],
        default=Overlap.ALLOW.value,
        help_text="While the last one's job is not over: run beside it, skip, wait for its end (one moment does), or "
        "cancel it and run then",
    )
    paused = models.BooleanField(default=False)
    starts_at = models.DateTimeField(editable=False, help_text="From where an interval counts")
    next_at = models.DateTimeField(
        "next", null=True, editable=False, help_text="The next moment to fire; empty: never"
    )
    last_at = models.DateTimeField("last", null=True, editable=False, help_text="The last moment that fired")
    last_job = models.UUIDField(null=True, editable=False)
    waits_at = models.DateTimeField(
        "waits", null=True, editable=False, help_text="The moment that waits for the last job's end"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        indexes = [models.Index(fields=["paused", "next_at"], name="schedule_due")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(cron="", interval_s__gte=1)
                | (~models.Q(cron="") & models.Q(interval_s=None)),
                name="schedule_cron_or_interval",
            ),
            models.CheckConstraint(
                condition=models.Q(priority__gte=LOWEST, priority__lte=HIGHEST),
                name="schedule_priority_0_to_9",
            ),
            models.CheckConstraint(
                condition=models.Q(missed__in=_MISSED, overlap__in=_OVERLAP),
                name="schedule_known_policies",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Firing(models.Model):
    """One moment of a schedule and what became of it, written in the transaction of its job."""

    class Outcome(models.TextChoices):
        FIRED = "fired"
        OVERLAPPED = "overlapped"  # the last one's job was not over
        WAITING = "waiting"  # for the last one's job to be over
        MISSED = "missed"
        REFUSED = (
            "refused"  # its job could not be stored: the task is gone, the payload does not fit any more
        )

    class Cause(models.TextChoices):
        CLOCK = "clock"
        HAND = "hand"  # run now
        BACKFILL = "backfill"

    schedule = models.ForeignKey(Schedule, models.CASCADE, related_name="firings")
    due_at = models.DateTimeField()
    at = models.DateTimeField(help_text="When that was written, by the database's clock")
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    cause = models.CharField(max_length=8, choices=Cause.choices, default=Cause.CLOCK)
    job = models.UUIDField(null=True)  # no foreign key: jobs are pruned by their queues' retention
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-due_at"]
        indexes = [models.Index(fields=["at"], name="firing_at")]
        constraints = [
            # What makes any number of schedulers fire once.
            models.UniqueConstraint(fields=["schedule", "due_at"], name="firing_once")
        ]

    def __str__(self) -> str:
        return f"{self.outcome} for {self.due_at:%Y-%m-%d %H:%M:%S}"
