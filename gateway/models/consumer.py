"""Consumers: programs that call with API keys."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from . import checks
from .plan import Plan


class Consumer(models.Model):
    name = models.CharField(max_length=150, unique=True)
    roles = models.JSONField(default=list, blank=True)
    scopes = models.JSONField(default=list, blank=True)
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="consumers")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        checks.run({"roles": (checks.known_roles, self.roles), "scopes": (checks.scopes, self.scopes)})


class ApiKey(models.Model):
    """digest: SHA-256 of the key, in hex; the key itself was shown once. prefix: empty for an imported key."""

    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="keys")
    prefix = models.CharField(max_length=16, blank=True, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.JSONField(
        null=True, blank=True, default=None, help_text="Of the consumer's scopes. Nothing: all of them."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("pk",)
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"brn_{self.prefix}_…" if self.prefix else f"imported …{self.digest[-6:]}"

    def clean(self) -> None:
        if self.scopes is not None:
            checks.run({"scopes": (checks.scopes, self.scopes)})


class EndedKey(models.Model):
    """Of a key that went with its consumer: how it had ended. A document may name the key again, and revoking is for
    good."""

    digest = models.CharField(max_length=64, primary_key=True)
    revoked_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"…{self.digest[-6:]}"
