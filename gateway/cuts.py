"""Cutting off a subject: all tokens that an issuer gave it so far are refused, as revocations.py does for single ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from foundation import audit
from orm_app import db

from . import changes
from .models import TokenCut
from .revoked import MAX_REVOKED, Cut


def cut(
    issuer: str,
    subject: str,
    *,
    expires_at: datetime,
    issued_until: datetime | None = None,
    ahead_s: float = 0.0,
    actor: Any,
    source: str,
    **who: Any,
) -> TokenCut:
    """Refuse what this issuer (its name with us) issued to this subject up to `issued_until`, and what does not say when
    it was issued. None: up to now, and `ahead_s` more, by which the issuer's clock may be ahead of ours. A cut that is
    there already is only ever made larger.

    expires_at: when the last of these tokens is over; the row goes then. Raises ValueError for a moment that is to come
    and where MAX_REVOKED are cut; ValidationError for a value that no row can hold. who: audit.record's request_id and ip.
    """
    with db.transaction():
        changes.bump()  # first, as it may have to wait: the clock is looked at after that
        prune()
        now = timezone.now()
        if issued_until is not None and issued_until > now:
            raise ValueError("tokens can be cut up to now, not those to come")
        until = issued_until or now + timedelta(seconds=ahead_s)
        row = _stored(issuer, subject)
        if row is None:
            if TokenCut.objects.count() >= MAX_REVOKED:
                raise ValueError(f"{MAX_REVOKED} subjects are cut: give their issuer another key instead")
            row = TokenCut(issuer=issuer, subject=subject, issued_until=until, expires_at=expires_at)
            before = None
        else:
            before = _told(row)
            row.issued_until, row.expires_at = max(row.issued_until, until), max(row.expires_at, expires_at)
        if _told(row) != before:
            row.full_clean()
            row.save()
            verb = "create" if before is None else "update"
            audit.record(
                actor=actor,
                action=f"tokencut.{verb}",
                target=row,
                before=before,
                after=_told(row),
                source=source,
                **who,
            )
    return row


def is_cut(issuer: str, subject: Any, issued_at: float | None) -> bool:
    """By the rows, for code that asks the database anyway. subject, issued_at: of the verified claims."""
    row = _stored(issuer, subject) if isinstance(subject, str) else None
    if row is None or row.expires_at <= timezone.now():
        return False
    return issued_at is None or issued_at <= row.issued_until.timestamp()


def living() -> list[Cut]:
    """Those that still matter, for a snapshot."""
    rows = TokenCut.objects.filter(expires_at__gt=timezone.now())
    return [
        Cut(row.issuer, row.subject, row.issued_until.timestamp(), row.expires_at.timestamp())
        for row in rows.iterator()
    ]


def prune() -> int:
    """Drop the cuts none of whose tokens can be alive. Returns how many."""
    return TokenCut.objects.filter(expires_at__lte=timezone.now()).delete()[0]


def _stored(issuer: str, subject: str) -> TokenCut | None:
    """Compared here: MariaDB takes `Ada` for `ada`."""
    found = TokenCut.objects.filter(issuer=issuer, subject=subject)
    return next((row for row in found if (row.issuer, row.subject) == (issuer, subject)), None)


def _told(row: TokenCut) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("issuer", "subject", "issued_until", "expires_at")}
