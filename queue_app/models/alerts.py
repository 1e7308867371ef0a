"""What is watched, what fires or has fired, who keeps quiet about it, and the notices that are sent."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from queue_app.alerts import Condition, State

_CONDITIONS = [condition.value for condition in Condition]
_STATES = [state.value for state in State]


class AlertRule(models.Model):
    """When an alert fires; see alerts.py. Only alert_rules.py writes it."""

    name = models.CharField(max_length=100, unique=True)
    condition = models.CharField(max_length=9, choices=[(name, name) for name in _CONDITIONS])
    queue = models.CharField(
        max_length=100,
        blank=True,
        help_text="Empty: every queue that no other rule of this condition names",
    )
    threshold = models.FloatField(
        help_text="Fires at or above: seconds of latency, no_worker, schedule and recorder; a share of failures, 0.5 "
        "for half; a count of new_dead and dead"
    )
    window_s = models.PositiveIntegerField(
        "window (s)", default=600, help_text="Looked back on; of failures and new_dead"
    )
    at_least = models.PositiveIntegerField(
        default=1, help_text="Runs in the window, or their share says nothing; of failures"
    )
    for_s = models.PositiveIntegerField(
        "for (s)", default=60, help_text="It has held this long before it fires"
    )
    clear_s = models.PositiveIntegerField(
        "clear (s)", default=60, help_text="It has been below this long before it is resolved"
    )
    repeat_s = models.PositiveIntegerField(
        "repeat (s)", default=14_400, help_text="Between two reminders while it fires; 0: none"
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(condition__in=_CONDITIONS), name="alert_rule_known_condition"
            ),
            models.CheckConstraint(
                condition=models.Q(threshold__gt=0)
                & (~models.Q(condition=Condition.FAILURES.value) | models.Q(threshold__lte=1)),
                name="alert_rule_threshold_fits",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """One time that a rule's condition held for a subject, from its beginning to its end. Only alerting.py writes it."""

    rule = models.ForeignKey(AlertRule, models.SET_NULL, null=True, related_name="alerts")
    name = models.CharField("rule's name", max_length=100)
    condition = models.CharField(max_length=9)
    queue = models.CharField(max_length=100, blank=True)
    state = models.CharField(max_length=8, choices=[(name, name) for name in _STATES])
    value = models.FloatField(help_text="At the last look")
    words = models.CharField("what", max_length=300, blank=True)
    since = models.DateTimeField(help_text="When its condition began to hold")
    fired_at = models.DateTimeField("fired", null=True)
    calm_since = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField("resolved", null=True)
    told_at = models.DateTimeField(
        "last notice", null=True, help_text="When the last notice that it fires was written"
    )
    notices = models.PositiveIntegerField(default=0)
    # What makes any number of evaluators one alert; no more than that once it is over.
    open_key = models.CharField(max_length=64, null=True, unique=True, editable=False)  # noqa: DJ001

    class Meta:
        ordering = ["state", "-id"]  # firing, pending, resolved
        indexes = [
            models.Index(fields=["state", "-id"], name="alert_by_state"),
            models.Index(fields=["resolved_at"], name="alert_resolved"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=_STATES), name="alert_known_state"),
            models.CheckConstraint(
                condition=models.Q(state=State.RESOLVED.value, open_key__isnull=True)
                | (~models.Q(state=State.RESOLVED.value) & models.Q(open_key__isnull=False)),
                name="alert_open_has_its_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}{': ' + self.queue if self.queue else ''}"


class Silence(models.Model):
    """Nobody is told of what fires until then. Only silences.py writes it."""

    rule = models.ForeignKey(AlertRule, models.CASCADE, null=True, related_name="silences")
    queue = models.CharField(max_length=100, blank=True)
    until = models.DateTimeField(db_index=True)
    reason = models.CharField(max_length=200)
    actor = models.CharField("by", max_length=150)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-until", "-id"]

    def __str__(self) -> str:
        return f"{self.rule or 'every rule'}, {self.queue or 'every queue'}"


class Notice(models.Model):
    """A message to one channel, written in the transaction of what it tells of. Only notices.py sends and changes it."""

    id = models.UUIDField(primary_key=True, editable=False)  # the receiver's idempotency key
    channel = models.CharField(max_length=100)
    body = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(
        "next attempt", null=True, db_index=True, help_text="Empty: it is sent, or given up"
    )
    taken_until = models.DateTimeField(null=True, help_text="Somebody is sending it")
    sent_at = models.DateTimeField("sent", null=True)
    last_error = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-id"]

    @property
    def status(self) -> str:
        if self.sent_at:
            return "sent"
        return "waits" if self.next_at else "given up"

    def __str__(self) -> str:
        return f"to {self.channel} at {self.created_at:%Y-%m-%d %H:%M:%S}"
