"""System checks of DATABASES: what Django accepts without a word and production regrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

_ENTRY_KEYS = {
    "ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "TEST", "TIME_ZONE", "AUTOCOMMIT",
    "ATOMIC_REQUESTS", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS", "DISABLE_SERVER_SIDE_CURSORS",
}  # fmt: skip


@register("orm_app")
def databases_are_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return unsound(settings.DATABASES, has_asgi=bool(getattr(settings, "ASGI_APPLICATION", None)))


def unsound(databases: Mapping[str, Mapping[str, Any]], *, has_asgi: bool) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias, entry in databases.items():
        found += misplaced(alias, entry)
        found += outliving(alias, entry, has_asgi=has_asgi)
        found += locking(alias, entry)
    return found


def misplaced(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    """OPTIONS beside "default" instead of inside it, or an option beside OPTIONS: Django ignores both silently."""
    if alias in _ENTRY_KEYS:
        where = f"Move it into DATABASES['default'][{alias!r}]."
        return [_error("E001", f"DATABASES[{alias!r}] is read as a database named {alias!r}.", where)]
    return [
        _error(
            "E002",
            f"DATABASES[{alias!r}][{key!r}] has no effect.",
            f"Move it into DATABASES[{alias!r}]['OPTIONS'], or remove it.",
        )
        for key in entry
        if key not in _ENTRY_KEYS
    ]


def outliving(alias: str, entry: Mapping[str, Any], *, has_asgi: bool) -> list[CheckMessage]:
    if not has_asgi or entry.get("CONN_MAX_AGE", 0) == 0:
        return []
    hint = "Set it to 0 and use a pool: OPTIONS['pool'] on PostgreSQL."
    text = f"DATABASES[{alias!r}]['CONN_MAX_AGE'] leaks a connection for each request under ASGI."
    return [_warning("W001", text, hint)]


def locking(alias: str, entry: Mapping[str, Any]) -> list[CheckMessage]:
    if entry.get("ENGINE") not in ("orm_app.sqlite", "django.db.backends.sqlite3"):
        return []
    found = []
    if str(entry.get("OPTIONS", {}).get("transaction_mode", "")).upper() != "IMMEDIATE":
        hint = (
            "Set OPTIONS['transaction_mode'] = 'IMMEDIATE', or build the entry by orm_app.databases.from_url."
        )
        text = (
            f"DATABASES[{alias!r}] fails with 'database is locked' when two transactions read and then write."
        )
        found.append(_warning("W002", text, hint))
    if entry.get("ATOMIC_REQUESTS"):
        text = (
            f"DATABASES[{alias!r}]['ATOMIC_REQUESTS'] makes every request wait for the one writer of SQLite."
        )
        found.append(
            _warning("W003", text, "Open a transaction where something is written: db.transaction().")
        )
    return found


def _error(number: str, text: str, hint: str) -> CheckMessage:
    return Error(text, hint=_with_anchor(hint, number), id=f"orm_app.{number}")


def _warning(number: str, text: str, hint: str) -> CheckMessage:
    return Warning(text, hint=_with_anchor(hint, number), id=f"orm_app.{number}")


def _with_anchor(hint: str, number: str) -> str:
    return f"{hint} See docs/checks.md#orm_app-{number.lower()}."
