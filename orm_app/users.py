"""Users and role groups, as the audit log sees them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group

from foundation import audit

from .models import User

Snapshot = dict[str, Any]


def snapshot(subject: User | Group) -> Snapshot:
    """What of a user or group is worth recording. No hash, no password."""
    if isinstance(subject, Group):
        return {"name": subject.name}
    fields = ("username", "email", "is_active", "is_staff", "is_superuser")
    groups = sorted(subject.groups.values_list("name", flat=True))
    return {name: getattr(subject, name) for name in fields} | {"groups": groups}


def record_saved(subject: User | Group, before: Snapshot | None, **by: Any) -> None:
    """before: the snapshot of a changed one, None for a new one. Nothing is recorded when nothing changed."""
    after = snapshot(subject)
    if before == after:
        return
    verb = "create" if before is None else "change"
    audit.record(action=f"{_noun(subject)}.{verb}", target=subject, before=before, after=after, **by)


def record_deleted(subject: User | Group, **by: Any) -> None:
    """Call it before the deletion, in the same transaction: afterwards there is nothing to look at."""
    audit.record(action=f"{_noun(subject)}.delete", target=subject, before=snapshot(subject), **by)


def record_password(user: User, **by: Any) -> None:
    audit.record(action="user.change_password", target=user, **by)


def _noun(subject: User | Group) -> str:
    return str(subject._meta.model_name)
