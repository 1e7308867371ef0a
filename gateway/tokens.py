"""Strict JWS compact tokens (RFC 7515 to 7519, RFC 8725): one algorithm pinned to each key, every claim that is
checked is checked.

    token → header → keys of its algorithm and kid → signature → payload → claims

`none`, `crit` and keys that the token brings along (jwk, jku, x5c, x5u) open nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from .segments import Malformed, decode64, encode64, members
from .signatures import ALGORITHMS, HMAC_HASHES, Check, hmac_check, pem_check

__all__ = ["ALGORITHMS", "HMAC_HASHES", "Issuer", "KeySource", "Rejected", "Verifier", "sign"]

MIN_SECRET_BYTES = 32  # of any secret; what RFC 7518 wants for each algorithm: min_secret_bytes
MAX_TOKEN_BYTES = 8192
MAX_KID_CHARACTERS = 256
MAX_ISSUERS = 32
MAX_TRIES = 32  # signatures that one token can make us compute
ACCESS = "access"  # simplejwt's token_type of a token that opens routes

_TYPES = ("jwt", "at+jwt")  # RFC 7519 section 5.1, RFC 9068 section 2.1
_MAX_HEADERS = 256
_FAR = 10**15  # seconds; nothing real expires in thirty million years


class Rejected(Exception):
    """The token is not acceptable. The reason is for logs and operators, not for the client."""


class KeySource(Protocol):
    """Keys that change while an issuer stays the same: jwks.Jwks."""

    def checks(self, kid: str | None) -> Sequence[Check]:
        """By the keys that a token with this kid may be signed with; None: by any. Never waits."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """name: ours. key: a secret, or a public PEM; unused where a source has the keys. kid: of that key, empty:
    not looked at.

    issuer, audience: the claims that are required, empty: not looked at. roles_claim, scope_claim: where the
    tokens carry them. leeway_s: for clocks that differ, None: the verifier's.
    """

    name: str
    algorithm: str
    key: bytes = field(default=b"", repr=False)
    issuer: str = ""
    audience: str = ""
    kid: str = ""
    source: KeySource | None = None
    roles_claim: str = "roles"
    scope_claim: str = "scope"
    leeway_s: float | None = None

    def check(self) -> Check:
        """Raises ValueError for an unknown algorithm, or a key that does not fit it."""
        if self.algorithm in HMAC_HASHES:
            return hmac_check(self.algorithm, self.key)
        return pem_check(self.algorithm, self.key)


@dataclass(frozen=True, slots=True)
class _Candidate:
    issuer: Issuer
    leeway_s: float
    check: Check


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a header leads. fixed: keys that do not change. sourced: issuers, whose keys are asked for each time."""

    kid: str | None
    fixed: tuple[_Candidate, ...]
    sourced: tuple[Issuer, ...]


def min_secret_bytes(algorithm: str) -> int:
    """RFC 7518 section 3.2: a secret is at least as long as the hash."""
    return int(algorithm.removeprefix("HS")) // 8


def sign(claims: dict[str, Any], algorithm: str, secret: bytes) -> str:
    """A token signed with a shared secret (HS256, HS384, HS512)."""
    header = {"alg": algorithm, "typ": "JWT"}
    signed = b".".join(encode64(orjson.dumps(part)) for part in (header, claims))
    return b".".join((signed, encode64(hmac.digest(secret, signed, HMAC_HASHES[algorithm])))).decode()


class Verifier:
    """All issuers that are trusted, and the leeway for clocks that differ."""

    def __init__(self, issuers: Sequence[Issuer], *, leeway_s: float = 0.0) -> None:
        """Raises ValueError for an unknown algorithm, a key that does not fit it, or too many issuers."""
        if len(issuers) > MAX_ISSUERS:
            raise ValueError(f"at most {MAX_ISSUERS} issuers")
        self.issuers = tuple(issuers)
        self.leeway_s = leeway_s
        self._fixed: dict[str, list[_Candidate]] = {}
        self._sourced: dict[str, list[Issuer]] = {}
        for issuer in issuers:
            if issuer.source is None:
                found = _Candidate(issuer, self._leeway_s(issuer), issuer.check())
                self._fixed.setdefault(issuer.algorithm, []).append(found)
            elif issuer.algorithm in ALGORITHMS:
                self._sourced.setdefault(issuer.algorithm, []).append(issuer)
            else:
                raise ValueError(f"{issuer.algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        self._ways: dict[bytes, _Way] = {}

    def verify(
        self, token: bytes, now: float, *, token_type: str | None = ACCESS
    ) -> tuple[Issuer, dict[str, Any]]:
        """The issuer and the claims. now: seconds since the epoch. Raises Rejected.

        token_type: what a token that states its type must be, None: any; a refresh token opens nothing but the
        refresh endpoint.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Rejected(f"longer than {MAX_TOKEN_BYTES} bytes")
        signed, _, signature = token.rpartition(b".")
        header, _, payload = signed.partition(b".")
        known = self._ways.get(header)
        way = known or self._way(header)
        candidates: Sequence[_Candidate] = way.fixed
        claims = None
        if way.sourced or len(candidates) != 1:
            claims = _claims(payload)  # not yet to be believed; they only say which keys are worth a try
            candidates = self._narrowed(way, claims.get("iss"))
        reason = "signature: it is that of no key"
        for candidate in candidates:
            try:
                if not candidate.check(signed, signature):
                    continue
            except Malformed as error:
                raise Rejected(f"signature: {error}") from error
            if known is None:
                self._learn(header, way)
            if claims is None:
                claims = _claims(payload)
            reason = _wrong(claims, candidate, now, token_type)
            if not reason:
                return candidate.issuer, claims
        raise Rejected(reason)

    def _way(self, header: bytes) -> _Way:
        algorithm, kid = _read_header(header)
        fixed, sourced = self._fixed.get(algorithm, ()), self._sourced.get(algorithm, ())
        if not fixed and not sourced:
            raise Rejected("alg: no issuer signs with it")
        fitting = (one for one in fixed if kid is None or one.issuer.kid in ("", kid))
        return _Way(kid, tuple(fitting), tuple(sourced))

    def _narrowed(self, way: _Way, iss: Any) -> list[_Candidate]:
        """Without the keys of other issuers, so that their sources are not bothered with a kid that is not theirs."""
        sourced = [issuer for issuer in way.sourced if issuer.issuer in ("", iss)]
        found = [one for one in way.fixed if one.issuer.issuer in ("", iss)]
        if not found and not sourced:
            raise Rejected("iss: nobody's" if way.fixed or way.sourced else "kid: no key has it")
        for issuer in sourced:
            leeway_s, checks = self._leeway_s(issuer), issuer.source.checks(way.kid) if issuer.source else ()
            found += [_Candidate(issuer, leeway_s, check) for check in checks]
        if not found:
            raise Rejected("kid: no key has it")
        return found[:MAX_TRIES]

    def _leeway_s(self, issuer: Issuer) -> float:
        return self.leeway_s if issuer.leeway_s is None else issuer.leeway_s

    def _learn(self, header: bytes, way: _Way) -> None:
        """Only headers of tokens with a good signature are kept: strangers cannot fill this."""
        if len(self._ways) >= _MAX_HEADERS:
            self._ways.clear()
        self._ways[header] = way


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        return members(decode64(payload))
    except Malformed as error:
        raise Rejected(f"payload: {error}") from error


def _read_header(header: bytes) -> tuple[str, str | None]:
    """alg and kid. Raises Rejected."""
    try:
        fields = members(decode64(header))
    except Malformed as error:
        raise Rejected(f"header: {error}") from error
    if "crit" in fields:
        raise Rejected("crit: no extension is understood")
    kind, algorithm, kid = fields.get("typ", "JWT"), fields.get("alg"), fields.get("kid")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise Rejected("typ: neither JWT nor at+jwt")
    if not isinstance(algorithm, str):
        raise Rejected("alg: not a text")
    if "kid" in fields and (not isinstance(kid, str) or len(kid) > MAX_KID_CHARACTERS):
        raise Rejected(f"kid: not a text of at most {MAX_KID_CHARACTERS} characters")
    return algorithm, kid


def _wrong(claims: dict[str, Any], by: _Candidate, now: float, token_type: str | None) -> str:
    """What is wrong with the claims, or ""."""
    expires = claims.get("exp")
    if (type(expires) is not int and type(expires) is not float) or expires > _FAR:
        return "exp: missing, or not a time"
    if expires + by.leeway_s <= now:
        return "exp: expired"
    for name in ("nbf", "iat"):
        starts = claims.get(name, 0)
        if type(starts) is not int and type(starts) is not float:
            return f"{name}: not a time"
        if starts - by.leeway_s > now:
            return f"{name}: in the future"
    issuer = by.issuer
    if issuer.issuer and claims.get("iss") != issuer.issuer:
        return "iss: another issuer's"
    if issuer.audience:
        audience = claims.get("aud")
        if audience != issuer.audience and not (type(audience) is list and issuer.audience in audience):
            return "aud: for somebody else"
    if type(claims.get("jti", "")) is not str:
        return "jti: not a text"  # it could not be revoked by it
    if token_type is not None and claims.get("token_type", ACCESS) != token_type:
        return "token_type: another"
    return ""
