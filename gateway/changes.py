"""Every change of the configuration: one transaction of the rows, the audit entries, a revision and the version that
all processes poll, told to them at its commit. Admin, API and commands write through here.
"""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F
from django.utils import timezone
from redis.exceptions import RedisError

from cache_app import connections as store
from foundation import audit
from orm_app import db

from . import entries, keys, known_issuers, lookups, rows, secret_box, trial
from .conf import conf
from .entries import Change
from .models import (
    ApiKey,
    Configuration,
    Consumer,
    EndedKey,
    JwtIssuer,
    Revision,
    Target,
)

log = structlog.get_logger(__name__)

LONGEST_OVERLAP_S = 90 * 86_400.0  # of a rotated key with the one in its place
CHANNEL = "brain:gateway:version"  # each version is published here, as a decimal number


class Writing:
    """An open change: what is written through it becomes one revision. version: the one before it."""

    def __init__(self, version: int, trace: dict[str, Any]) -> None:
        self.version = version
        self.made: list[Change] = []
        self._trace = trace
        self.rows = rows.Rows()
        self._row: models.Model | None = None

    def save(self, row: models.Model) -> None:
        """Validate and write one row. Raises ValidationError."""
        stored = None if row._state.adding else type(row)._default_manager.filter(pk=row.pk).first()
        before = None if stored is None else rows.entry_of(stored)
        row.full_clean()
        after = rows.entry_of(row)
        if before == after:
            return
        if before is not None and before[:2] != after[:2]:
            self._rename(row, stored, before, after)
        else:
            self._store(row, None if before is None else before[2])

    def put(self, kind: str, name: str, fields: entries.Fields) -> None:
        """Write an entry that rows.check finds nothing wrong with; fields that are not given stay as they are. Raises
        ValidationError for a name that nobody has, and a revoked key that would live."""
        found = self.rows.find(kind, name)
        before = None if found is None else rows.entry_of(found)[2]
        row = self.rows.filled(kind, name, fields)
        if isinstance(row, JwtIssuer) and row.signs:
            self._sign_alone(row)
        self._store(row, before)
        self.rows.put(row)

    def delete(self, row: models.Model) -> None:
        """The row and what goes with it. Raises ProtectedError for a row that others need."""
        gone = [(one, f"{one._meta.label}:{one.pk}") for one in (*rows.dependents(row, owned=True), row)]
        told = [(rows.entry_of(one), label) for one, label in gone]
        _remember_ends(one for one, _ in gone if isinstance(one, ApiKey))
        row.delete()
        for (kind, name, before), label in told:
            self.rows.drop(kind, name)
            if kind == "issuer":
                known_issuers.remember(name, before)
            self._record(Change(kind, name, before, None), label)

    def remove(self, kind: str, name: str) -> None:
        """The same for an entry; harmless when it went with another. Raises ProtectedError."""
        row = self.rows.find(kind, name)
        if row is not None:
            self.delete(row)

    def look_up(self, changes: Sequence[Change]) -> None:
        """All rows that these changes are about, in a few queries."""
        named = [
            (link, change.after[link])
            for change in changes
            if change.after
            for link in entries.LINKS.get(change.kind, ())
            if change.after.get(link)
        ]
        self.rows.look_up([*(change.entry for change in changes), *named])

    def refused(self, error: IntegrityError) -> tuple[entries.Entry, ValidationError]:
        """The row that was written last, and why the database refuses it. Call it when the transaction is over; raises
        `error` again when it was about none."""
        if self._row is None:
            raise error
        kind, name, _ = rows.entry_of(self._row)
        try:
            self._row.validate_unique()
            self._row.validate_constraints()
        except ValidationError as explained:
            return (kind, name), explained
        return (kind, name), ValidationError(f"the database refuses it: {str(error).partition(chr(10))[0]}")

    def tell_takeovers(self, made: Sequence[Change]) -> None:
        """An issuer under another name is refused what was taken back under the old one: nobody has to do that, and
        somebody may wonder about it."""
        for name, others in known_issuers.takeovers(made).items():
            row = self.rows.find("issuer", name)
            if row is not None:
                audit.record(
                    action="issuer.takeover", target=row, after={"taken_back_as": others}, **self._trace
                )

    def _store(self, row: models.Model, before: entries.Fields | None) -> None:
        self._row = row
        if before is None and isinstance(row, ApiKey):
            _end_as_before(row)
        kind, name, after = rows.entry_of(row)
        _keep_revoked(kind, before, after)
        if before is None:
            row.save()
        else:
            row.save(update_fields=rows.written_fields(row))
            if kind == "issuer":
                known_issuers.remember(name, before)
        self._record(Change(kind, name, before, after), row)

    def _sign_alone(self, row: JwtIssuer) -> None:
        # The column is unique: the other one lets go of it first.
        for other in JwtIssuer.objects.filter(signs=True).exclude(pk=row.pk):
            before = rows.entry_of(other)[2]
            other.signs = None
            self._store(other, before)
            self.rows.put(other)

    def _rename(self, row: models.Model, stored: Any, before: rows.Told, after: rows.Told) -> None:
        """To those that compare entries, one is gone and another is there, which the dependents name now."""
        old = [before, *(rows.entry_of(one) for one in rows.dependents(stored))]
        row.save(update_fields=rows.written_fields(row))
        new = [after, *(rows.entry_of(one) for one in rows.dependents(row))]
        for was, now in zip(old, new, strict=True):
            self.made += _moved(was, now)
        if isinstance(row, JwtIssuer):
            known_issuers.rename(before[1], after[1])
            known_issuers.remember(after[1], before[2])
        named = ({"name": before[1], **before[2]}, {"name": after[1], **after[2]})
        self._audit(Change(after[0], after[1], *named), row)

    def _record(self, change: Change, target: models.Model | str) -> None:
        self.made.append(change)
        self._audit(change, target)

    def _audit(self, change: Change, target: models.Model | str) -> None:
        names = change.fields()
        audit.record(
            action=f"{change.kind}.{change.verb}",
            target=target,
            before=None if change.before is None else {name: change.before.get(name) for name in names},
            after=None if change.after is None else {name: change.after.get(name) for name in names},
            **self._trace,
        )


@contextmanager
def change(**trace: Any) -> Iterator[Writing]:
    """A transaction whose writes are one revision and one version; none where nothing was written. Raises
    ValidationError at its end for a configuration that no process could load.

    trace: actor, source and, if there is one, the request's request_id and ip, as audit.by gives them.
    """
    with db.transaction():
        writing = Writing(_locked().version, trace)
        yield writing
        if made := entries.folded(writing.made):
            trial.check(made, writing.rows)
            writing.tell_takeovers(made)
            _write_down(_count_up(), made, trace)


def bump() -> int:
    """Count the version up, in the caller's transaction, and tell it when that commits. Returns it. For what is no
    part of the configuration and yet concerns every edge."""
    _locked()
    return _count_up()


def _count_up() -> int:
    Configuration.objects.filter(pk=1).update(version=F("version") + 1, changed_at=timezone.now())
    version = Configuration.objects.values_list("version", flat=True).get(pk=1)
    transaction.on_commit(lambda: announce(version))
    return version


def announce(version: int) -> None:
    """Best effort: an edge that does not hear it finds it when it polls."""
    try:
        # Told seldom, so each time is worth a try: a breaker would still be open when a new primary is there already.
        nodes = store.link(store.default_url(), failures=sys.maxsize).primaries()
        random.shuffle(nodes)
        for node in nodes[:2]:  # of a cluster, whose nodes tell each other; the first may have died
            try:
                return node.call("PUBLISH", CHANNEL, version)
            except RedisError as error:
                failed: Exception = error
    except (RedisError, OSError) as error:
        failed = error
    log.warning("version_not_announced", version=version, error=type(failed).__name__)


def _locked() -> Configuration:
    """The row that all changes take first, so that each one's `before` is the last one's `after`."""
    row = Configuration.objects.select_for_update().filter(pk=1).first()
    if row is None:
        _make_first()
        row = Configuration.objects.select_for_update().get(pk=1)
    return row


def _make_first() -> None:
    """The row, alone for this change also where others make it at the same time: who merely loses an insert shares a lock on
    MariaDB, and two of them then wait for each other."""
    target = ["id"] if connection.features.supports_update_conflicts_with_target else None
    Configuration.objects.bulk_create(
        [Configuration(pk=1)], update_conflicts=True, update_fields=["changed_at"], unique_fields=target
    )


def _write_down(version: int, made: Sequence[Change], trace: dict[str, Any]) -> None:
    actor = trace.get("actor")
    told = [{"kind": c.kind, "name": c.name, "before": c.before, "after": c.after} for c in made]
    name = "system" if actor is None else str(actor)[:150]
    Revision.objects.create(version=version, actor=name, source=trace["source"], changes=told)
    Revision.objects.filter(version__lte=version - conf().REVISIONS_KEPT).delete()


def _moved(was: rows.Told, now: rows.Told) -> list[Change]:
    if was[:2] == now[:2]:
        return [Change(now[0], now[1], was[2], now[2])]
    return [Change(was[0], was[1], was[2], None), Change(now[0], now[1], None, now[2])]


def _keep_revoked(kind: str, before: entries.Fields | None, after: entries.Fields) -> None:
    if kind == "key" and before and before["revoked_at"] and before["revoked_at"] != after["revoked_at"]:
        raise ValidationError("A revoked key stays revoked; make a new one.")


def _remember_ends(gone: Iterable[ApiKey]) -> None:
    for key in gone:
        if key.revoked_at is not None or key.expires_at is not None:
            ends = {"revoked_at": key.revoked_at, "expires_at": key.expires_at}
            EndedKey.objects.update_or_create(digest=key.digest, defaults=ends)


def _end_as_before(key: ApiKey) -> None:
    """A key that was here before, and went with its consumer."""
    ended = EndedKey.objects.filter(digest=key.digest).first()
    if ended is not None:
        key.revoked_at = key.revoked_at or ended.revoked_at
        key.expires_at = (
            key.expires_at or ended.expires_at
        )  # a document may give it another end, as to any key


# --- one row ---------------------------------------------------------------------------------------------------------
def save(row: models.Model, **trace: Any) -> None:
    """Validate and write one row; a row that is as it was is no change. Raises ValidationError."""
    look_up_names(row)
    with change(**trace) as writing:
        writing.save(row)


def look_up_names(*rows: models.Model) -> None:
    """What the checks of these rows ask of the DNS, before the configuration is locked."""
    lookups.ahead(url for row in rows for field in ("url", "jwks_url") if (url := getattr(row, field, "")))


def delete(row: models.Model, **trace: Any) -> None:
    """With what belongs to it alone: a service's targets, a consumer's keys. Raises ProtectedError for a row that
    others need (a service with routes, a plan in use)."""
    with change(**trace) as writing:
        writing.delete(row)


def set_target_state(target: Target, state: str, **trace: Any) -> None:
    """state: active, draining or off. Raises ValidationError for another."""
    look_up_names(target)
    with change(**trace) as writing:
        target.refresh_from_db()
        target.state = state
        writing.save(target)


def set_secret(issuer: JwtIssuer, secret: str) -> None:
    """Seal a secret into the row, which is then to be saved."""
    issuer.secret = secret_box.seal(secret)


# --- API keys --------------------------------------------------------------------------------------------------------
def issue_key(
    consumer: Consumer,
    *,
    scopes: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    **trace: Any,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is kept nowhere: show it now. scopes: of the consumer's; None: all of them. Raises
    ValidationError."""
    foreign = sorted(set(scopes or ()) - set(consumer.scopes))
    if foreign:
        raise ValidationError({"scopes": f"{consumer.name} does not have the scope {foreign[0]!r}."})
    new = keys.generate(secrets.choice)
    row = ApiKey(
        consumer=consumer,
        prefix=new.prefix,
        digest=new.digest.hex(),
        scopes=None if scopes is None else list(scopes),
        expires_at=expires_at,
    )
    save(row, **trace)
    return row, new.text


def rotate_key(key: ApiKey, *, overlap_s: float, **trace: Any) -> tuple[ApiKey, str]:
    """A new key in place of this one, with its scopes and its lifetime, and its text. The old one expires after
    overlap_s seconds, 0: at once, and never later than it would have. Raises ValidationError for one that is revoked
    or expired already."""
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise ValidationError(
            f"The overlap is 0 seconds or more, and {LONGEST_OVERLAP_S:.0f} (90 days) at most."
        )
    with change(**trace) as writing:
        key.refresh_from_db()
        now = timezone.now()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise ValidationError(f"{key} is revoked or expired; make a new key.")
        new = keys.generate(secrets.choice)
        row = ApiKey(consumer=key.consumer, prefix=new.prefix, digest=new.digest.hex(), scopes=key.scopes)
        row.created_at = now
        row.expires_at = _end(key, now)
        writing.save(row)
        ends_at = now + timedelta(seconds=overlap_s)
        key.expires_at = min(key.expires_at, ends_at) if key.expires_at else ends_at
        writing.save(key)
    return row, new.text


def _end(key: ApiKey, now: datetime) -> datetime | None:
    """Of the key in place of this one: it lives as long as this one was meant to."""
    if key.expires_at is None:
        return None
    try:
        return now + (key.expires_at - key.created_at)
    except OverflowError:  # this one was to end with the calendar
        return key.expires_at


def revoke_key(key: ApiKey, **trace: Any) -> None:
    """For good. Harmless for a key that is revoked already."""
    with change(**trace) as writing:
        key.refresh_from_db()
        if key.revoked_at is None:
            key.revoked_at = timezone.now()
            writing.save(key)
