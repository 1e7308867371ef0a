"""The issuers that are configured and those that were, as far as it matters to what was taken back (kin.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from django.conf import settings
from django.utils.crypto import salted_hmac

from . import secret_box
from .callers import OWN_ISSUER, default_issuer
from .entries import Change
from .kin import KEY, SECRET, SET, Known, groups, marked
from .models import JwtIssuer, KnownIssuer, RevokedToken, TokenCut
from .tokens import HMAC_HASHES

_READ = ("algorithm", "secret", "public_key", "jwks_url", "issuer", "signs")


def remember(name: str, fields: Mapping[str, Any]) -> None:
    """As an issuer was until now. Call it in the transaction that changes or deletes it."""
    for one in _known(name, fields)[:1]:
        if one not in _remembered(name):
            KnownIssuer.objects.create(name=name, mark=one.mark, issuer=one.issuer, signed=one.is_ours)


def rename(old: str, new: str) -> None:
    """What was taken back goes on under the new name, as the old one is free for somebody else."""
    KnownIssuer.objects.filter(name=old).update(name=new)
    for model in (RevokedToken, TokenCut):
        model._default_manager.filter(issuer=old).update(issuer=new)


def all_groups() -> list[frozenset[str]]:
    """Names that are of one issuer, where it has more than one."""
    found = [*_remembered(), *_own()]
    for name, *values in JwtIssuer.objects.values_list("name", *_READ):
        found += _known(name, dict(zip(_READ, values, strict=True)))
    return groups(found)


def names_of(name: str) -> frozenset[str]:
    """Its own among them."""
    return next((names for names in all_groups() if name in names), frozenset((name,)))


def takeovers(made: Iterable[Change]) -> dict[str, list[str]]:
    """Of the issuers that are new, or whose key is: under which other names something was taken back of them."""
    new = [change.name for change in made if change.kind == "issuer" and _has_another_key(change)]
    if not new:
        return {}
    taken_back = {
        name for model in (RevokedToken, TokenCut) for name in model._default_manager.values_list("issuer", flat=True).distinct()
    }  # fmt: skip
    of = {name: sorted((names_of(name) & taken_back) - {name}) for name in new}
    return {name: others for name, others in of.items() if others}


def _has_another_key(change: Change) -> bool:
    if change.after is None:
        return False
    return change.before is None or any(change.before[name] != change.after[name] for name in _READ)


def _remembered(name: str | None = None) -> list[Known]:
    rows = KnownIssuer.objects.all() if name is None else KnownIssuer.objects.filter(name=name)
    return [Known(*row) for row in rows.values_list("name", "mark", "issuer", "signed")]


def _own() -> list[Known]:
    own = default_issuer()
    return [
        Known(OWN_ISSUER, mark, own.issuer, is_ours=True)
        for mark in _of_secret(own.algorithm, own.key.decode())
    ]


def _known(name: str, fields: Mapping[str, Any]) -> list[Known]:
    """More than one where the site has more than one SECRET_KEY, by which a secret is marked: the current one first."""
    marks = _marks(fields) or [""]
    return [Known(name, mark, fields["issuer"], bool(fields["signs"])) for mark in marks]


def _marks(fields: Mapping[str, Any]) -> list[str]:
    algorithm = fields["algorithm"]
    if algorithm in HMAC_HASHES:
        try:
            return _of_secret(algorithm, secret_box.open_(fields["secret"]))
        except secret_box.Sealed:
            return []
    if fields["jwks_url"]:
        return [marked(algorithm, SET, _plain(fields["jwks_url"]))]
    return [marked(algorithm, KEY, hashlib.sha256(_der(fields["public_key"])).hexdigest())]


def _of_secret(algorithm: str, secret: str) -> list[str]:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    digests = [
        salted_hmac("gateway.known_issuers", secret, key, algorithm="sha256").hexdigest() for key in keys
    ]
    return [marked(algorithm, SECRET, digest) for digest in digests]


def _plain(url: str) -> str:
    """One spelling of an address, as far as it is not case-sensitive."""
    parts = urlsplit(url.strip())
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower(), fragment="").geturl()


def _der(pem: str) -> bytes:
    """The key itself: the same one can be written in many ways."""
    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return "".join(pem.split()).encode()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
