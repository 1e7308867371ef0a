"""The audit log's table. Rows are written by `audit.record` alone and never change."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone


class AppendOnly(TypeError):
    """An audit entry is written once: it can be neither changed nor deleted."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class AuditEntries(models.QuerySet["AuditEntry"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnly

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly

    def delete(self) -> NoReturn:
        raise AppendOnly

    def bulk_create(self, objs: Iterable[AuditEntry], *args: Any, **kwargs: Any) -> list[AuditEntry]:
        if kwargs.get("update_conflicts"):
            raise AppendOnly
        return super().bulk_create(objs, *args, **kwargs)

    def expire(self, before: datetime) -> int:
        """Drop the entries made before `before`. For `audit.prune` alone, which leaves a trace of it."""
        return self.filter(created_at__lt=before)._raw_delete(self.db)


class AuditEntry(models.Model):
    """Who did what to what, when, from where. Text instead of foreign keys: the row outlives what it names."""

    class Source(models.TextChoices):
        ADMIN = "admin"
        API = "api"
        CLI = "cli"
        SYSTEM = "system"

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.CharField(max_length=150, help_text="Username, consumer or process")
    actor_id = models.CharField(max_length=64, blank=True, help_text="Id of the user, if it was one")
    action = models.CharField(max_length=100, help_text="noun.verb, such as job.replay")
    target_label = models.CharField(max_length=100, help_text="app.Model, or another kind of thing")
    target_id = models.CharField(max_length=255, blank=True)
    before = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    after = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    request_id = models.CharField(max_length=128, blank=True)
    ip = models.GenericIPAddressField("IP address", null=True)
    source = models.CharField(max_length=10, choices=Source)

    objects = AuditEntries.as_manager()

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="audit_newest"),
            models.Index(fields=["target_label", "target_id"], name="audit_target"),
            models.Index(fields=["actor", "created_at"], name="audit_actor"),
            models.Index(fields=["action", "created_at"], name="audit_action"),
            models.Index(fields=["request_id"], name="audit_request"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(source__in=["admin", "api", "cli", "system"]), name="audit_known_source"
            )
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"

    @property
    def target(self) -> str:
        return f"{self.target_label}:{self.target_id}" if self.target_id else self.target_label

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        # A row with a chosen id would otherwise be tried as an UPDATE first.
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly
