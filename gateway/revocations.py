"""Revoking a token before it expires: the row, its audit entry and the version that every process polls."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from foundation import audit
from orm_app import db

from . import changes, known_issuers, revoked
from .models import RevokedToken
from .revoked import MAX_REVOKED, Revocation
from .tokens import Verifier

MAX_JTI_CHARACTERS = 255
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SLACK_S = 600  # past exp: twice the largest leeway (conf.JWT_LEEWAY_S), for clocks that differ
_LATEST_S = 253_000_000_000  # in the year 9987: a date can hold it, and its slack


def revoke_token(token: str, verifier: Verifier, *, actor: Any, source: str, **who: Any) -> RevokedToken:
    """Whoever presents it from now on is refused, within the seconds that a change takes to reach all processes.

    Raises tokens.Rejected for a token that would be refused anyway. who: audit.record's request_id and ip.
    """
    raw = token.strip().encode()
    issuer, claims = verifier.verify(raw, timezone.now().timestamp(), token_type=None)
    jti = claims.get("jti", "")
    return revoke(
        issuer.name,
        jti=jti if len(jti) <= MAX_JTI_CHARACTERS else "",
        digest=revoked.digest(raw),
        expires_at=datetime.fromtimestamp(min(claims["exp"], _LATEST_S), UTC) + timedelta(seconds=_SLACK_S),
        actor=actor,
        source=source,
        **who,
    )


def revoke(
    issuer: str,
    *,
    jti: str = "",
    digest: str = "",
    expires_at: datetime,
    actor: Any,
    source: str,
    **who: Any,
) -> RevokedToken:
    """Revoke by the jti of one issuer (its name with us), by revoked.digest, or by either. Harmless for what is
    revoked already.

    expires_at: when the token is over by itself; the row goes then. Raises ValueError for neither jti nor digest,
    and where MAX_REVOKED are; ValidationError for a value that no row can hold.
    """
    if not jti and not digest:
        raise ValueError("a token is revoked by its jti, or by its digest")
    if digest and not _DIGEST.fullmatch(digest):
        raise ValueError("a digest is 64 hexadecimal digits in small letters")
    with db.transaction():
        prune()
        row = RevokedToken.objects.filter(issuer=issuer, jti=jti, digest=digest).first()
        if row is None:
            if RevokedToken.objects.count() >= MAX_REVOKED:
                raise ValueError(f"{MAX_REVOKED} tokens are revoked: give their issuer another key instead")
            row = RevokedToken(issuer=issuer, jti=jti, digest=digest, expires_at=expires_at)
        elif row.expires_at >= expires_at:
            return row
        verb = "create" if row._state.adding else "update"
        row.expires_at = expires_at
        row.full_clean()
        row.save()
        told = {"issuer": issuer, "jti": jti, "digest": digest, "expires_at": expires_at}
        audit.record(actor=actor, action=f"revokedtoken.{verb}", target=row, after=told, source=source, **who)
        changes.bump()
    return row


def is_revoked(issuer: str, jti: Any, token: bytes) -> bool:
    """By the rows, for code that asks the database anyway. jti: as it stands in the claims."""
    digest = revoked.digest(token)
    same = Q(digest=digest)
    if isinstance(jti, str) and jti:
        same |= Q(jti=jti)
    found = RevokedToken.objects.filter(same, expires_at__gt=timezone.now()).values_list("issuer", "digest")
    by = {issuer if its_digest == digest else name for name, its_digest in found}
    # Who else has this jti is of interest only then.
    return issuer in by or (bool(by) and not by.isdisjoint(known_issuers.names_of(issuer)))


def living() -> list[Revocation]:
    """Those that still matter, for a snapshot."""
    now = timezone.now()
    rows = RevokedToken.objects.filter(expires_at__gt=now)
    return [
        Revocation(row.issuer, row.jti, row.digest, row.expires_at.timestamp()) for row in rows.iterator()
    ]


def prune() -> int:
    """Drop the rows of tokens that are over by themselves. Returns how many."""
    return RevokedToken.objects.filter(expires_at__lte=timezone.now()).delete()[0]
