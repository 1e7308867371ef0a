"""Cutting off a subject: all tokens that an issuer gave it so far are refused, as revocations.py does for single ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from rest_framework_simplejwt.settings import api_settings

from foundation import audit
from orm_app import db

from . import changes, known_issuers
from .callers import OWN_ISSUER
from .conf import conf
from .models import JwtIssuer, TokenCut
from .revoked import MAX_REVOKED, Cut

# From a cut of ours to its commit, and between the clocks of our own machines. Who signs in meanwhile waits (uncut_in_s).
_COMMIT_S = 1.0
# Of a cut of ours. The lifetimes of today may be shorter than those of a token that was signed before they were changed.
_KEPT_DAYS = 31
_SLACK_S = 600  # past the last exp: twice the largest leeway (conf.JWT_LEEWAY_S)


def cut(
    issuer: str,
    subject: str,
    *,
    issued_until: datetime | None = None,
    expires_at: datetime | None = None,
    actor: Any,
    source: str,
    **who: Any,
) -> TokenCut:
    """Refuse what this issuer (its name with us) issued to this subject up to `issued_until`, and what does not say when
    it was issued. None: up to now, and as much more as the issuer's clock may be ahead of ours. A cut that is there
    already is only ever made larger.

    expires_at: when the last of these tokens is over; the row goes then. Only of our own issuer it is known how long they
    can live. Raises ValueError where it must be said, for an `issued_until` that is to come, and where MAX_REVOKED are
    cut; ValidationError for a value that no row can hold. who: audit.record's request_id and ip.
    """
    is_ours = issuer == own_issuer()
    if expires_at is None and not is_ours:
        raise ValueError(
            f"say when the last token that {issuer} issued so far is over: until then the cut is kept"
        )
    with db.transaction():
        changes.bump()  # first, as it may have to wait: the clock is looked at after that
        prune()
        now = timezone.now()
        if issued_until is not None and issued_until > now:
            raise ValueError("tokens can be cut up to now, not those to come")
        until = issued_until or now + timedelta(seconds=_COMMIT_S if is_ours else _leeway_s(issuer))
        if is_ours:
            expires_at = max(expires_at or now, now + _lifetime())
        assert expires_at is not None  # noqa: S101  (looked at above)
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


def cut_user(user: Any, **trace: Any) -> TokenCut:
    """All tokens that we signed for this user so far, those that renew others among them."""
    return cut(own_issuer(), str(user.pk), **trace)


def uncut_in_s(subject: str, at: datetime) -> float:
    """How long to wait until a token of ours can be issued to this subject that a cut does not cover; 0.0 where one of
    `at` is not covered."""
    until = max((row.issued_until.timestamp() for row in _covering(own_issuer(), subject)), default=None)
    if until is None or int(at.timestamp()) > until:  # iat has whole seconds
        return 0.0
    return max(0.001, int(until) + 1 - timezone.now().timestamp())


def own_issuer() -> str:
    """The name of the issuer that signs our tokens."""
    row = _signing()
    return OWN_ISSUER if row is None else row.name


def is_cut(issuer: str, subject: Any, issued_at: float | None) -> bool:
    """By the rows, for code that asks the database anyway. subject, issued_at: of the verified claims."""
    rows = _covering(issuer, subject) if isinstance(subject, str) else []
    now = timezone.now()
    return any(
        row.expires_at > now and (issued_at is None or issued_at <= row.issued_until.timestamp())
        for row in rows
    )


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


def _signing() -> JwtIssuer | None:
    return JwtIssuer.objects.filter(signs=True, enabled=True).first()


def _lifetime() -> timedelta:
    """Of the tokens that we signed so far."""
    row = _signing()
    access = api_settings.ACCESS_TOKEN_LIFETIME if row is None else timedelta(seconds=row.expiry_s)
    renewing = timedelta(seconds=conf().REFRESH_LIFETIME_S)
    return max(access, renewing, timedelta(days=_KEPT_DAYS)) + timedelta(seconds=_SLACK_S)


def _leeway_s(issuer: str) -> float:
    row = JwtIssuer.objects.filter(name=issuer).first()
    own_s = None if row is None else row.leeway_s
    return conf().JWT_LEEWAY_S if own_s is None else own_s


def _stored(issuer: str, subject: str) -> TokenCut | None:
    """Compared here: MariaDB takes `Ada` for `ada`."""
    found = TokenCut.objects.filter(issuer=issuer, subject=subject)
    return next((row for row in found if (row.issuer, row.subject) == (issuer, subject)), None)


def _covering(issuer: str, subject: str) -> list[TokenCut]:
    """Those of the subject under any name of its issuer."""
    found = [row for row in TokenCut.objects.filter(subject=subject) if row.subject == subject]
    if any(row.issuer != issuer for row in found):
        names = known_issuers.names_of(issuer)
        found = [row for row in found if row.issuer in names]
    return found


def _told(row: TokenCut) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("issuer", "subject", "issued_until", "expires_at")}
