from __future__ import annotations

from django.db import models


class Account(models.Model):
    cents = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"account {self.pk}"


class Transfer(models.Model):
    """The ledger: written in the transaction that moves the money."""

    id = models.CharField(max_length=40, primary_key=True)
    source = models.BigIntegerField()
    target = models.BigIntegerField()
    cents = models.BigIntegerField()

    def __str__(self) -> str:
        return self.id


class Mark(models.Model):
    """Two of them in every transaction of the isolation drill, one for every request of the restarts."""

    name = models.CharField(max_length=40, primary_key=True)

    def __str__(self) -> str:
        return self.name
