"""Backups and restores in the audit log, where there is one: a restored database may be older than its table."""

from __future__ import annotations

from typing import Any

from django.db import connections

from foundation import audit
from foundation.models import AuditEntry


def record(action: str, alias: str, *, actor: Any, source: str, after: dict[str, Any]) -> None:
    if AuditEntry._meta.db_table in connections["default"].introspection.table_names():
        audit.record(actor=actor, action=action, target=f"database:{alias}", after=after, source=source)
