"""Plans: how much a caller may ask for."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from gateway.reading import LARGEST

_POLICIES = ("local", "allow", "deny")
COUNTED_BY = ("caller", "key", "ip")


def _quota(help_text: str = "") -> models.PositiveIntegerField:
    return models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LARGEST)],
        help_text=help_text,
    )


class Plan(models.Model):
    """On a route the limits count per caller and route, on a consumer over all routes."""

    name = models.CharField(max_length=200, unique=True)
    requests_per_minute = _quota()
    requests_per_hour = _quota()
    burst_limit = _quota("At once, of the requests per minute.")
    counted_by = models.CharField(
        max_length=6,
        default="caller",
        choices=[(kind, kind) for kind in COUNTED_BY],
        help_text="caller: the consumer, or the address of one without credentials. key: each API key for itself.",
    )
    exact = models.BooleanField(
        default=False, help_text="Ask Redis for every request instead of spending tokens taken ahead."
    )
    on_store_down = models.CharField(
        max_length=5,
        blank=True,
        default="",
        choices=[("", "as the settings say"), *((policy, policy) for policy in _POLICIES)],
        help_text="When Redis does not answer.",
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{field}__isnull": True}) | Q(**{f"{field}__gte": 1}),
                    name=f"gateway_plan_{field}_positive",
                )
                for field in ("requests_per_minute", "requests_per_hour", "burst_limit")
            ),
            models.CheckConstraint(
                condition=Q(on_store_down__in=("", *_POLICIES)), name="gateway_plan_policy_known"
            ),
            models.CheckConstraint(
                condition=Q(counted_by__in=COUNTED_BY), name="gateway_plan_counted_by_known"
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.requests_per_minute is None and self.requests_per_hour is None:
            raise ValidationError("Give the requests per minute, per hour, or both.")
