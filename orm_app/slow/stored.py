"""The findings of all processes in one table of the default database: added up, read, dropped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.db.models import F
from django.db.models.functions import Greatest, Least

from orm_app.conf import conf
from orm_app.models import SlowQuery
from orm_app.transactions import run_in_transaction

from .finding import Found

USING = "default"
ORDERS = {"total": "-total_ms", "max": "-max_ms", "count": "-count", "last": "-last_seen"}
_BATCH = 100  # rows of one transaction: SQLite has one writer, and it is not us who should be it
_MOST_PRUNED = 500
_RETRIES = 5


def add(found: Sequence[Found]) -> None:
    """Each row's arithmetic is the database's, so that processes which add at once lose nothing."""
    # In one order everywhere: two processes that update the same rows cannot deadlock; on MySQL's gaps they can, and
    # then it is done again.
    ordered = sorted(found, key=lambda one: one.fingerprint)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        run_in_transaction(_make_missing, batch, using=USING, retry=_RETRIES)
        run_in_transaction(_update_all, batch, using=USING, retry=_RETRIES)


def _make_missing(batch: Sequence[Found]) -> None:
    """Empty rows, by themselves: their locks are gone before anything is added."""
    rows = SlowQuery.objects.using(USING)
    known = set(
        rows.filter(fingerprint__in=[one.fingerprint for one in batch]).values_list("fingerprint", flat=True)
    )
    new = [_empty(one) for one in batch if one.fingerprint not in known]
    if new:
        rows.bulk_create(new, ignore_conflicts=True)  # somebody else may make them meanwhile


def _update_all(batch: Sequence[Found]) -> None:
    for one in batch:
        _update(one)


def _update(one: Found) -> None:
    kind, name, id = one.unit
    SlowQuery.objects.using(USING).filter(fingerprint=one.fingerprint).update(
        count=F("count") + one.count,
        statements=F("statements") + one.statements,
        most=Greatest(F("most"), one.most),
        total_ms=F("total_ms") + one.total_ms,
        max_ms=Greatest(F("max_ms"), one.max_ms),
        first_seen=Least(F("first_seen"), one.first_seen),
        last_seen=Greatest(F("last_seen"), one.last_seen),
        # Of the last one that was stored, which is the last one within seconds.
        last_ms=one.last_ms,
        hint=one.hint[:500],
        rows=one.rows,
        in_transaction=one.in_transaction,
        error=one.error[:100],
        unit_kind=kind[:20],
        unit_name=_printable(name)[:255],
        unit_id=_printable(id)[:64],
    )  # fmt: skip


def _empty(one: Found) -> SlowQuery:
    return SlowQuery(
        fingerprint=one.fingerprint,
        kind=one.kind,
        alias=one.alias[:100],
        sql=_printable(one.sql),
        call_site=_printable(one.call_site)[:255],
        first_seen=one.first_seen,
        last_seen=one.last_seen,
    )


def prune(now: datetime) -> int:
    """Drops what was not seen for SLOW_RETENTION_DAYS, and what is beyond SLOW_KEEP rows. Returns how many."""
    rows = SlowQuery.objects.using(USING)
    dropped = rows.filter(last_seen__lt=now - timedelta(days=conf().SLOW_RETENTION_DAYS)).delete()[0]
    keep = conf().SLOW_KEEP
    surplus = list(
        rows.order_by("-last_seen", "-pk").values_list("pk", flat=True)[keep : keep + _MOST_PRUNED]
    )
    return dropped + (rows.filter(pk__in=surplus).delete()[0] if surplus else 0)


def every(
    alias: str | None = None, kind: str | None = None, order: str = "total", limit: int | None = None
) -> list[SlowQuery]:
    """kind: "slow" or "n_plus_one"; order: total, max, count or last. Raises ValueError for another order."""
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
    rows = SlowQuery.objects.using(USING).filter(count__gt=0).order_by(ORDERS[order], "pk")
    rows = rows.filter(alias=alias) if alias else rows
    rows = rows.filter(kind=kind) if kind else rows
    return list(rows if limit is None else rows[:limit])


def get(fingerprint: str) -> SlowQuery | None:
    return SlowQuery.objects.using(USING).filter(fingerprint=fingerprint).first()


def clear(alias: str | None = None) -> int:
    """Drops the rows; whoever calls this writes the audit entry. Returns how many."""
    rows = SlowQuery.objects.using(USING)
    return (rows.filter(alias=alias) if alias else rows).delete()[0]


def keep_plan(fingerprint: str, text: str) -> None:
    SlowQuery.objects.using(USING).filter(fingerprint=fingerprint).update(
        plan=_printable(text), plan_at=datetime.now(UTC)
    )


def planned_since(fingerprints: Sequence[str], moment: datetime) -> set[str]:
    rows = SlowQuery.objects.using(USING).filter(fingerprint__in=fingerprints, plan_at__gte=moment)
    return set(rows.values_list("fingerprint", flat=True))


def _printable(text: str) -> str:
    return text.replace("\x00", "\ufffd")  # PostgreSQL stores no NUL
