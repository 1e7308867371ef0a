"""Who wrote an entry, and under which key: keyed BLAKE2b. Pure.

    MAC = BLAKE2b-128(key = BLAKE2b-256(secret), person "brain_cache_mac", length of the cache key | cache key | entry)

The cache key is part of it, so that an entry copied to another key is refused. RFC 7693 makes BLAKE2b with a key a MAC
by itself: no HMAC around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest

MAC_BYTES = 16
MIN_SECRET_BYTES = 16

_PERSON = b"brain_cache_mac"  # a MAC of another use of the same secret never fits here
_KEY_PERSON = b"brain_cache_key"


class Signer:
    """The first secret signs, all of them verify: a new one goes in front, the old one leaves when its entries have."""

    __slots__ = ("_hashes",)

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("no secret to sign with")
        if any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"a secret has at least {MIN_SECRET_BYTES} bytes")
        # Copied for each MAC: half the time of a new one.
        self._hashes = [
            blake2b(digest_size=MAC_BYTES, key=_derived(secret), person=_PERSON) for secret in secrets
        ]

    def mac(self, cache_key: str, head: bytes, rest: bytes) -> bytes:
        """head and rest: the entry, in the two parts in which its writer has it."""
        return _mac(self._hashes[0], cache_key, head, rest)

    def verifies(self, mac: bytes, cache_key: str, head: bytes, rest: bytes) -> bool:
        first, *older = self._hashes
        if compare_digest(mac, _mac(first, cache_key, head, rest)):
            return True
        return any(compare_digest(mac, _mac(known, cache_key, head, rest)) for known in older)


def _derived(secret: bytes) -> bytes:
    # A BLAKE2b key has 64 bytes at most, a secret any number.
    return blake2b(secret, digest_size=32, person=_KEY_PERSON).digest()


def _mac(keyed: blake2b, cache_key: str, head: bytes, rest: bytes) -> bytes:
    name = cache_key.encode("utf-8", "surrogatepass")
    digest = keyed.copy()
    digest.update(b"%d:%b%b" % (len(name), name, head))
    digest.update(rest)
    return digest.digest()
