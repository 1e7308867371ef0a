"""Every change of the configuration: one transaction of the rows, the audit entry and the version that all
processes poll. Admin, API and commands write through here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F
from django.utils import timezone

from foundation import audit
from orm_app import db

from . import keys, secret_box
from .models import ApiKey, Configuration, Consumer, JwtIssuer


@contextmanager
def change() -> Iterator[None]:
    """A transaction that ends with a new version."""
    with db.transaction():
        yield
        bump()


def bump() -> None:
    """Count the version up, in the caller's transaction."""
    now = timezone.now()
    if not Configuration.objects.filter(pk=1).update(version=F("version") + 1, changed_at=now):
        Configuration.objects.create(pk=1, version=1, changed_at=now)


def save(row: models.Model, *, actor: Any, source: str, **who: Any) -> None:
    """Validate and write one row. Raises ValidationError. who: audit.record's request_id and ip."""
    stored = None if row._state.adding else type(row)._default_manager.filter(pk=row.pk).first()
    row.full_clean()
    with change():
        row.save()
        verb = "update" if stored is not None else "create"
        before = _values(stored) if stored is not None else None
        audit.record(
            actor=actor,
            action=f"{_noun(row)}.{verb}",
            target=row,
            before=before,
            after=_values(row),
            source=source,
            **who,
        )


def delete(row: models.Model, *, actor: Any, source: str, **who: Any) -> None:
    """Raises ProtectedError for a row that others need (an upstream with routes, a plan in use)."""
    with change():
        before, label = _values(row), f"{row._meta.label}:{row.pk}"
        row.delete()
        audit.record(
            actor=actor, action=f"{_noun(row)}.delete", target=label, before=before, source=source, **who
        )


def issue_key(
    consumer: Consumer, *, actor: Any, source: str, expires_at: datetime | None = None, **who: Any
) -> tuple[ApiKey, str]:
    """A new key and its text, which is kept nowhere: show it now."""
    new = keys.generate(secrets.choice)
    row = ApiKey(consumer=consumer, prefix=new.prefix, digest=new.digest.hex(), expires_at=expires_at)
    save(row, actor=actor, source=source, **who)
    return row, new.text


def revoke_key(key: ApiKey, *, actor: Any, source: str, **who: Any) -> None:
    """Harmless for a key that is revoked already."""
    if key.revoked_at is None:
        key.revoked_at = timezone.now()
        save(key, actor=actor, source=source, **who)


def set_secret(issuer: JwtIssuer, secret: str) -> None:
    """Seal a secret into the row, which is then to be saved."""
    issuer.secret = secret_box.seal(secret)


def _noun(row: models.Model) -> str:
    return str(row._meta.model_name)


def _values(row: models.Model) -> dict[str, Any]:
    values = {field.attname: field.value_from_object(row) for field in row._meta.concrete_fields}
    values.pop("digest", None)
    return values
