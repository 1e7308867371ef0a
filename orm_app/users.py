"""Users and role groups, as the audit log sees them, and as those do who gave something out to a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import Group

from foundation import audit, roles

from .models import User

Snapshot = dict[str, Any]
_followers: list[Callable[..., Any]] = []


def on_less_access(follow: Callable[..., Any]) -> None:
    """follow(user, **by) is called in the transaction in which a user is deactivated or deleted, loses a role, or gets
    another password: for apps above this one, whose tokens still say what was true before. by: as for audit.record."""
    if follow not in _followers:
        _followers.append(follow)


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
    if isinstance(subject, User) and before is not None and _may_less(before, after):
        _tell(subject, **by)


def record_deleted(subject: User | Group, **by: Any) -> None:
    """Call it before the deletion, in the same transaction: afterwards there is nothing to look at."""
    audit.record(action=f"{_noun(subject)}.delete", target=subject, before=snapshot(subject), **by)
    if isinstance(subject, User):
        _tell(subject, **by)


def record_password(user: User, **by: Any) -> None:
    audit.record(action="user.change_password", target=user, **by)
    _tell(user, **by)


def _may_less(before: Snapshot, after: Snapshot) -> bool:
    lost = set(before["groups"]) - set(after["groups"])
    return (
        not lost.isdisjoint(roles.RANKED)  # other groups say nothing about what somebody may
        or (before["is_active"] and not after["is_active"])
        or (before["is_superuser"] and not after["is_superuser"])
    )


def _tell(user: User, **by: Any) -> None:
    for follow in _followers:
        follow(user, **by)


def _noun(subject: User | Group) -> str:
    return str(subject._meta.model_name)
