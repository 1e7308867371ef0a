"""The audit log: who did what to what, with the values before and after, secrets masked."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import models, transaction
from django.http import HttpRequest

from . import request_id as request_ids
from .models import AuditEntry

MASK = "***"
_SECRET_KEY = re.compile(
    r"passw|passphrase|^pw$|secret|token|credential|authori[sz]ation|cookie|session_?id|signature|dsn$|pepper|otp$"
    r"|(api|private|signing|access|encryption|hmac|ssh)[_\-. ]?key|^key$|jwks?$|salt$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?P<start>\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)


def record(
    *,
    actor: Any,
    action: str,
    target: models.Model | str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
) -> AuditEntry:
    """Write one entry, in the caller's transaction: an action that rolls back leaves none.

    actor: a user, a name, or None for the platform itself. action: "noun.verb". target: a model instance or "label:id".
    source: "admin", "api", "cli" or "system". Secrets are masked by the names of their keys.
    """
    name, actor_id = _who(actor)
    label, target_id = _what(target)
    return AuditEntry.objects.create(
        actor=name[:150],
        actor_id=actor_id[:64],
        action=action,
        target_label=label[:100],
        target_id=target_id[:255],
        before=mask(before),
        after=mask(after),
        source=AuditEntry.Source(source),
        request_id=request_id or request_ids.current() or "",
        ip=_address(ip),
    )


def by(request: HttpRequest, source: str) -> dict[str, Any]:
    """The part of `record`'s arguments that a request knows: `record(action=…, target=…, **by(request, "api"))`."""
    user = getattr(request, "user", None)
    return {
        "actor": user if user is not None and user.is_authenticated else None,
        "source": source,
        "request_id": request_ids.current(),
        "ip": request.META.get("REMOTE_ADDR") or None,
    }


def prune(before: datetime, *, actor: Any, source: str) -> int:
    """Drop the entries older than `before` (the house's retention) and record that it was done. Returns how many."""
    with transaction.atomic():
        dropped = AuditEntry.objects.expire(before)
        if dropped:
            gone = {"entries": dropped, "before": before}
            record(
                actor=actor, action="audit.prune", target="foundation.AuditEntry", after=gone, source=source
            )
    return dropped


def mask(value: Any) -> Any:
    """`value` as JSON types, with secrets replaced by `***`: by key name, and passwords inside URLs."""
    if isinstance(value, Mapping):
        return {_text(str(k)): _mask_entry(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON columns refuse NaN and Infinity
    return _URL_PASSWORD.sub(rf"\g<start>:{MASK}@", _text(str(value)))


def _mask_entry(key: str, value: Any) -> Any:
    # None and "" stay visible: whether a secret was set is what the reader of a log wants to know.
    # The name of the header that carries a secret is none.
    is_secret = _SECRET_KEY.search(key) and not key.endswith("_header")
    return MASK if is_secret and value not in (None, "", False, True) else mask(value)


def _text(value: str) -> str:
    return value.replace("\x00", "\ufffd")  # PostgreSQL stores no NUL in text or jsonb


def _who(actor: Any) -> tuple[str, str]:
    if actor is None:
        return "system", ""
    if isinstance(actor, str):
        return _text(actor), ""
    pk = getattr(actor, "pk", None)
    return _text(str(actor)), "" if pk is None else str(pk)


def _what(target: models.Model | str) -> tuple[str, str]:
    if isinstance(target, models.Model):
        return target._meta.label, str(target.pk)
    label, _, target_id = _text(target).partition(":")
    return label, target_id


def _address(ip: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address(ip)) if ip else None
    except ValueError:
        return None  # a unix socket's peer, or a test's made-up host
