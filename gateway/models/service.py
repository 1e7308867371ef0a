"""Services: processes that do the same, how requests are spread over them, and how much failure is borne."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from gateway.balancer import STRATEGIES
from gateway.reading import LARGEST

from . import checks

STATES = ("active", "draining", "off")
_DAY_S, _YEAR_S = 86_400, 31_536_000


def _seconds(default: float, help_text: str, label: str | None = None, *, low: float = 0.01) -> Any:
    return models.FloatField(
        label,
        default=default,
        validators=[MinValueValidator(low), MaxValueValidator(_DAY_S)],
        help_text=help_text,
    )


def _share(default: float, help_text: str) -> Any:
    return models.FloatField(
        default=default, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)], help_text=help_text
    )


def _count(default: int, help_text: str, *, low: int = 1) -> Any:
    return models.PositiveIntegerField(
        default=default, validators=[MinValueValidator(low), MaxValueValidator(LARGEST)], help_text=help_text
    )


class Service(models.Model):
    name = models.CharField(max_length=100, unique=True, validators=[checks.name])
    strategy = models.CharField(max_length=20, default="round_robin", choices=[(s, s) for s in STRATEGIES])
    hash_on = models.CharField(
        max_length=100,
        blank=True,
        default="",
        help_text="Of consistent_hash: ip, header:NAME or cookie:NAME.",
    )
    # --- time
    connect_timeout_s = _seconds(2.0, "Seconds to dial a target.")
    response_timeout_s = _seconds(30.0, "Seconds until the head of its response is there.")
    idle_timeout_s = _seconds(30.0, "Seconds between two pieces of a body.")
    total_timeout_s = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.05), MaxValueValidator(_DAY_S)],
        help_text="Seconds for a request with all its tries. Empty: no limit.",
    )
    # --- breaker, for each target
    breaker_window_s = _seconds(10.0, "Seconds that are looked back on.", low=1.0)
    breaker_volume = _count(20, "Requests in the window before it is judged.")
    breaker_failure_ratio = _share(0.5, "Of the requests in the window; 0: never opens for failures.")
    breaker_slow_s = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.001), MaxValueValidator(_DAY_S)],
        help_text="Slower is slow. Empty: nothing is.",
    )
    breaker_slow_ratio = _share(0.8, "Of the requests in the window that may be slow.")
    breaker_open_s = _seconds(5.0, "Seconds until the first probe; doubled each time, with jitter.", low=0.1)
    breaker_open_max_s = _seconds(60.0, "The longest such time.", low=0.1)
    breaker_probes = _count(3, "Requests at once while it is half open, and successes that close it.")
    # --- retries
    retries = models.PositiveIntegerField(
        default=2,
        validators=[MaxValueValidator(10)],
        help_text="Further tries of one request, on other targets.",
    )
    retry_budget_ratio = _share(0.2, "Of the requests under way that may be retries.")
    retry_budget_min = _count(3, "Retries that are always allowed at once.", low=0)
    # --- health
    health_enabled = models.BooleanField(default=True)
    health_path = models.CharField(
        max_length=200, blank=True, default="", help_text="Asked by GET. Empty: a connection is enough."
    )
    health_statuses = models.CharField(max_length=100, default="200-399")
    health_interval_s = _seconds(5.0, "Seconds between two probes of a target.")
    health_timeout_s = _seconds(2.0, "Seconds for one probe.")
    healthy_after = _count(2, "Good probes in a row.")
    unhealthy_after = _count(3, "Bad probes in a row.")
    eject_after = _count(5, "Failed requests in a row that take a target out; 0: never.", low=0)
    eject_s = _seconds(30.0, "Seconds, times how often it was taken out before.", low=0.1)
    eject_most_percent = models.PositiveIntegerField(
        default=50, validators=[MaxValueValidator(100)], help_text="Of the targets; one always stays."
    )
    slow_start_s = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(_DAY_S)],
        help_text="Seconds until a target that came back takes its whole share.",
    )
    # --- TLS
    tls_ca = models.TextField(
        "TLS: CA", blank=True, default="", help_text="PEM of the authorities to trust. Empty: the system's."
    )
    tls_server_name = models.CharField(
        "TLS: server name", max_length=255, blank=True, default="", help_text="Empty: the target's host."
    )
    # --- when nothing is left
    fallback_status = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(200), MaxValueValidator(599)],
        help_text="Of a static answer when no target is left. Empty: 503.",
    )
    fallback_type = models.CharField(max_length=100, blank=True, default="application/json")
    fallback_body = models.TextField(blank=True, default="")
    stale_s = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(_YEAR_S)],
        help_text="Seconds that a good answer to GET may be given again when no target is left. 0: never.",
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(strategy__in=STRATEGIES), name="gateway_service_strategy_known"
            ),
            *(
                models.CheckConstraint(condition=Q(**{f"{field}__gt": 0}), name=f"gateway_service_{field}_positive")
                for field in (
                    "connect_timeout_s", "response_timeout_s", "idle_timeout_s",
                    "breaker_window_s", "breaker_open_s", "health_interval_s", "health_timeout_s",
                )
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{field}__gte": 0}) & Q(**{f"{field}__lte": 1}),
                    name=f"gateway_service_{field}_is_a_share",
                )
                for field in ("breaker_failure_ratio", "breaker_slow_ratio", "retry_budget_ratio")
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{field}__isnull": True}) | Q(**{f"{field}__gt": 0}),
                    name=f"gateway_service_{field}_positive",
                )
                for field in ("total_timeout_s", "breaker_slow_s")
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{field}__gte": least}), name=f"gateway_service_{field}_at_least_{least}"
                )
                for field, least in (
                    ("breaker_volume", 1), ("breaker_probes", 1), ("healthy_after", 1), ("unhealthy_after", 1),
                    ("slow_start_s", 0), ("stale_s", 0),
                )
            ),
            models.CheckConstraint(
                condition=Q(breaker_open_max_s__gte=F("breaker_open_s")), name="gateway_service_breaker_opens_longer"
            ),
            models.CheckConstraint(condition=Q(retries__lte=10), name="gateway_service_retries_at_most_10"),
            models.CheckConstraint(
                condition=Q(eject_most_percent__lte=100), name="gateway_service_eject_most_percent_is_one"
            ),
            models.CheckConstraint(
                condition=Q(fallback_status__isnull=True)
                | (Q(fallback_status__gte=200) & Q(fallback_status__lte=599)),
                name="gateway_service_fallback_status_is_final",
            ),
        )  # fmt: skip

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        checks.run({
            "hash_on": (checks.hash_on, self.hash_on),
            "health_path": (checks.health_path, self.health_path),
            "health_statuses": (checks.statuses, self.health_statuses),
            "tls_ca": (checks.authorities, self.tls_ca),
            "tls_server_name": (checks.server_name, self.tls_server_name),
            "fallback_type": (checks.header_value, self.fallback_type),
        })  # fmt: skip
        if self.strategy == "consistent_hash" and not self.hash_on:
            raise ValidationError({"hash_on": "consistent_hash needs to know what to hash."})
        if self.breaker_open_max_s < self.breaker_open_s:
            raise ValidationError({"breaker_open_max_s": "The longest time is shorter than the first."})


class Target(models.Model):
    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="targets")
    url = models.CharField(max_length=255, help_text="http://host:port, https://host:port or unix:/path")
    weight = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    state = models.CharField(
        max_length=8,
        default="active",
        choices=[(state, state) for state in STATES],
        help_text="draining: no new requests but those under way end; off: as if it were not there.",
    )

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=("service", "url"), name="gateway_target_once_per_service"),
            models.CheckConstraint(
                condition=Q(url__startswith="http://")
                | Q(url__startswith="https://")
                | Q(url__startswith="unix:"),
                name="gateway_target_scheme_known",
            ),
            models.CheckConstraint(condition=Q(state__in=STATES), name="gateway_target_state_known"),
            models.CheckConstraint(condition=Q(weight__gte=1), name="gateway_target_weight_positive"),
        )

    def __str__(self) -> str:
        return self.url

    def clean(self) -> None:
        checks.run({"url": (lambda url: checks.target(url, is_used=self.state != "off"), self.url)})
