"""Strict JWS compact tokens (RFC 7515, 7519): one algorithm pinned to each key, every claim that is checked
is checked.

Accepted is `header.payload.signature` in canonical base64url without padding; `none`, `crit`, key headers
that the token brings along, duplicate members and non-finite numbers are not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

HMAC_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
ALGORITHMS = (
    *HMAC_HASHES, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256
MAX_TOKEN_BYTES = 8192
ACCESS = "access"  # simplejwt's token_type of a token that opens routes
MAX_ISSUERS = 32  # signatures that one token can make us compute

# base64url → base64; what only plain base64 has becomes invalid
_TO_PLAIN = bytes(0 if c in b"+/=" else {45: 43, 95: 47}.get(c, c) for c in range(256))
_PADDING = {0: b"", 2: b"==", 3: b"="}
_TYPES = ("JWT", "at+jwt", "application/at+jwt")

Check = Callable[[bytes, bytes], bool]


class Rejected(Exception):
    """The token is not acceptable. The reason is for logs, not for the client."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """name: ours. issuer, audience: the claims that are required, empty: not looked at. key: a secret, or a
    public PEM."""

    name: str
    algorithm: str
    key: bytes
    issuer: str = ""
    audience: str = ""


def sign(claims: dict[str, Any], algorithm: str, secret: bytes) -> str:
    """A token signed with a shared secret (HS256, HS384, HS512)."""
    header = {"alg": algorithm, "typ": "JWT"}
    parts = [_encode64(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    signed = b".".join(parts)
    return b".".join((signed, _encode64(hmac.digest(secret, signed, HMAC_HASHES[algorithm])))).decode()


class Verifier:
    """All issuers that are trusted, and the leeway for clocks that differ."""

    def __init__(self, issuers: Sequence[Issuer], *, leeway_s: float = 0.0) -> None:
        """Raises ValueError for an unknown algorithm, a key that does not fit it, or too many issuers."""
        if len(issuers) > MAX_ISSUERS:
            raise ValueError(f"at most {MAX_ISSUERS} issuers")
        self._leeway_s = leeway_s
        self._by_algorithm: dict[str, list[tuple[Issuer, Check]]] = {}
        for issuer in issuers:
            self._by_algorithm.setdefault(issuer.algorithm, []).append((issuer, _checker(issuer)))

    def verify(self, token: bytes, now: float, *, token_type: str = ACCESS) -> tuple[str, dict[str, Any]]:
        """The issuer's name and the claims. now: seconds since the epoch. Raises Rejected.

        token_type: what a token that states its type must be; a refresh token opens nothing but the refresh
        endpoint.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Rejected("too long")
        signed, _, signature = token.rpartition(b".")
        header, _, payload = signed.partition(b".")
        reason = Rejected("signature")
        for issuer, check in self._by_algorithm.get(_algorithm(header), ()):
            if not check(signed, signature):
                continue
            try:
                claims = _members(payload)
                self._check_claims(claims, issuer, now)
                if claims.get("token_type", ACCESS) != token_type:
                    raise Rejected("token_type")
            except Rejected as rejected:  # another issuer may share the key and expect other claims
                reason = rejected
                continue
            return issuer.name, claims
        raise reason

    def _check_claims(self, claims: dict[str, Any], issuer: Issuer, now: float) -> None:
        if _seconds(claims, "exp") + self._leeway_s <= now:
            raise Rejected("exp")
        for starts in ("nbf", "iat"):
            if starts in claims and _seconds(claims, starts) - self._leeway_s > now:
                raise Rejected(starts)
        if issuer.issuer and claims.get("iss") != issuer.issuer:
            raise Rejected("iss")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if issuer.audience and issuer.audience not in audiences:
            raise Rejected("aud")


def _algorithm(header: bytes) -> str:
    fields = _members(header)
    if "crit" in fields or fields.get("typ", "JWT") not in _TYPES:
        raise Rejected("header")
    algorithm = fields.get("alg")
    if not isinstance(algorithm, str):
        raise Rejected("alg")
    return algorithm


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise Rejected(name)
    return float(value)


def _members(segment: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            _decode64(segment).decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Rejected("not JSON") from error
    if not isinstance(value, dict):
        raise Rejected("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # two parsers may disagree on which one counts
        raise Rejected("a duplicate member")
    return members


def _refuse(constant: str) -> None:
    raise Rejected(constant)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Rejected("not a finite number")
    return value


def _encode64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _decode64(segment: bytes) -> bytes:
    padding_ = _PADDING.get(len(segment) & 3)
    if padding_ is None:
        raise Rejected("base64 length")
    try:
        return a2b_base64(segment.translate(_TO_PLAIN) + padding_, strict_mode=True)
    except Base64Error as error:
        raise Rejected("base64") from error


def _checker(issuer: Issuer) -> Check:
    if issuer.algorithm in HMAC_HASHES:
        return _hmac(issuer.key, HMAC_HASHES[issuer.algorithm])
    if issuer.algorithm == "RS256":
        return _rs256(issuer.key)
    if issuer.algorithm == "ES256":
        return _es256(issuer.key)
    raise ValueError(f"{issuer.algorithm!r} is not one of {', '.join(ALGORITHMS)}")


def _hmac(secret: bytes, name: str) -> Check:
    if not secret:
        raise ValueError("an empty secret")
    # RFC 2104 by hand: copying two prepared states is about twice as fast as hmac.digest() on OpenSSL 3.
    size = hashlib.new(name).block_size
    key = (secret if len(secret) <= size else hashlib.new(name, secret).digest()).ljust(size, b"\0")
    inner_start = hashlib.new(name, bytes(b ^ 0x36 for b in key))
    outer_start = hashlib.new(name, bytes(b ^ 0x5C for b in key))

    def check(signed: bytes, signature: bytes) -> bool:
        inner, outer = inner_start.copy(), outer_start.copy()
        inner.update(signed)
        outer.update(inner.digest())
        # Compared in encoded form, so that a second spelling of the same signature never matches.
        return hmac.compare_digest(_encode64(outer.digest()), signature)

    return check


def _rs256(pem: bytes) -> Check:
    public = load_pem_public_key(pem)
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < 2048:
        raise ValueError("RS256 needs an RSA public key of at least 2048 bits")

    def check(signed: bytes, signature: bytes) -> bool:
        try:
            public.verify(_decode64(signature), signed, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True

    return check


def _es256(pem: bytes) -> Check:
    public = load_pem_public_key(pem)
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise ValueError("ES256 needs a public key on the curve P-256")

    def check(signed: bytes, signature: bytes) -> bool:
        raw = _decode64(signature)
        if len(raw) != 64:
            return False
        pair = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        try:
            public.verify(encode_dss_signature(*pair), signed, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    return check
