"""Rows by what stands in an address: `services/billing` or `services/17`. Digits alone are an id, never a name."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound

_LONGEST_ID = 18  # digits; more of them do not fit into a bigint


def is_id(ref: str) -> bool:
    return ref.isascii() and ref.isdecimal()


def named(rows: QuerySet[Any], name: str) -> Any:
    """None where there is none."""
    # PostgreSQL takes no NUL, not even to compare with.
    return None if "\x00" in name else rows.filter(name=name).first()


def find(rows: QuerySet[Any], ref: str | int) -> Any:
    """Raises NotFound."""
    ref = str(ref)
    if is_id(ref):
        row = rows.filter(pk=int(ref)).first() if len(ref) <= _LONGEST_ID else None
    else:
        row = named(rows, ref)
    if row is None:
        raise NotFound(f"There is no {rows.model._meta.verbose_name} {ref[:200]!r}.")
    return row
