"""JWS algorithms (RFC 7518 section 3, RFC 8037): key → check(signed, signature) → bool.

The algorithm belongs to the key and never comes from the token. A signature arrives in base64url and has one
spelling only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .segments import decode64, encode64

Check = Callable[[bytes, bytes], bool]  # raises segments.Malformed for a signature that is not base64url

HMAC_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, tuple[type[ec.EllipticCurve], str]] = {  # RFC 7518 section 3.4: each has its own curve
    "ES256": (ec.SECP256R1, "P-256"),
    "ES384": (ec.SECP384R1, "P-384"),
    "ES512": (ec.SECP521R1, "P-521"),
}
ALGORITHMS = (*HMAC_HASHES, *_RSA, *_CURVES, "EdDSA")
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192  # RFC 7518 section 3.3; above, one check takes too long


def hmac_check(algorithm: str, secret: bytes) -> Check:
    """Raises ValueError for an empty secret. How long it should be: `tokens.MIN_SECRET_BYTES`."""
    if not secret:
        raise ValueError("an empty secret")
    name = HMAC_HASHES[algorithm]
    # RFC 2104 by hand: copying two prepared states is about twice as fast as hmac.digest() on OpenSSL 3.
    size = hashlib.new(name).block_size
    key = (secret if len(secret) <= size else hashlib.new(name, secret).digest()).ljust(size, b"\0")
    start_inner = hashlib.new(name, bytes(b ^ 0x36 for b in key)).copy
    start_outer = hashlib.new(name, bytes(b ^ 0x5C for b in key)).copy
    same = hmac.compare_digest

    def check(signed: bytes, signature: bytes) -> bool:
        inner, outer = start_inner(), start_outer()
        inner.update(signed)
        outer.update(inner.digest())
        # Compared in encoded form, so that a second spelling of the same signature never matches.
        return same(encode64(outer.digest()), signature)

    return check


def pem_check(algorithm: str, pem: bytes) -> Check:
    """By a public key in PEM. Raises ValueError for a key that cannot be read or does not fit."""
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{algorithm} needs a public key in PEM form (BEGIN PUBLIC KEY)") from error
    return public_check(algorithm, public)


def public_check(algorithm: str, public: Any) -> Check:
    """By one of cryptography's public keys. Raises ValueError for a key that does not fit the algorithm."""
    if algorithm in _RSA:
        return _rsa(algorithm, public)
    if algorithm in _CURVES:
        return _ecdsa(algorithm, public)
    if algorithm == "EdDSA":
        return _ed25519(public)
    raise ValueError(f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}")


def _rsa(algorithm: str, public: Any) -> Check:
    if not isinstance(public, rsa.RSAPublicKey) or not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise ValueError(f"{algorithm} needs an RSA public key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    digest = _HASHES[algorithm[2:]]
    form: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.startswith("PS"):  # RFC 7518 section 3.5: the salt is as long as the hash
        form = padding.PSS(padding.MGF1(digest), digest.digest_size)
    verify = public.verify

    def check(signed: bytes, signature: bytes) -> bool:
        try:
            verify(decode64(signature), signed, form, digest)
        except InvalidSignature:
            return False
        return True

    return check


def _ecdsa(algorithm: str, public: Any) -> Check:
    curve, name = _CURVES[algorithm]
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, curve):
        raise ValueError(f"{algorithm} needs a public key on the curve {name}")
    size = (public.curve.key_size + 7) // 8
    verify, method, number = public.verify, ec.ECDSA(_HASHES[algorithm[2:]]), int.from_bytes

    def check(signed: bytes, signature: bytes) -> bool:
        raw = decode64(signature)
        if len(raw) != 2 * size:
            return False
        try:
            verify(encode_dss_signature(number(raw[:size], "big"), number(raw[size:], "big")), signed, method)
        except InvalidSignature:
            return False
        return True

    return check


def _ed25519(public: Any) -> Check:
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise ValueError("EdDSA needs an Ed25519 public key")
    verify = public.verify

    def check(signed: bytes, signature: bytes) -> bool:
        try:
            verify(decode64(signature), signed)
        except InvalidSignature:
            return False
        return True

    return check
