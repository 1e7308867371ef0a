"""What each version of the configuration changed, what changed between two, and the way back.

A rollback gives back no access that was taken away: a key that was revoked stays revoked, one whose end was set (by a
rotation) keeps that end, and revoked tokens are no part of the configuration. It takes none away either: keys issued
since stay, unless their consumer goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import ProtectedError, QuerySet

from foundation import audit
from foundation.models import AuditEntry

from . import changes, entries, lookups, rows
from .entries import Change, Entry, Fields
from .errors import RollbackRefused
from .models import Configuration, Revision


def revisions() -> QuerySet[Revision]:
    """Those that are kept (REVISIONS_KEPT), the newest first."""
    return Revision.objects.order_by("-version")


def changes_between(old: int, new: int) -> list[Change]:
    """What made the configuration after version `old` into that after `new`, as one change for each entry; with `new`
    before `old` the way back. Raises RollbackRefused when a version between them is not kept."""
    if old > new:
        return [Change(c.kind, c.name, c.after, c.before) for c in changes_between(new, old)]
    now = newest()
    _check_made(new, now)
    _check_kept(old, now)
    return entries.folded(_made(old, new))


def way_back(version: int) -> list[Change]:
    """What `rollback` would do if it were called now, without doing it. Raises RollbackRefused."""
    now = newest()
    _check_made(version, now)
    _check_kept(version, now)
    return _way_back(list(_made(version, now)))


def rollback(version: int, **trace: Any) -> int:
    """Bring all entries back to what they were right after that version; a new version, which is returned. Nothing
    happens when they are that already. Raises RollbackRefused."""
    _look_up_names(version)
    try:
        with changes.change(**trace) as writing:
            _check_made(version, writing.version)
            _check_kept(version, writing.version)
            pending = _way_back(list(_made(version, writing.version)))
            if not pending:
                return writing.version
            writing.look_up(pending)
            for change in pending:
                _bring_back(writing, change)
            audit.record(
                action="configuration.rollback",
                target=f"{Revision._meta.label}:{writing.version + 1}",
                after={"as_after": version},
                **trace,
            )
        return writing.version + 1
    except IntegrityError as error:
        entry, refused = writing.refused(error)
        raise RollbackRefused(f"{entry[0]} {entries.short(entry)}: {'; '.join(refused.messages)}") from error
    except ValidationError as error:  # of all together
        raise RollbackRefused("; ".join(error.messages)) from error


def _look_up_names(version: int) -> None:
    """Before the configuration is locked: a rollback brings old targets back, whose names may be slow to resolve."""
    made = _made(version, newest())
    lookups.ahead(entries.urls(change.before for change in made if change.before is not None))


def rollbacks(versions: Iterable[int]) -> dict[int, int]:
    """Of these versions those that a rollback made, and the version that each went back to."""
    made = AuditEntry.objects.filter(
        target_label=Revision._meta.label, target_id__in=[str(version) for version in versions]
    )
    return {int(entry.target_id): entry.after["as_after"] for entry in made if entry.after}


def newest() -> int:
    """The version that holds now; 0 before the first change."""
    return Configuration.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def _check_made(version: int, now: int) -> None:
    if version > now:
        raise RollbackRefused(f"there is no version {version} yet; the newest is {now}")


def _check_kept(version: int, now: int) -> None:
    """What a version itself changed is not needed to go back to it, but what all later ones did."""
    oldest = Revision.objects.order_by("version").values_list("version", flat=True).first()
    first = now if oldest is None else oldest - 1
    if version < first:
        raise RollbackRefused(f"version {version} is no longer kept; the oldest one is {first}")


def _made(after: int, until: int) -> Iterable[Change]:
    told = Revision.objects.filter(version__gt=after, version__lte=until).order_by("version")
    for changed in told.values_list("changes", flat=True):
        yield from (Change(**change) for change in changed)


def _way_back(made: list[Change]) -> list[Change]:
    wanted: dict[Entry, Fields | None] = {}
    for change in made:
        wanted.setdefault(change.entry, change.before)
    have = rows.current()
    return entries.compare(have, _without_lost_keys(wanted, made))


def _without_lost_keys(
    wanted: Mapping[Entry, Fields | None], made: Iterable[Change]
) -> dict[Entry, Fields | None]:
    """wanted with keys as the module says: none that was revoked or ended lives on, and none goes by itself."""
    ends = {entry: fields for entry, fields in wanted.items() if entry[0] == "key" and fields is not None}
    for change in made:
        if change.entry in ends and change.after is not None:
            ends[change.entry] = _ended(ends[change.entry], change.after)
    others = {entry: fields for entry, fields in wanted.items() if entry[0] != "key"}
    return others | ends


def _ended(fields: Fields, later: Fields) -> Fields:
    """The earlier of the two ends: ISO dates in UTC sort as what they say."""
    earliest = {
        name: min(filter(None, (fields[name], later[name])), default=None)
        for name in ("revoked_at", "expires_at")
    }
    return {**fields, **earliest}


def _bring_back(writing: changes.Writing, change: Change) -> None:
    try:
        if change.after is None:
            writing.remove(change.kind, change.name)
            return
        if wrong := rows.check(change.kind, change.name, change.after):
            raise ValidationError([text for texts in wrong.values() for text in texts])
        writing.put(change.kind, change.name, change.after)
    except ValidationError as error:
        told = "; ".join(error.messages)
        raise RollbackRefused(f"{change.kind} {entries.short(change.entry)}: {told}") from error
    except ProtectedError as error:
        raise RollbackRefused(
            f"{change.kind} {change.name}: others need it that were not made here"
        ) from error
