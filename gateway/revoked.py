"""The tokens that were revoked before they expired, as a snapshot carries them. Rows: revocations.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

MAX_REVOKED = 100_000  # about 40 MB in every process


@dataclass(frozen=True, slots=True)
class Revocation:
    """By its jti, by its digest (`digest` below, hex), or by either. expires_at: of the token, from when on it
    need not be known any more; seconds since the epoch."""

    issuer: str
    jti: str = ""
    digest: str = ""
    expires_at: float = 0.0


class Revoked:
    __slots__ = ("_digests", "_jtis")

    def __init__(self, revocations: Iterable[Revocation] = (), now: float = 0.0) -> None:
        """Those that are over at `now` are left out. Raises ValueError for far too many others: to forget some of
        them would let them in."""
        living = [one for one in revocations if one.expires_at > now]
        if len(living) > 2 * MAX_REVOKED:  # whoever writes stops at once this, or a few later in a race
            raise ValueError(f"more than {2 * MAX_REVOKED} revoked tokens")
        self._jtis = frozenset((one.issuer, one.jti) for one in living if one.jti)
        self._digests = frozenset(one.digest for one in living if one.digest)

    def __bool__(self) -> bool:
        return bool(self._jtis or self._digests)

    def covers(self, issuer: str, jti: str, token: bytes) -> bool:
        """jti: "" for a token without one."""
        if jti and (issuer, jti) in self._jtis:
            return True
        return bool(self._digests) and digest(token) in self._digests


def digest(token: bytes) -> str:
    """SHA-256, in hex, of what is signed: from one ES256 signature anybody can make a second good one, so a
    digest of the whole token would be got around."""
    return hashlib.sha256(token.rpartition(b".")[0]).hexdigest()
