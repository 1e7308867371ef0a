"""API keys: `brn_<prefix>_<secret>`. Stored are the prefix, to recognise a key by, and the SHA-256 of the
whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

PREFIX_CHARACTERS, SECRET_CHARACTERS = 8, 43  # 43 of 62 characters: 256 bits
MAX_BYTES = 512
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class NewKey:
    """text is shown once and then forgotten."""

    text: str
    prefix: str
    digest: bytes


def generate(choice: Callable[[str], str]) -> NewKey:
    """choice: picks one character of its argument at random (`secrets.choice`)."""
    prefix = "".join(choice(_ALPHABET[:36].lower()) for _ in range(PREFIX_CHARACTERS))
    secret = "".join(choice(_ALPHABET) for _ in range(SECRET_CHARACTERS))
    text = f"brn_{prefix}_{secret}"
    return NewKey(text, prefix, digest(text.encode()))


def imported(text: str) -> NewKey:
    """A key that somebody else made up. Its first characters are part of the secret, so there is no prefix to
    keep."""
    if (
        not text
        or len(text.encode()) > MAX_BYTES
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        raise ValueError(f"an API key is 1 to {MAX_BYTES} visible ASCII characters")
    return NewKey(text, "", digest(text.encode()))


def digest(key: bytes) -> bytes:
    """A fast hash is right for what has 256 random bits; a password would need a slow one."""
    return hashlib.sha256(key).digest()
