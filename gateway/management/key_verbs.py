"""`manage.py gateway key create|list|rotate|revoke`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from foundation.commands import USAGE, BrainCommand, Failed
from gateway import changes
from gateway.models import ApiKey, Consumer

DAY_S = 86_400
_SHORTEST = 8  # characters of a SHA-256 that name a key


class KeyVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        parser = self._command.verb("key", self.list, "API keys; alone it lists them.")
        group = parser.add_subparsers(title="actions", metavar="", dest="action")
        made = self._command.action(
            group, "create", self.create, "Make a key for a consumer and show it once."
        )
        made.add_argument("consumer")
        made.add_argument("--days", type=int, help="days until it expires (default: never)")
        made.add_argument("--scopes", nargs="+", help="of the consumer's (default: all of them)")
        listed = self._command.action(group, "list", self.list, "The keys, without their secrets.")
        listed.add_argument("consumer", nargs="?")
        turned = self._command.action(
            group, "rotate", self.rotate, "Make a key in place of one, and show it once."
        )
        turned.add_argument("key", help="its prefix (brn_PREFIX_…), or the begin of its SHA-256")
        turned.add_argument(
            "--overlap-s",
            type=float,
            default=DAY_S,
            help=f"seconds that the old one works on (default {DAY_S})",
        )
        ended = self._command.action(group, "revoke", self.revoke, "Turn a key away from now on, for good.")
        ended.add_argument("key", help="its prefix (brn_PREFIX_…), or the begin of its SHA-256")

    def create(self, *, consumer: str, days: int | None, scopes: list[str] | None, **options: Any) -> None:
        if days is not None and not 1 <= days <= 36_500:
            raise Failed("--days is a number from 1 to 36500", code=USAGE)
        expires_at = timezone.now() + timedelta(days=days) if days else None
        try:
            row, text = changes.issue_key(
                _consumer(consumer), scopes=scopes, expires_at=expires_at, **self._trace()
            )
        except ValidationError as error:
            raise Failed("; ".join(error.messages), hint="Give the consumer the scope first.") from error
        self._show(row, text)

    def rotate(self, *, key: str, overlap_s: float, **options: Any) -> None:
        old = _key(key)
        try:
            row, text = changes.rotate_key(old, overlap_s=overlap_s, **self._trace())
        except ValidationError as error:
            hint = f"`manage.py gateway key create {old.consumer.name}` makes one."
            raise Failed("; ".join(error.messages), hint=hint) from error
        self._show(row, text, old_expires_at=old.expires_at)

    def revoke(self, *, key: str, **options: Any) -> None:
        row = _key(key)
        was = row.revoked_at
        changes.revoke_key(row, **self._trace())
        told = "was revoked already" if was else "is revoked"
        self._command.line(f"{row} of {row.consumer.name} {told}")
        self._command.document({"key": str(row), "consumer": row.consumer.name, "revoked_at": row.revoked_at})

    def list(self, *, consumer: str | None = None, **options: Any) -> None:
        found = ApiKey.objects.select_related("consumer").order_by("consumer__name", "pk")
        if consumer is not None:
            found = found.filter(consumer=_consumer(consumer))
        columns = ("key", "sha256", "consumer", "scopes", "state", "created_at", "expires_at", "last_used_at")
        self._command.table(columns, [_row(row) for row in found])

    def _show(self, row: ApiKey, text: str, **more: Any) -> None:
        self._command.line(text)
        self._command.stderr.write("This is the only time that the key is shown.", lambda text: text)
        told = {
            "key": text,
            "consumer": row.consumer.name,
            "prefix": row.prefix,
            "expires_at": row.expires_at,
        }
        self._command.document(told | more)


def _consumer(name: str) -> Consumer:
    row = Consumer.objects.filter(name=name).first()
    if row is None:
        known = ", ".join(Consumer.objects.values_list("name", flat=True)[:10]) or "none yet"
        hint = f"Known consumers: {known}. Make one in the admin, or in a document that you apply."
        raise Failed(f"there is no consumer {name!r}", hint=hint)
    return row


def _key(told: str) -> ApiKey:
    """By prefix or by the begin of its digest; of a whole key that somebody pasted its prefix is enough."""
    prefix = told.split("_")[1] if told.startswith("brn_") else told
    wanted = Q(prefix=prefix) & ~Q(prefix="")
    if len(told) >= _SHORTEST:
        wanted |= Q(digest__startswith=told)
    found = list(ApiKey.objects.select_related("consumer").filter(wanted)[:2])
    if len(found) != 1:
        what = "several keys begin so" if found else "there is no such key"
        raise Failed(f"{prefix}: {what}", hint="`manage.py gateway key list` shows them.")
    return found[0]


def _row(key: ApiKey) -> tuple[Any, ...]:
    if key.revoked_at is not None:
        state = "revoked"
    else:
        state = "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "valid"
    dates = (key.created_at, key.expires_at, key.last_used_at)
    scopes = None if key.scopes is None else " ".join(key.scopes)
    told = [date and date.isoformat(timespec="seconds") for date in dates]
    return (str(key), key.digest[:12], key.consumer.name, scopes, state, *told)
