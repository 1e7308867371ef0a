"""The configuration in YAML and in the database: load, diff, apply, export.

Both are read into the same entries, so a diff compares two mappings, and apply writes what the diff names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import ProtectedError

from . import changes, document, entries, lookups, rows, secret_box, tokens
from . import export as exporting
from .document import Document
from .entries import SETTING, Change, Entry, Fields
from .errors import InvalidDocument
from .models import ApiKey, EndedKey, Service
from .rows import current, entry_of

__all__ = [
    "Change",
    "Document",
    "apply",
    "current",
    "diff",
    "entry_of",
    "export",
    "load",
    "set_targets",
    "stay_revoked",
    "with_targets",
]

_OWNED = {
    "target": ("service",),
    "transform": ("route", "service"),
}  # a document that names the owner names all of them


def load(text: str) -> Document:
    """Raises InvalidDocument. Weak secrets are warnings in development and problems in production."""
    loaded = document.load(text, production=settings.PRODUCTION)
    whole = {entry: {**rows.defaults(entry[0]), **fields} for entry, fields in loaded.entries.items()}
    return _checked(replace(loaded, entries=whole, warnings=(*loaded.warnings, *_open_ends(loaded))))


def with_targets(wanted: Document, service: str, urls: Sequence[str]) -> Document:
    """The document with other targets for one of its services. Raises KeyError when it has none of that
    name."""
    wanted.entries["service", service]
    kept = {
        e: fields for e, fields in wanted.entries.items() if e[0] != "target" or fields["service"] != service
    }
    return replace(wanted, entries=kept | _targets(service, urls), is_checked=False)


def diff(wanted: Document, *, prune: bool = False) -> list[Change]:
    """What `apply` would do, in its order. prune: what the document does not name is deleted, else it is left alone;
    revoked keys always stay. Raises InvalidDocument for names that nobody has."""
    have = current()
    named = {
        entry: _resolved(wanted, entry, fields, have.get(entry)) for entry, fields in wanted.entries.items()
    }
    gone = {
        entry: None
        for entry, fields in have.items()
        if entry not in named and _goes(wanted, entry, fields, prune)
    }
    problems = [
        f"{wanted.place(entry, field)}: {told}"
        for entry, field, told in entries.loose_ends(
            named.items(), named | {entry: fields for entry, fields in have.items() if entry not in gone}
        )
    ]
    problems += _without_key(wanted, named, have)
    if problems:
        raise InvalidDocument(problems)
    return entries.compare(have, {**_one_signer(named, have), **named, **gone})


def apply(wanted: Document, *, prune: bool = False, **trace: Any) -> list[Change]:
    """Make the database say what the document says, all of it or nothing. Raises InvalidDocument.

    trace: actor, source, … as changes.change takes them.
    """
    _checked(wanted)  # before the transaction, as names are resolved, which can take a while
    try:
        with changes.change(**trace) as writing:
            pending = diff(wanted, prune=prune)
            writing.look_up(pending)
            for change in pending:
                _write(writing, change, wanted)
        return pending
    except IntegrityError as error:
        entry, refused = writing.refused(error)
        raise InvalidDocument(_problems(wanted, entry, refused)) from error
    except ValidationError as error:  # of all together
        raise InvalidDocument(error.messages) from error


def set_targets(service: str, urls: Sequence[str], **trace: Any) -> list[Change]:
    """Replace the targets of a service. Raises Service.DoesNotExist."""
    Service.objects.get(name=service)
    own = {
        entry: fields
        for entry, fields in current().items()
        if entry == ("service", service) or (entry[0] == "transform" and fields["service"] == service)
    }
    return apply(Document(own | _targets(service, urls)), **trace)


def stay_revoked(wanted: Document) -> list[str]:
    """Keys that the document names and that were revoked: revoking is for good, so they are left as they are."""
    digests = [name for kind, name in wanted.entries if kind == "key"]
    revoked = {
        digest
        for model in (ApiKey, EndedKey)
        for digest in model.objects.filter(digest__in=digests, revoked_at__isnull=False).values_list(
            "digest", flat=True
        )
    }
    return [
        f"{wanted.place(('key', d))}: this key was revoked and stays so; take it out" for d in sorted(revoked)
    ]


def export() -> str:
    """The database as a document that `load` takes, without secrets."""
    return exporting.text(current(), rows.initial)


def _targets(service: str, urls: Sequence[str]) -> dict[Entry, Fields]:
    usual = rows.defaults("target")
    return {("target", f"{service} {url}"): {**usual, "service": service, "url": url} for url in urls}


def _checked(wanted: Document) -> Document:
    """The document, when its entries are what the models take, each by itself. Raises InvalidDocument."""
    if wanted.is_checked:
        return wanted
    lookups.ahead(entries.urls(wanted.entries.values()))
    problems = [
        f"{_place(wanted, entry, field)}: {' '.join(texts)}"
        for entry, fields in wanted.entries.items()
        for field, texts in rows.check(*entry, fields, wanted.entries).items()
    ]
    if problems:
        raise InvalidDocument(problems)
    return replace(wanted, is_checked=True)


# --- what a document wants -------------------------------------------------------------------------------------------
def _resolved(wanted: Document, entry: Entry, fields: Fields, before: Fields | None) -> Fields:
    """With an issuer's secret sealed; one that is the same stays sealed as it is."""
    secret = wanted.secrets.get(entry[1]) if entry[0] == "issuer" else None
    if secret is None:
        return fields
    sealed = (before or {}).get("secret")
    return {**fields, "secret": sealed if sealed and _opens(sealed, secret) else secret_box.seal(secret)}


def _opens(sealed: str, secret: str) -> bool:
    try:
        return secret_box.open_(sealed) == secret
    except secret_box.Sealed:
        return False


def _goes(wanted: Document, entry: Entry, fields: Fields, prune: bool) -> bool:
    if entry == SETTING:
        return False
    owners = [(link, fields[link]) for link in _OWNED.get(entry[0], ())]
    if any(owner in wanted.entries for owner in owners):
        return True
    # A revoked key is kept so that nobody brings it back by chance; it goes with its consumer.
    return prune and not (entry[0] == "key" and fields["revoked_at"] is not None)


def _one_signer(named: Mapping[Entry, Fields], have: Mapping[Entry, Fields]) -> dict[Entry, Fields]:
    """Who signs now lets go of it when the document names another."""
    if not any(entry[0] == "issuer" and fields.get("signs") for entry, fields in named.items()):
        return {}
    return {
        entry: {"signs": None}
        for entry, fields in have.items()
        if entry[0] == "issuer" and fields["signs"] and entry not in named
    }


def _without_key(wanted: Document, named: Mapping[Entry, Fields], have: Mapping[Entry, Fields]) -> list[str]:
    """Issuers whose tokens could not be checked."""
    found = []
    for entry, fields in named.items():
        if entry[0] != "issuer":
            continue
        if fields["algorithm"] in tokens.HMAC_HASHES:
            if not fields.get("secret") and not have.get(entry, {}).get("secret"):
                key = "authentication.jwt_secret" if entry[1] == document.OWN else "secret"
                found.append(f"{wanted.place(entry)}: {key} is needed the first time")
        elif not fields["public_key"] and not fields["jwks_url"]:
            found.append(f"{wanted.place(entry)}: give public_key or jwks_url for {fields['algorithm']}")
    return found


def _place(wanted: Document, entry: Entry, field: str) -> str:
    if entry[0] == "route" and field == "name" and "name" not in wanted.places.get(entry, {}):
        return f"{wanted.place(entry)}: give it a name, as its path cannot be one"
    return wanted.place(entry, field)


def _open_ends(loaded: Document) -> list[str]:
    found = entries.loose_ends(loaded.entries.items(), loaded.entries)
    return [f"{loaded.place(entry, link)}: {told} in this document" for entry, link, told in found]


def _write(writing: changes.Writing, change: Change, wanted: Document) -> None:
    try:
        if change.after is None:
            writing.remove(change.kind, change.name)
        else:
            writing.put(change.kind, change.name, change.after)
    except ValidationError as error:
        raise InvalidDocument(_problems(wanted, change.entry, error)) from error
    except ProtectedError as error:
        raise InvalidDocument([f"{change}: others need it"]) from error


def _problems(wanted: Document, entry: Entry, error: ValidationError) -> list[str]:
    return [f"{wanted.place(entry, field)}: {' '.join(texts)}" for field, texts in rows.told(error).items()]
