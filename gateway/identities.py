"""The callers of one snapshot: credentials → Identity | None, remembered. No I/O.

A request that was seen before costs a look-up and a comparison. Only what was accepted is remembered, so that
strangers can neither fill the memory nor choose what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import auth
from .auth import Identity
from .revoked import Revoked
from .tokens import Issuer, Rejected, Verifier

_SPELT = (b"Bearer ", b"bearer ")
# Until when (wall), who, by whom signed, jti, iat.
_Seen = tuple[float, Identity, Issuer, str, float | None]


@dataclass(frozen=True, slots=True)
class Grounds:
    """What somebody who stays for long was let in by. by: the callers of the snapshot that was asked. issuer: None for an
    API key. until: wall, from when on no new request would be let in by it."""

    by: Identities
    identity: Identity
    until: float
    issuer: Issuer | None = None
    jti: str = ""
    issued_at: float | None = None


class Identities:
    """keys: SHA-256 of an API key → whose it is. size: tokens remembered, the youngest; longest_s: for so long at
    most. Threads may share it."""

    __slots__ = (
        "_half",
        "_keys",
        "_longest_s",
        "_old",
        "_revoked",
        "_seen_keys",
        "_size",
        "_verifier",
        "_young",
    )

    def __init__(
        self,
        keys: Mapping[bytes, Identity],
        verifier: Verifier,
        revoked: Revoked,
        *,
        size: int = 10_000,
        longest_s: float = 60.0,
    ) -> None:
        self._keys, self._verifier, self._revoked = keys, verifier, revoked
        self._size, self._half, self._longest_s = size, max(1, size // 2), longest_s
        # By the headers as they came. A dict compares a whole hash, with a secret of the process in it, before it
        # compares bytes: how long a look-up takes tells nothing about what is in it.
        self._seen_keys: dict[bytes, Identity] = {}
        # Two generations: a full young one becomes the old one, whose tokens move back when they come again.
        self._young: dict[bytes, _Seen] = {}
        self._old: dict[bytes, _Seen] = {}

    def identify(self, authorization: bytes | None, api_key: bytes | None, wall: float) -> Identity | None:
        """The caller, or None for missing and for unacceptable credentials alike. wall: seconds since the epoch.

        Where both an API key and a token came, the key decides alone: a bad key is never saved by a good token.
        """
        if api_key is not None:
            identity = self._seen_keys.get(api_key)
            if identity is not None and identity.expires_at > wall:
                return identity
            return self._by_key(api_key, wall)
        if authorization is None:
            return None
        seen = self._young.get(authorization)
        if seen is not None and seen[0] > wall:
            return seen[1]
        return self._by_token(authorization, wall)

    def explain(self, authorization: bytes | None, api_key: bytes | None, wall: float) -> str:
        """Why `identify` says None, for an operator; "" where it finds somebody. Nothing is remembered."""
        try:
            if api_key is not None:
                auth.by_key(api_key, self._keys, wall)
            elif authorization is None:
                return "neither an API key nor a bearer token"
            else:
                self._verified(authorization, wall)
        except Rejected as reason:
            return str(reason)
        return ""

    def grounds(self, authorization: bytes | None, api_key: bytes | None, wall: float) -> Grounds | None:
        """Of a caller who was let in a moment ago; None where that has changed already. Not for the path of a request."""
        if api_key is not None:
            identity = self._by_key(api_key, wall)
            return None if identity is None else Grounds(self, identity, identity.expires_at)
        if authorization is None:
            return None
        seen = self._young.get(authorization) or self._old.get(authorization)
        try:
            _, identity, issuer, jti, issued_at = seen or self._verified(authorization, wall)
        except Rejected:
            return None
        return Grounds(self, identity, self._end(issuer, identity), issuer, jti, issued_at)

    def look_again(self, grounds: Grounds, authorization: bytes | None, wall: float) -> Grounds | None:
        """The same as it stands now, its end apart; None where it is no good any more. Of an issuer who is the same no
        signature is looked at again: that its key set has other keys by now takes nothing back."""
        if grounds.issuer is None:
            identity = self._keys.get(grounds.identity.key_digest)
            return None if identity is None else Grounds(self, identity, identity.expires_at)
        issuer = next((one for one in self._verifier.issuers if one == grounds.issuer), None)
        if issuer is None:
            return self.grounds(authorization, None, wall)
        identity, jti, issued_at = grounds.identity, grounds.jti, grounds.issued_at
        if self._is_revoked(identity, issuer, jti, issued_at, authorization or b""):
            return None
        return Grounds(self, identity, self._end(issuer, identity), issuer, jti, issued_at)

    def _end(self, issuer: Issuer, identity: Identity) -> float:
        leeway_s = self._verifier.leeway_s if issuer.leeway_s is None else issuer.leeway_s
        return identity.expires_at + leeway_s

    def carry_over(self, before: Identities, wall: float) -> None:
        """Remember what the last snapshot's remembered, except tokens that expired, that are revoked by now, or
        whose issuer is another by now. Off the request path: it looks at each."""
        same = {issuer: issuer for issuer in self._verifier.issuers}
        now_of = {id(issuer): same.get(issuer) for issuer in before._verifier.issuers}
        for theirs, ours in ((before._young, self._young), (before._old, self._old)):
            for authorization, (until, identity, by, jti, issued_at) in theirs.copy().items():
                issuer = now_of.get(id(by))
                if issuer is None or until <= wall or len(ours) >= self._half:
                    continue
                if not self._is_revoked(identity, issuer, jti, issued_at, authorization):
                    ours[authorization] = (until, identity, issuer, jti, issued_at)

    def _by_key(self, api_key: bytes, wall: float) -> Identity | None:
        try:
            identity = auth.by_key(api_key, self._keys, wall)
        except Rejected:
            return None
        if len(self._seen_keys) >= self._size:
            self._seen_keys = {}
        self._seen_keys[api_key] = identity
        return identity

    def _by_token(self, authorization: bytes, wall: float) -> Identity | None:
        seen = self._old.get(authorization)
        if seen is None or seen[0] <= wall:
            try:
                seen = self._verified(authorization, wall)
            except Rejected:
                return None
        # Not for a token that only the leeway keeps alive. Two spellings of each: blanks and capitals would let the
        # holder of a single good token fill this, with headers of any size.
        if seen[0] > wall and authorization[:7] in _SPELT and authorization[7:8] != b" ":
            if len(self._young) >= self._half:
                self._old, self._young = self._young, {}
            self._young[authorization] = seen
        return seen[1]

    def _verified(self, authorization: bytes, wall: float) -> _Seen:
        token = auth.bearer(authorization)
        if token is None:
            raise Rejected("authorization: another scheme than Bearer")
        issuer, claims = self._verifier.verify(token, wall)
        identity = auth.by_claims(issuer, claims)
        jti: str = claims.get("jti", "")
        issued_at: float | None = claims.get("iat")
        if self._revoked:
            if self._revoked.covers(issuer.name, jti, token):
                raise Rejected("revoked")
            if self._revoked.cuts(identity.subject, issued_at):
                raise Rejected("revoked, as all tokens of its subject that are not newer")
        return min(identity.expires_at, wall + self._longest_s), identity, issuer, jti, issued_at

    def _is_revoked(
        self, identity: Identity, issuer: Issuer, jti: str, issued_at: float | None, authorization: bytes
    ) -> bool:
        revoked = self._revoked
        return bool(revoked) and (
            revoked.covers(issuer.name, jti, auth.bearer(authorization) or b"")
            or revoked.cuts(identity.subject, issued_at)
        )
