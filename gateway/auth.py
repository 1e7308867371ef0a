"""Who is calling, and may they: claims or API key → Identity, then roles and scopes. The cache over it is
identities.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import keys
from .bucket import Limit
from .tokens import Issuer, Rejected

MAX_NAME_CHARACTERS = (
    255  # of a token's sub (OpenID Connect Core section 2): it becomes part of keys in Redis
)
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought along, as it came over the wire; None: that header was not there."""

    authorization: bytes | None = None
    api_key: bytes | None = None


@dataclass(slots=True)  # not frozen: that triples what making one costs, and one is made for every new token
class Identity:
    """Shared by all requests of one caller: never changed.

    subject: unique over all kinds of credentials ("key:demo-key", "jwt:brain:7"), the name that limits count
    by. limits: those of the consumer's own plan, over all routes; plan: its name; counted_as: the name that these
    are counted by; is_exact: never from a lease. key_digest: of the API key that was used, for last_used.
    expires_at: of the key or token, in seconds since the epoch.
    """

    subject: str
    name: str
    roles: frozenset[str] = NOBODY
    scopes: frozenset[str] = NOBODY
    limits: tuple[Limit, ...] = ()
    counted_as: str = ""
    is_exact: bool = False
    on_store_down: str = ""
    key_digest: bytes = b""
    plan: str = ""
    expires_at: float = math.inf
    lines: bytes = b""  # as headers for the target, made when they are needed first


def by_key(key: bytes, identities: Mapping[bytes, Identity], wall: float) -> Identity:
    """identities: by the SHA-256 of their key. Raises Rejected."""
    if len(key) > keys.MAX_BYTES:
        raise Rejected(f"API key: longer than {keys.MAX_BYTES} bytes")
    # Looked up by its hash: the time this takes says nothing about any stored key.
    identity = identities.get(keys.digest(key))
    if identity is None:
        raise Rejected("API key: unknown, revoked, or of a consumer that is switched off")
    if identity.expires_at <= wall:
        raise Rejected(f"API key: it is {identity.name}'s and has expired")
    return identity


def by_claims(issuer: Issuer, claims: dict[str, Any]) -> Identity:
    """claims: verified. Raises Rejected for a sub, roles or scope of the wrong shape."""
    subject = subject_of(claims)
    if type(subject) is not str or not 0 < len(subject) <= MAX_NAME_CHARACTERS:
        raise Rejected(f"sub: not a text of 1 to {MAX_NAME_CHARACTERS} characters")
    name = claims.get("username")
    if type(name) is not str or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        name = subject
    return Identity(
        of_token(issuer.name, subject),
        name,
        _roles(claims, issuer.roles_claim),
        _scopes(claims, issuer.scope_claim),
        expires_at=claims["exp"],
    )


def of_token(issuer: str, subject: str) -> str:
    """Identity.subject of a token. An issuer's name may hold a colon: escaped, as else a sub could end in another issuer's
    subjects."""
    return f"jwt:{issuer.replace(':', '%3A')}:{subject}"


def subject_of(claims: dict[str, Any]) -> Any:
    """sub, or what simplejwt's own classes write in its place."""
    if "sub" in claims:
        return claims["sub"]
    user = claims.get("user_id")
    return str(user) if type(user) is int else user


def of_one_key(subject: str, digest: bytes) -> str:
    """The name of one key of a subject, where limits count each key for itself."""
    return f"{subject}:{digest.hex()[:16]}"


def authorised(roles: frozenset[str], scopes: frozenset[str], identity: Identity) -> bool:
    """Whether one of the roles is held (ranked ones are spelt out when the snapshot is compiled) and every
    scope. Empty: nothing is asked for."""
    return (not roles or not roles.isdisjoint(identity.roles)) and scopes <= identity.scopes


def explain(roles: frozenset[str], scopes: frozenset[str], identity: Identity) -> str:
    """Why `authorised` says no, for an operator; "" where it says yes."""
    if roles and roles.isdisjoint(identity.roles):
        held = ", ".join(sorted(identity.roles)) or "none"
        return f"roles: one of {', '.join(sorted(roles))} is needed, {identity.name} has {held}"
    missing = scopes - identity.scopes
    return f"scopes: {identity.name} lacks {', '.join(sorted(missing))}" if missing else ""


def bearer(authorization: bytes) -> bytes | None:
    """The token of an Authorization header (RFC 6750 section 2.1), None: another scheme's."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip(b" ") if scheme.lower() == b"bearer" else None


def _roles(claims: dict[str, Any], name: str) -> frozenset[str]:
    if name in claims:
        return _texts(claims[name], name)
    return _texts(_within(claims, name), name) if "." in name else NOBODY


def _within(claims: dict[str, Any], path: str) -> Any:
    """`realm_access.roles`: a claim inside of a claim."""
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return []
        found = found[name]
    return found


def _scopes(claims: dict[str, Any], name: str) -> frozenset[str]:
    """A text of words (RFC 8693 section 4.2) or a list; `scp` where the usual claim is missing."""
    if name not in claims and name == "scope":
        name = "scp"
    found = claims.get(name, [])
    if type(found) is str:
        return frozenset(found.split(" ")) - {""}
    return _texts(found, name)


def _texts(found: Any, name: str) -> frozenset[str]:
    if type(found) is not list:
        raise Rejected(f"{name}: not a list of texts")
    for one in found:
        if type(one) is not str:
            raise Rejected(f"{name}: not a list of texts")
    return frozenset(found)
