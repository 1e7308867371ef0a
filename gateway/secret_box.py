"""Secrets at rest: Fernet under a key derived from SECRET_KEY (HKDF); SECRET_KEY_FALLBACKS still open what
they sealed."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_INFO = b"brain.gateway.secret_box.v1"


class Sealed(Exception):
    """The secret was sealed under a SECRET_KEY that is neither the current one nor a fallback."""


def seal(text: str) -> str:
    return _box().encrypt(text.encode()).decode()


def open_(sealed: str) -> str:
    """Raises Sealed."""
    try:
        return _box().decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise Sealed(
            "the secret cannot be opened: put the former SECRET_KEY into SECRET_KEY_FALLBACKS"
        ) from error


def _box() -> MultiFernet:
    return MultiFernet([_fernet(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def _fernet(secret_key: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
