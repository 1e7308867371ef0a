"""The ledger's tables. A job's row is the truth about it; only ledger.py moves it from state to state."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from .composition import Counts, Kind, Role, Status, status
from .recurrence import LONGEST_EXPRESSION, Missed, Overlap
from .states import HIGHEST, LOWEST, NEVER, Asked, Priority, State, Turn


class Delivery(models.TextChoices):
    """How a job reaches a worker: its row claims it (ledger), or the broker's message carries it (broker)."""

    LEDGER = "ledger"
    BROKER = "broker"


_STATES = [(state.value, state.value) for state in State]
_KNOWN_STATES = [state.value for state in State]
_MISSED = [policy.value for policy in Missed]
_OVERLAP = [policy.value for policy in Overlap]


def _limits_fit(*prefixes: str) -> models.Q:
    """None of them below 1, and a rate has its period."""
    fits = models.Q()
    for prefix in prefixes:
        count, period, burst = f"{prefix}rate_count", f"{prefix}rate_period_s", f"{prefix}rate_burst"
        none = models.Q(**{f"{count}__isnull": True, f"{period}__isnull": True, f"{burst}__isnull": True})
        # A condition that is NULL passes: both have to be there.
        both = {f"{count}__isnull": False, f"{period}__isnull": False}
        rate = models.Q(**{**both, f"{count}__gte": 1, f"{period}__gt": 0})
        no_burst = models.Q(**{f"{burst}__isnull": True})
        fits &= none | (rate & (no_burst | models.Q(**{f"{burst}__gte": 1})))
    return fits


def _none_or_positive(*names: str) -> models.Q:
    fits = models.Q()
    for name in names:
        fits &= models.Q(**{f"{name}__isnull": True}) | models.Q(**{f"{name}__gte": 1})
    return fits


class Queue(models.Model):
    """The policy of a queue; an empty field takes the default of BRAIN["QUEUE"], an empty limit is none."""

    name = models.CharField(max_length=100, primary_key=True)
    delivery = models.CharField(
        max_length=6,
        choices=Delivery.choices,
        blank=True,
        help_text="Wins over the caller's way; empty: enqueue() takes the ledger, .delay() the broker",
    )
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
    soft_time_limit_s = models.FloatField(
        "soft time limit (s)",
        null=True,
        blank=True,
        help_text="SoftTimeLimitExceeded is raised in the run; empty: none",
    )
    time_limit_s = models.FloatField(
        "time limit (s)", null=True, blank=True, help_text="The run is ended; empty: the default"
    )
    retention_s = models.FloatField(
        "retention (s)", null=True, blank=True, help_text="Of completed jobs; empty: the default"
    )
    dead_retention_s = models.FloatField(
        "dead letters' retention (s)",
        null=True,
        blank=True,
        help_text="Of dead letters; empty: the default",
    )
    paused = models.BooleanField(default=False, help_text="Jobs are accepted, workers take none")
    is_fair = models.BooleanField(
        "fair", default=False, db_default=False, help_text="Tenants take turns, by their weights"
    )
    max_concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Jobs that run at once, over all workers; empty: no limit"
    )
    rate_count = models.PositiveIntegerField(
        "rate: jobs", null=True, blank=True, help_text="That start in each period; empty: no limit"
    )
    rate_period_s = models.FloatField("rate: period (s)", null=True, blank=True)
    rate_burst = models.PositiveIntegerField(
        "rate: burst",
        null=True,
        blank=True,
        help_text="That may start at once; empty: those of 0.1 s, 1 at least",
    )
    tenant_concurrency = models.PositiveIntegerField(
        "concurrency of each tenant", null=True, blank=True, help_text="As above; empty: no limit"
    )
    tenant_rate_count = models.PositiveIntegerField("rate of each tenant: jobs", null=True, blank=True)
    tenant_rate_period_s = models.FloatField("rate of each tenant: period (s)", null=True, blank=True)
    tenant_rate_burst = models.PositiveIntegerField("rate of each tenant: burst", null=True, blank=True)
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
            models.CheckConstraint(
                condition=models.Q(delivery__in=["", *Delivery.values]),
                name="queue_known_delivery",
            ),
            models.CheckConstraint(
                condition=(
                    (models.Q(soft_time_limit_s__isnull=True) | models.Q(soft_time_limit_s__gt=0))
                    & (models.Q(time_limit_s__isnull=True) | models.Q(time_limit_s__gt=0))
                    & (models.Q(retention_s__isnull=True) | models.Q(retention_s__gte=0))
                ),
                name="queue_limits_are_positive",
            ),
            models.CheckConstraint(
                condition=models.Q(dead_retention_s__isnull=True) | models.Q(dead_retention_s__gte=0),
                name="queue_dead_retention_not_negative",
            ),
            models.CheckConstraint(
                condition=_none_or_positive("max_concurrency", "tenant_concurrency"),
                name="queue_concurrency_at_least_1",
            ),
            models.CheckConstraint(condition=_limits_fit("", "tenant_"), name="queue_rates_are_whole"),
        ]

    def __str__(self) -> str:
        return self.name


class Tenant(models.Model):
    """A tenant of a queue with limits: what differs from the others', and how far its turns have come.

    tenants.py writes the first part, the governor the second.
    """

    queue = models.ForeignKey(Queue, models.CASCADE, related_name="tenants")
    name = models.CharField(max_length=64, blank=True)
    weight = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Turns in each round, 1 to 1000; empty: 1"
    )
    max_concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Jobs that run at once; empty: as each tenant of the queue"
    )
    rate_count = models.PositiveIntegerField(
        "rate: jobs", null=True, blank=True, help_text="In each period; empty: as each tenant of the queue"
    )
    rate_period_s = models.FloatField("rate: period (s)", null=True, blank=True)
    rate_burst = models.PositiveIntegerField("rate: burst", null=True, blank=True)
    position = models.FloatField(default=0, db_default=0, editable=False)  # see fairness.py
    rate_used_to_s = models.FloatField(null=True, editable=False)  # see limiting.py
    unstarted = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    seen_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["queue", "name"]
        constraints = [
            models.UniqueConstraint(fields=["queue", "name"], name="tenant_once"),
            models.CheckConstraint(
                condition=models.Q(weight__isnull=True) | models.Q(weight__gte=1, weight__lte=1000),
                name="tenant_weight_1_to_1000",
            ),
            models.CheckConstraint(
                condition=_none_or_positive("max_concurrency"), name="tenant_concurrency_at_least_1"
            ),
            models.CheckConstraint(condition=_limits_fit(""), name="tenant_rate_is_whole"),
        ]

    def __str__(self) -> str:
        return f"{self.name or '(none)'} of {self.queue_id}"


class Turns(models.Model):
    """How far the turns of a queue with limits have come. Whoever holds its row's lock hands them out; see governor.py."""

    queue = models.CharField(max_length=100, primary_key=True)
    position = models.FloatField(default=0)  # see fairness.py
    rate_used_to_s = models.FloatField(null=True)  # see limiting.py
    unstarted = models.PositiveIntegerField(default=0)
    held = models.PositiveIntegerField(default=0)  # jobs with a turn, after the last look that gave any
    pace = models.FloatField(default=0)  # ends per second
    looked_at_s = models.FloatField(default=0)

    def __str__(self) -> str:
        return f"turns of {self.queue}"


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
            models.Index(
                fields=["fingerprint", "id"],
                name="job_dead",
                condition=models.Q(state=State.DEAD_LETTER.value),
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


class Blob(models.Model):
    """A payload that is too large for its job's row. Only offload.py reads and writes it."""

    job = models.OneToOneField(
        Job, models.CASCADE, primary_key=True, related_name="blob", db_constraint=False
    )
    body = models.BinaryField()  # JSON text, compressed by zlib
    size_bytes = models.PositiveIntegerField()  # of the text

    def __str__(self) -> str:
        return f"{self.size_bytes:,} bytes of job {self.job_id}"


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


class Worker(models.Model):
    """A worker process. It is alive while its lease lasts; every job it holds hangs on this one lease."""

    id = models.UUIDField(primary_key=True, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField("PID")
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
        max_length=5,
        choices=[(policy, policy) for policy in _OVERLAP],
        default=Overlap.ALLOW.value,
        help_text="While the last one's job is not over: run beside it, or skip",
    )
    paused = models.BooleanField(default=False)
    starts_at = models.DateTimeField(editable=False, help_text="From where an interval counts")
    next_at = models.DateTimeField(
        "next", null=True, editable=False, help_text="The next moment to fire; empty: never"
    )
    last_at = models.DateTimeField("last", null=True, editable=False, help_text="The last moment that fired")
    last_job = models.UUIDField(null=True, editable=False)
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
