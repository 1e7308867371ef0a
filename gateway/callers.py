"""Who may call, read from the configuration's rows: API keys by their SHA-256, token issuers, and what was taken back."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from . import bucket, secret_box, tokens
from .auth import Identity, of_one_key
from .entries import Entry, Fields
from .jwks import Jwks
from .outages import Outage
from .revoked import Cut, Revocation, Revoked
from .tokens import Issuer

OWN_ISSUER = "brain"
Sources = dict[tuple[str, str], Jwks]  # (URL, algorithm) → its keys, which live on across snapshots


@dataclass(frozen=True, slots=True)
class Callers:
    keys: Mapping[bytes, Identity]
    issuers: tuple[Issuer, ...]
    revoked: Revoked
    outages: tuple[Outage, ...] = ()


def read(
    entries: Mapping[Entry, Fields],
    revoked: Iterable[Iterable[Any]],
    sources: Sources,
    wall: float,
    cuts: Iterable[Iterable[Any]] = (),
    kin: Iterable[Collection[str]] = (),
) -> Callers:
    """revoked, cuts: the fields of Revocation and Cut. kin: names that are of one issuer. wall: seconds since the epoch. An
    issuer whose key cannot be had is left out, so that it accepts no token, and is among the outages."""
    issuers, outages = _issuers(entries, sources)
    used = {id(issuer.source) for issuer in issuers}
    for key in [key for key, source in sources.items() if id(source) not in used]:
        del sources[key]
    return Callers(
        keys=_keys(entries, wall),
        issuers=issuers,
        revoked=Revoked(
            (Revocation(*one) for one in revoked), wall, (Cut(*one) for one in cuts), _names(kin, issuers)
        ),
        outages=outages,
    )


def limits(plan: Fields | None, prefix: str = "") -> tuple[bucket.Limit, ...]:
    """A plan's limits. burst_limit is the capacity of the bucket that fills per minute (without one: per hour)."""
    if plan is None:
        return ()
    minute, hour, burst = plan["requests_per_minute"], plan["requests_per_hour"], plan["burst_limit"]
    found = []
    if minute:
        found.append(bucket.per_window(f"{prefix}minute", minute, 60, capacity=burst))
    if hour:
        found.append(bucket.per_window(f"{prefix}hour", hour, 3600, capacity=None if minute else burst))
    return tuple(found)


def default_issuer() -> Issuer:
    """What signs, and is accepted, while no row does."""
    jwt = settings.SIMPLE_JWT
    return Issuer(OWN_ISSUER, jwt["ALGORITHM"], settings.JWT_SECRET.encode(), jwt.get("ISSUER") or OWN_ISSUER)


def _names(kin: Iterable[Collection[str]], issuers: Iterable[Issuer]) -> dict[str, list[str]]:
    """Under which of today's names something is refused that was taken back under another one."""
    today = {issuer.name for issuer in issuers}
    return {name: [one for one in names if one in today] for names in kin for name in names}


def _keys(entries: Mapping[Entry, Fields], wall: float) -> dict[bytes, Identity]:
    """Two keys of one consumer share its limits' tuple, and so its account."""
    own = {name: limits(fields, "consumer-") for (kind, name), fields in entries.items() if kind == "plan"}
    found = {}
    for (kind, name), fields in entries.items():
        if kind != "key" or fields["revoked_at"] is not None:
            continue
        expires_at = _timestamp(fields["expires_at"])
        consumer = entries["consumer", fields["consumer"]]
        if consumer["enabled"] and expires_at > wall:
            plan = consumer["plan"] or ""
            found[bytes.fromhex(name)] = _identity(
                fields,
                consumer,
                bytes.fromhex(name),
                own.get(plan, ()),
                entries.get(("plan", plan)),
                expires_at,
            )
    return found


def _identity(
    key: Fields, consumer: Fields, digest: bytes, own: tuple[bucket.Limit, ...], plan: Fields | None,
    expires_at: float,
) -> Identity:  # fmt: skip
    scopes = frozenset(consumer["scopes"])
    name = key["consumer"]
    subject = f"key:{name}"
    by_key = plan is not None and plan["counted_by"] == "key"
    return Identity(
        subject=subject,
        name=name,
        roles=frozenset(consumer["roles"]),
        scopes=scopes if key["scopes"] is None else scopes & frozenset(key["scopes"]),
        limits=own,
        counted_as=of_one_key(subject, digest) if by_key else subject,
        is_exact=bool(plan and plan["exact"]),
        on_store_down=plan["on_store_down"] if plan else "",
        key_digest=digest,
        plan=consumer["plan"] or "",
        expires_at=expires_at,
    )


def _issuers(
    entries: Mapping[Entry, Fields], sources: Sources
) -> tuple[tuple[Issuer, ...], tuple[Outage, ...]]:
    rows = {
        name: fields for (kind, name), fields in entries.items() if kind == "issuer" and fields["enabled"]
    }
    found, outages = [], []
    for name, fields in rows.items():
        try:
            found.append(_issuer(name, fields, sources))
        except secret_box.Sealed as error:
            outages.append(Outage("issuer", name, "secret_sealed", str(error)))
        except ValueError as error:
            outages.append(Outage("issuer", name, "key_unusable", str(error)))
    # Also while the one that signs is out of service: another must not stand in for it.
    if not any(fields["signs"] for fields in rows.values()):
        found.append(default_issuer())
    return tuple(found), tuple(outages)


def _issuer(name: str, fields: Fields, sources: Sources) -> Issuer:
    """Raises ValueError, or secret_box.Sealed."""
    made = Issuer(
        name=name,
        algorithm=fields["algorithm"],
        key=_key(fields),
        issuer=fields["issuer"],
        audience=fields["audience"],
        source=_source(fields, sources),
        roles_claim=fields["roles_claim"],
        scope_claim=fields["scopes_claim"],
        leeway_s=fields["leeway_s"],
    )
    if made.source is None:
        made.check()
    return made


def _key(fields: Fields) -> bytes:
    if fields["algorithm"] in tokens.HMAC_HASHES:
        return secret_box.open_(fields["secret"]).encode()
    return str(fields["public_key"]).encode()


def _source(fields: Fields, sources: Sources) -> Jwks | None:
    url = fields["jwks_url"]
    if not url:
        return None
    key = (url, fields["algorithm"])
    if key not in sources:
        sources[key] = Jwks(*key)
    sources[key].keep_fresh()
    return sources[key]


def _timestamp(text: str | None) -> float:
    return math.inf if text is None else datetime.fromisoformat(text).timestamp()
