"""Jobs, what happened to them, and payloads too large for a row. Who moves a job: docs/ledger.md."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property

from queue_app.states import HIGHEST, LOWEST, NEVER, OVER, State, Turn

from .queues import Delivery

_STATES = [(state.value, state.value) for state in State]
_KNOWN_STATES = [state.value for state in State]
_IS_OVER = models.Q(state__in=[state.value for state in OVER])


class Job(models.Model):
    """One piece of work. attempt: runs that ended; crash_count: runs that ended with their worker.

    fence grows with every claim: a finish that carries an older one changes nothing.
    """

    id = models.UUIDField(primary_key=True, editable=False)  # uuid7: sorts by time
    name = models.CharField("task", max_length=200)
    queue = models.CharField(max_length=100)  # no foreign key: the record outlives the queue's policy
    delivery = models.CharField(
        max_length=6, choices=Delivery.choices, default=Delivery.LEDGER, editable=False
    )
    tenant = models.CharField(max_length=64, blank=True)
    priority = models.PositiveSmallIntegerField()
    payload = models.JSONField()  # null in JSON: too large for a row, see Blob
    state = models.CharField(max_length=12, choices=_STATES, default=State.PENDING.value)
    attempt = models.PositiveIntegerField(default=0)
    crash_count = models.PositiveIntegerField(default=0)
    max_attempts = models.PositiveIntegerField()
    run_after = models.DateTimeField(null=True, help_text="Not before; empty: at once")
    expires_at = models.DateTimeField(null=True, help_text="Not started after this; empty: never expires")
    published_at = models.DateTimeField(null=True, help_text="When the broker was last told; empty: not yet")
    owner = models.UUIDField(null=True, help_text="The worker of the last run")
    fence = models.PositiveIntegerField(default=0)
    turn = models.PositiveSmallIntegerField(
        choices=[(turn.value, turn.name.lower()) for turn in Turn], default=0, db_default=0, editable=False
    )
    suspect = models.BooleanField(default=False, help_text="Was with a worker that died: runs one at a time")
    is_marked = models.BooleanField(default=False, help_text="A suspect whose start is on record")
    cancel_requested = models.BooleanField(default=False)
    cancel_forced = models.BooleanField(
        default=False, db_default=False, help_text="Do not wait for the run to notice"
    )
    # Unique while it is set; NULLs do not collide on any database. Cleared when the job is over, or when it is taken
    # over by a newer job after unique_until.
    unique_key = models.CharField(max_length=200, null=True, unique=True)  # noqa: DJ001
    unique_until = models.DateTimeField(null=True, help_text="The key stays taken until then, over or not")
    parent = models.UUIDField(null=True, help_text="The job that enqueued it")
    workflow = models.UUIDField(
        null=True, editable=False, help_text="That it is a part of; its place: Member"
    )
    request_id = models.CharField(max_length=128, blank=True)
    progress = models.FloatField(null=True, help_text="0 to 1, as the run last told")
    progress_note = models.CharField(max_length=200, blank=True)
    result = models.JSONField(null=True)
    last_error = models.JSONField(null=True, help_text="type, message, traceback")
    fingerprint = models.CharField(
        max_length=16,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="Of the error that made it a dead letter",
    )
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    is_duplicate = False  # of what `enqueue(unique=…)` returns: this job holds the key already, none was made

    class Meta:
        # Partial, so that a finished row leaves them; MySQL has none of that kind and gets whole ones in the migration.
        indexes = [
            models.Index(  # without those that wait for their turn: the reconciler has nothing to do with them
                fields=["published_at", "run_after"],
                name="job_waiting",
                condition=models.Q(state__in=[State.PENDING.value, State.FAILED.value], turn__in=[0, 1, 3]),
            ),
            models.Index(
                fields=["turn", "queue", "tenant", "-priority", "id"],
                name="job_turn",
                condition=~models.Q(turn=0),
            ),
            models.Index(
                fields=["owner"], name="job_running", condition=models.Q(state=State.PROCESSING.value)
            ),
            models.Index(
                fields=["queue", "state"],
                name="job_open",
                condition=~models.Q(state__in=[State.COMPLETED.value, State.CANCELLED.value]),
            ),
            models.Index(  # all that the groups of the desk are made of: the rows themselves lie apart
                fields=["fingerprint", "id", "name", "queue", "finished_at"],
                name="job_dead",
                condition=models.Q(state=State.DEAD_LETTER.value),
            ),
            # For lists and bulk actions: by what they find jobs that are over, in the order of the lists. A job enters them
            # once, at its end; whole indexes would be written at each of its steps. Open jobs are found by `job_open`.
            models.Index(fields=["queue", "id"], name="job_over_queue", condition=_IS_OVER),
            models.Index(fields=["name", "id"], name="job_over_task", condition=_IS_OVER),
            models.Index(fields=["owner", "id"], name="job_over_worker", condition=_IS_OVER),
            models.Index(
                fields=["tenant", "id"], name="job_over_tenant", condition=_IS_OVER & ~models.Q(tenant="")
            ),
            models.Index(
                fields=["state", "id"],
                name="job_in_state",
                condition=models.Q(state__in=[State.DEAD_LETTER.value, State.CANCELLED.value]),
            ),
            models.Index(fields=["request_id"], name="job_requested", condition=~models.Q(request_id="")),
            models.Index(fields=["parent"], name="job_child", condition=models.Q(parent__isnull=False)),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=_KNOWN_STATES), name="job_known_state"),
            models.CheckConstraint(
                condition=models.Q(priority__gte=LOWEST, priority__lte=HIGHEST), name="job_priority_0_to_9"
            ),
            models.CheckConstraint(condition=models.Q(max_attempts__gte=1), name="job_max_attempts_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The words that it was given to be found by. A query, where they were not prefetched (`tag_rows`)."""
        return tuple(sorted(row.name for row in self.tag_rows.all()))

    @property
    def is_held(self) -> bool:
        """Whether it waits for other jobs of its workflow, and no worker may have it."""
        return self.state == State.PENDING and self.run_after == NEVER


class JobEvent(models.Model):
    """One step in the life of a job, written in the transaction of that step and never changed."""

    # No constraint in the database: only the ledger writes here, in the transaction of the job's own row.
    job = models.ForeignKey(Job, models.CASCADE, related_name="events", db_constraint=False)
    state = models.CharField(max_length=12, choices=_STATES)  # the one it went to
    at = models.DateTimeField(default=timezone.now)
    worker = models.UUIDField(null=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=_KNOWN_STATES), name="job_event_known_state")
        ]

    def __str__(self) -> str:
        return f"{self.state} at {self.at:%H:%M:%S}"


class Tag(models.Model):
    """A word that a job was given to be found by. Written with the job, by storing.py, and never changed."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="tag_rows", db_constraint=False)
    name = models.CharField(max_length=64)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "job"], name="tag_once")]

    def __str__(self) -> str:
        return self.name


class Blob(models.Model):
    """A payload that is too large for its job's row. Only offload.py reads and writes it."""

    job = models.OneToOneField(
        Job, models.CASCADE, primary_key=True, related_name="blob", db_constraint=False
    )
    body = models.BinaryField()  # JSON text, compressed by zlib
    size_bytes = models.PositiveIntegerField()  # of the text

    def __str__(self) -> str:
        return f"{self.size_bytes:,} bytes of job {self.job_id}"
