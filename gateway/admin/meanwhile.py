"""Whether somebody changed a row between the opening of its page and the saving of its form, which would put the old
values back without a word: an operator drains a target, and the admin who came first saves the service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from django.db import models
from django.utils.html import format_html

from gateway import history, rows
from gateway.models import Revision

from . import cells

FIELD = "_seen"  # of the form: what its page was made of
_LOOKED_AT = 50  # revisions, for the one to name


def mark(row: models.Model, inside: Collection[type[models.Model]]) -> str:
    """`VERSION.HASH` of what the row's page shows. inside: the models of rows that are edited on the same page."""
    stored = rows.fresh([row])  # a form that was refused has left its values in `row`
    stored += [one for one in rows.dependents(row, owned=True) if type(one) in inside]
    shown = [rows.entry_of(one) for one in stored]
    return f"{history.newest()}.{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:20]}"


def told(row: models.Model, inside: Collection[type[models.Model]], seen: str) -> str:
    """What came between, as HTML; "" when nothing did."""
    version, _, shown = seen.partition(".")
    if mark(row, inside).partition(".")[2] == shown:
        return ""
    after = "Nothing was saved. Save again to put what stands here in its place."
    came = _between(row, int(version) if version.isdecimal() and len(version) < 19 else 0)
    if came is None:
        return f"It was changed since you opened this page. {after}"
    where = cells.to(cells.page_of("revision", came.pk), f"version {came.version}")
    return format_html("{} changed it since you opened this page ({}). {}", came.actor, where, after)


def _between(row: models.Model, since: int) -> Revision | None:
    kind, name, _ = rows.entry_of(row)
    for revision in history.revisions().filter(version__gt=since)[:_LOOKED_AT]:
        if any(_is_about(change, kind, name) for change in revision.changes):
            return revision
    return None


def _is_about(change: dict[str, Any], kind: str, name: str) -> bool:
    fields = change["after"] or change["before"]
    return (change["kind"], change["name"]) == (kind, name) or fields.get(kind) == name
