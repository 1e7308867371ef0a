"""The tokens that were revoked before they expired, one by one or all that a subject had, as a snapshot carries them.
Rows: revocations.py, cuts.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import auth

MAX_REVOKED = 100_000  # about 40 MB in every process; as many cuts, about 25 MB
_SAME: Mapping[str, Iterable[str]] = {}


@dataclass(frozen=True, slots=True)
class Revocation:
    """By its jti, by its digest (`digest` below, hex), or by either. expires_at: of the token, from when on it
    need not be known any more; seconds since the epoch."""

    issuer: str
    jti: str = ""
    digest: str = ""
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """All tokens of a subject that were issued up to a moment, or do not say when. issuer: its name with us; issued_until,
    expires_at (from when on none of them can be alive): seconds since the epoch."""

    issuer: str
    subject: str
    issued_until: float
    expires_at: float = 0.0


class Revoked:
    __slots__ = ("_cuts", "_digests", "_jtis")

    def __init__(
        self,
        revocations: Iterable[Revocation] = (),
        now: float = 0.0,
        cuts: Iterable[Cut] = (),
        names: Mapping[str, Iterable[str]] = _SAME,
    ) -> None:
        """Those that are over at `now` are left out. names: of the issuers that are the one of a name; by default that
        alone. Raises ValueError for far too many others: to forget some of
        them would let them in."""
        living = [one for one in revocations if one.expires_at > now]
        if len(living) > 2 * MAX_REVOKED:  # whoever writes stops at once this, or a few later in a race
            raise ValueError(f"more than {2 * MAX_REVOKED} revoked tokens")
        self._jtis = frozenset(
            (name, one.jti) for one in living if one.jti for name in names.get(one.issuer, (one.issuer,))
        )
        self._digests = frozenset(one.digest for one in living if one.digest)
        self._cuts: dict[str, float] = {}
        number = 0
        for cut in cuts:
            if cut.expires_at > now:
                number += 1
                for name in names.get(cut.issuer, (cut.issuer,)):
                    subject = auth.of_token(name, cut.subject)
                    self._cuts[subject] = max(cut.issued_until, self._cuts.get(subject, cut.issued_until))
        if number > 2 * MAX_REVOKED:
            raise ValueError(f"more than {2 * MAX_REVOKED} subjects whose tokens are cut")

    def __bool__(self) -> bool:
        return bool(self._jtis or self._digests or self._cuts)

    def covers(self, issuer: str, jti: str, token: bytes) -> bool:
        """jti: "" for a token without one."""
        if jti and (issuer, jti) in self._jtis:
            return True
        return bool(self._digests) and digest(token) in self._digests

    def cuts(self, subject: str, issued_at: float | None) -> bool:
        """subject: of the token's Identity. issued_at: its iat; a token without one may be of any age."""
        until = self._cuts.get(subject)
        return until is not None and (issued_at is None or issued_at <= until)


def digest(token: bytes) -> str:
    """SHA-256, in hex, of what is signed: from one ES256 signature anybody can make a second good one, so a
    digest of the whole token would be got around."""
    return hashlib.sha256(token.rpartition(b".")[0]).hexdigest()
