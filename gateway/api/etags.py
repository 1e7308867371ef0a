"""Optimistic locking as HTTP has it (RFC 9110 section 13): a row's ETag is a hash of what the API shows of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpRequest
from django.utils.http import parse_etags
from rest_framework.utils.encoders import JSONEncoder

from .answers import PreconditionFailed


def of(shown: Mapping[str, Any], *, apart_from: Collection[str] = ()) -> str:
    """apart_from: fields that change without anybody's doing, such as the time of a key's last use."""
    kept = {name: value for name, value in shown.items() if name not in apart_from}
    text = JSONEncoder(sort_keys=True, separators=(",", ":")).encode(kept)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:20]}"'


def require_match(request: HttpRequest, etag: str | None) -> None:
    """Raises PreconditionFailed. etag: of what is there, None where nothing is."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and not _matches(wanted, etag):
        raise PreconditionFailed(
            "It was changed since you read it: read it again." if etag else "It does not exist."
        )
    unwanted = request.headers.get("If-None-Match")
    if unwanted is not None and _matches(unwanted, etag):
        raise PreconditionFailed("It exists.")


def is_known(request: HttpRequest, etag: str) -> bool:
    """Whether the client of a GET has this version already."""
    known = request.headers.get("If-None-Match")
    return known is not None and _matches(known.replace("W/", ""), etag)


def _matches(header: str, etag: str | None) -> bool:
    if etag is None:
        return False
    return header.strip() == "*" or etag in parse_etags(header)
