"""A JSON Web Key Set (RFC 7517) → the checks that one algorithm can be done with, and why the other keys cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .segments import Malformed, decode64, members
from .signatures import Check, public_check
from .tokens import MAX_KID_CHARACTERS, MAX_TRIES

MAX_KEYS = MAX_TRIES  # so that a token without a kid can be tried with each
MAX_EXPONENT_BYTES = 8  # of RSA: with a longer one, a check takes as long as a signature

_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@dataclass(frozen=True, slots=True)
class KeySet:
    """ignored: a line for each key that is not used, with its reason."""

    by_kid: dict[str, tuple[Check, ...]]
    without_kid: tuple[Check, ...] = ()
    ignored: tuple[str, ...] = ()

    def of(self, kid: str | None) -> Sequence[Check]:
        """What a token with this kid may be signed with; None: one without, which may be any."""
        if kid is not None:
            return self.by_kid.get(kid, ()) + self.without_kid
        return [check for checks in self.by_kid.values() for check in checks] + list(self.without_kid)


def parse(document: bytes, algorithm: str) -> KeySet:
    """Raises ValueError for what is not a key set, for too many keys, and for none that fits."""
    keys = members(document).get("keys")
    if type(keys) is not list:
        raise ValueError("it has no list of keys")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    by_kid: dict[str, tuple[Check, ...]] = {}
    without: list[Check] = []
    ignored = []
    for number, key in enumerate(keys, 1):
        try:
            kid, check = _read(key, algorithm)
        except ValueError as reason:
            ignored.append(f"{_label(key, number)}: {reason}")
            continue
        if kid is None:
            without.append(check)
        else:
            by_kid[kid] = (*by_kid.get(kid, ()), check)
    if not by_kid and not without:
        raise ValueError(f"it has no key for {algorithm}" + "".join(f"; {line}" for line in ignored[:3]))
    return KeySet(by_kid, tuple(without), tuple(ignored))


def _label(key: Any, number: int) -> str:
    kid = key.get("kid") if isinstance(key, dict) else None
    return kid[:64] if isinstance(kid, str) and kid else f"key {number}"


def _read(key: Any, algorithm: str) -> tuple[str | None, Check]:
    """Raises ValueError for a key that is not to be used, or not for this."""
    if type(key) is not dict:
        raise ValueError("not an object")
    kid = key.get("kid")
    if "kid" in key and (type(kid) is not str or len(kid) > MAX_KID_CHARACTERS):
        raise ValueError(f"its kid is not a text of at most {MAX_KID_CHARACTERS} characters")
    kind = key.get("kty")
    if kind == "oct":
        raise ValueError("a secret, which has no place where others can read it")
    if type(kind) is not str or kind not in _READERS:
        raise ValueError("its kty is none of RSA, EC, OKP")
    if key.get("use", "sig") != "sig":
        raise ValueError("its use is not sig")
    operations = key.get("key_ops", ["verify"])
    if type(operations) is not list or "verify" not in operations:
        raise ValueError("its key_ops are without verify")
    if key.get("alg", algorithm) != algorithm:
        raise ValueError(f"its alg is not {algorithm}")
    if "d" in key:
        raise ValueError("a private key: whoever reads this can sign")
    return kid, public_check(algorithm, _READERS[kind](key))


def _rsa(key: dict[str, Any]) -> rsa.RSAPublicKey:
    exponent = _octets(key, "e")
    if len(exponent) > MAX_EXPONENT_BYTES:
        raise ValueError(f"its e is longer than {MAX_EXPONENT_BYTES} bytes")
    modulus = _octets(key, "n")
    return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()


def _elliptic(key: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    name = key.get("crv")
    curve = _CURVES.get(name) if isinstance(name, str) else None
    if curve is None:
        raise ValueError(f"its crv is none of {', '.join(_CURVES)}")
    x, y = (_octets(key, part) for part in "xy")
    if len(x) != len(y) or len(x) != (curve.key_size + 7) // 8:  # RFC 7518 section 6.2.1.2
        raise ValueError("its x or y is not as long as the curve's coordinates")
    return ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    ).public_key()


def _edwards(key: dict[str, Any]) -> ed25519.Ed25519PublicKey:
    if key.get("crv") != "Ed25519":
        raise ValueError("its crv is not Ed25519")
    return ed25519.Ed25519PublicKey.from_public_bytes(_octets(key, "x"))


def _octets(key: dict[str, Any], name: str) -> bytes:
    text = key.get(name)
    if type(text) is not str or not text.isascii() or not text:
        raise ValueError(f"its {name} is missing")
    try:
        return decode64(text.encode())
    except Malformed as error:
        raise ValueError(f"its {name} is {error}") from error


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {"RSA": _rsa, "EC": _elliptic, "OKP": _edwards}
