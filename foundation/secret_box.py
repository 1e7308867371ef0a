"""Secrets at rest: Fernet under a key derived from SECRET_KEY (HKDF) for each purpose; SECRET_KEY_FALLBACKS still open
what they sealed."""

from __future__ import annotations

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Sealed(Exception):
    """The secret was sealed under a SECRET_KEY that is neither the current one nor a fallback."""


class SecretBox:
    """What one purpose has sealed no other opens."""

    def __init__(self, purpose: str) -> None:
        self._info = f"brain.{purpose}.secret_box.v1".encode()

    def seal(self, text: str) -> str:
        return self._fernet().encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises Sealed."""
        try:
            return self._fernet().decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise Sealed(
                "the secret cannot be opened: put the former SECRET_KEY into SECRET_KEY_FALLBACKS"
            ) from error

    def _fernet(self) -> MultiFernet:
        return _derived(self._info, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@functools.lru_cache(maxsize=16)
def _derived(info: bytes, secret_keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([_one(info, key) for key in secret_keys])


def _one(info: bytes, secret_key: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
