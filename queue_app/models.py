"""The ledger's tables. A job's row is the truth about it; only ledger.py moves it from state to state."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .states import HIGHEST, LOWEST, State

_STATES = [(state.value, state.value) for state in State]
_KNOWN_STATES = [state.value for state in State]


class Queue(models.Model):
    """The policy of a queue; an empty field takes the default of BRAIN["QUEUE"]."""

    name = models.CharField(max_length=100, primary_key=True)
    max_retries = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Runs after the first one; empty: the default"
    )
    backoff_base_s = models.FloatField(
        "back-off base (s)",
        null=True,
        blank=True,
        help_text="Longest wait before the first retry; empty: the default",
    )
    backoff_max_s = models.FloatField(
        "back-off maximum (s)", null=True, blank=True, help_text="Longest wait of all; empty: the default"
    )
    paused = models.BooleanField(default=False, help_text="Jobs are accepted, workers take none")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(max_retries__isnull=True) | models.Q(max_retries__lte=100),
                name="queue_max_retries_at_most_100",
            ),
            models.CheckConstraint(
                condition=models.Q(backoff_base_s__isnull=True) | models.Q(backoff_base_s__gte=0),
                name="queue_backoff_base_not_negative",
            ),
            models.CheckConstraint(
                condition=models.Q(backoff_max_s__isnull=True) | models.Q(backoff_max_s__gte=0),
                name="queue_backoff_max_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Job(models.Model):
    """One piece of work. attempt: runs that ended; crash_count: runs that ended with their worker.

    fence grows with every claim: a finish that carries an older one changes nothing.
    """

    id = models.UUIDField(primary_key=True, editable=False)  # uuid7: sorts by time
    name = models.CharField("task", max_length=200)
    queue = models.CharField(max_length=100)  # no foreign key: the record outlives the queue's policy
    priority = models.PositiveSmallIntegerField()
    payload = models.JSONField()
    state = models.CharField(max_length=12, choices=_STATES, default=State.PENDING.value)
    attempt = models.PositiveIntegerField(default=0)
    crash_count = models.PositiveIntegerField(default=0)
    max_attempts = models.PositiveIntegerField()
    run_after = models.DateTimeField(null=True, help_text="Not before; empty: at once")
    published_at = models.DateTimeField(null=True, help_text="When the broker was last told; empty: not yet")
    owner = models.UUIDField(null=True, help_text="The worker of the last run")
    fence = models.PositiveIntegerField(default=0)
    request_id = models.CharField(max_length=128, blank=True)
    result = models.JSONField(null=True)
    last_error = models.JSONField(null=True, help_text="type, message, traceback")
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=_KNOWN_STATES), name="job_known_state"),
            models.CheckConstraint(
                condition=models.Q(priority__gte=LOWEST, priority__lte=HIGHEST), name="job_priority_0_to_9"
            ),
            models.CheckConstraint(condition=models.Q(max_attempts__gte=1), name="job_max_attempts_positive"),
        ]
        indexes = [
            models.Index(fields=["state", "published_at", "run_after"], name="job_due"),
            models.Index(fields=["state", "owner"], name="job_owned"),
            models.Index(fields=["queue", "state"], name="job_queue_state"),
            models.Index(fields=["request_id"], name="job_request"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"


class JobEvent(models.Model):
    """One step in the life of a job, written in the transaction of that step and never changed."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="events")
    from_state = models.CharField(max_length=12, choices=_STATES, blank=True)  # empty: the job was made
    to_state = models.CharField(max_length=12, choices=_STATES)
    at = models.DateTimeField(default=timezone.now)
    worker = models.UUIDField(null=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(to_state__in=_KNOWN_STATES, from_state__in=["", *_KNOWN_STATES]),
                name="job_event_known_states",
            )
        ]

    def __str__(self) -> str:
        return f"{self.from_state or 'new'} → {self.to_state}"


class Worker(models.Model):
    """A worker process. It is alive while its lease lasts; every job it holds hangs on this one lease."""

    id = models.UUIDField(primary_key=True, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField("PID")
    pool = models.CharField(max_length=50)
    concurrency = models.PositiveIntegerField()
    queues = models.JSONField(default=list, help_text="What it consumes now")
    started_at = models.DateTimeField(default=timezone.now)
    last_seen_at = models.DateTimeField()
    lease_until = models.DateTimeField(db_index=True)
    stopped_at = models.DateTimeField(null=True, help_text="Ended in order")

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
