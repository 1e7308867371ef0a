"""Who is calling, and may they: credentials → Identity | None, then roles. No I/O: keys and verifier are
arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import keys
from .tokens import Rejected, Verifier


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought along, as it came over the wire; None: that header was not there."""

    authorization: bytes | None = None
    api_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """subject: unique over all kinds of credentials ("key:demo-key", "jwt:brain:7"), the name that limits
    count by.

    limits: those of the consumer's own plan, over all routes. digest: of the API key that was used, for
    last_used.
    """

    subject: str
    name: str
    roles: frozenset[str] = frozenset()
    limits: tuple[Any, ...] = ()  # bucket.Limit
    on_store_down: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as the snapshot knows it. expires_at: seconds since the epoch, None: never."""

    identity: Identity
    expires_at: float | None = None


def authenticate(
    credentials: Credentials, records: Mapping[bytes, KeyRecord], verifier: Verifier, now: float
) -> Identity | None:
    """The caller, or None for missing and for unacceptable credentials alike. now: seconds since the epoch.

    Where both an API key and a token came, the key decides alone: a bad key is never saved by a good token.
    """
    if credentials.api_key is not None:
        return _by_key(credentials.api_key, records, now)
    if credentials.authorization is None:
        return None
    scheme, _, token = credentials.authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    try:
        return _by_claims(verifier.verify(token.strip(b" "), now))
    except Rejected:
        return None


def _by_key(key: bytes, records: Mapping[bytes, KeyRecord], now: float) -> Identity | None:
    if len(key) > keys.MAX_BYTES:
        return None
    # Looked up by its hash: the time this takes says nothing about any stored key.
    record = records.get(keys.digest(key))
    if record is None or (record.expires_at is not None and record.expires_at <= now):
        return None
    return record.identity


def _by_claims(verified: tuple[str, dict[str, Any]]) -> Identity | None:
    issuer, claims = verified
    subject, roles = claims.get("sub"), claims.get("roles", [])
    if not isinstance(subject, str) or not subject:
        return None
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        return None
    name = claims.get("username")
    return Identity(
        f"jwt:{issuer}:{subject}", name if isinstance(name, str) and name else subject, frozenset(roles)
    )


def authorised(required: frozenset[str], identity: Identity) -> bool:
    """Whether one of the required roles is held. Ranked roles are spelt out when the snapshot is compiled."""
    return not required or not required.isdisjoint(identity.roles)
