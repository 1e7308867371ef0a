"""The tokens of the load: HS256, with what our edge, Envoy, HAProxy and simplejwt each look for."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping

SECRET = "0123456789abcdef0123456789abcdef"  # of a benchmark on loopback
ISSUER, SUBJECT, ROLE = "brain", "bench", "operator"
_LIFE_S = 86_400
_HEADER = {"alg": "HS256", "typ": "JWT"}


def token(*, subject: str = SUBJECT, number: int = 0, secret: str = SECRET) -> str:
    """number: makes a token of its own, for the same subject."""
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "exp": int(time.time()) + _LIFE_S,
        "jti": f"{number:08d}",
        "roles": [ROLE],
        "token_type": "access",  # simplejwt's, as is the next
        "user_id": subject,
    }
    signed = f"{_encoded(_HEADER)}.{_encoded(claims)}"
    mac = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_base64(mac)}"


def forged() -> str:
    """Well formed, signed by somebody else."""
    return token(secret="x" * 32)


def jwks() -> str:
    """The key as a JSON Web Key Set (RFC 7517), as Envoy wants it."""
    return json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": _base64(SECRET.encode())}]})


def _encoded(part: Mapping[str, object]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
