"""The version that every change counts up, and what each change did."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Configuration(models.Model):
    """One row: the version, and what holds for the whole gateway."""

    # Not an automatic one: MariaDB takes no CHECK over a column that it numbers itself.
    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    version = models.PositiveBigIntegerField(default=0)
    api_key_header = models.CharField(
        max_length=64,
        default="X-API-Key",
        validators=[RegexValidator(r"^[A-Za-z0-9-]+\Z", "A header's name.")],
    )
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(id=1), name="gateway_configuration_is_one_row"),)

    def __str__(self) -> str:
        return f"version {self.version}"


class Revision(models.Model):
    """One change. changes: [{"kind", "name", "before", "after"}], whole entries; null where there was or is none."""

    version = models.PositiveBigIntegerField(primary_key=True)
    made_at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=150)
    source = models.CharField(max_length=20)
    changes = models.JSONField(default=list)

    class Meta:
        ordering = ("-version",)

    def __str__(self) -> str:
        return f"version {self.version}"
