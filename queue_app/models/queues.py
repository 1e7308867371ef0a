"""The policy of queues and of their tenants, and how far their turns have come."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

_MOST_RETRIES = 100
_NOT_BELOW_0 = ("backoff_base_s", "backoff_max_s", "retention_s", "dead_retention_s")
_ABOVE_0 = ("soft_time_limit_s", "time_limit_s")


class Delivery(models.TextChoices):
    """How a job reaches a worker: its row claims it (ledger), or the broker's message carries it (broker)."""

    LEDGER = "ledger"
    BROKER = "broker"


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
                condition=models.Q(max_retries__isnull=True) | models.Q(max_retries__lte=_MOST_RETRIES),
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

    def clean(self) -> None:
        """What the constraints say, by its field: an error that names a constraint helps nobody."""
        values = {name: getattr(self, name) for name in (*_NOT_BELOW_0, *_ABOVE_0, "max_retries")}
        known = {name: value for name, value in values.items() if isinstance(value, int | float)}
        wrong = {name: "is below 0" for name in _NOT_BELOW_0 if known.get(name, 0) < 0}
        wrong |= {name: "is not above 0" for name in _ABOVE_0 if known.get(name, 1) <= 0}
        if known.get("max_retries", 0) > _MOST_RETRIES:
            wrong["max_retries"] = f"is above {_MOST_RETRIES}"
        if wrong:
            raise ValidationError(wrong)


class Tenant(models.Model):
    """A tenant of a queue with limits: what differs from the others', and how far its turns have come.

    tenants.py writes the first part, the governor the second.
    """

    queue = models.ForeignKey(Queue, models.CASCADE, related_name="tenants")
    name = models.CharField(max_length=64, blank=True)
    weight = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Turns in each round, 1 to 1000; empty: 1"
    )
    paused = models.BooleanField(null=True, blank=True, help_text="Its jobs wait; what runs goes on")
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
