"""What several of the gateway's admin pages show alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from foundation import figures

NONE = "-"


def page(row: models.Model) -> str:
    return page_of(str(row._meta.model_name), row.pk)


def page_of(model: str, pk: Any) -> str:
    return reverse(f"admin:gateway_{model}_change", args=[pk])


def list_of(model: str, **wanted: Any) -> str:
    """A list, narrowed by what its address takes."""
    query = urlencode(wanted)
    return reverse(f"admin:gateway_{model}_changelist") + (f"?{query}" if query else "")


def link(row: models.Model | None) -> str:
    return NONE if row is None else to(page(row), str(row))


def to(address: str, text: str) -> str:
    return format_html('<a class="brain-link" href="{}">{}</a>', address, text)


def tag(text: str, tone: str = "") -> str:
    """tone: "good", "warn", "bad" or ""."""
    return format_html('<span class="brain-tag brain-tone-{}">{}</span>', tone or "none", text)


def dot(tone: str, told: str) -> str:
    """A coloured dot that says in words what it means."""
    return format_html(
        '<span class="brain-dot brain-tone-{}" role="img" title="{}" aria-label="{}"></span>',
        tone or "none", told, told,
    )  # fmt: skip


def words(values: Iterable[str], empty: str) -> str:
    """Short words one after another, long lists shortened; `empty` in a weaker colour."""
    found = list(values)
    if not found:
        return format_html('<span class="brain-weak">{}</span>', empty)
    shown = format_html_join(" ", "<code>{}</code>", ((value,) for value in found[:4]))
    more = format_html(" and {} more", len(found) - 4) if len(found) > 4 else ""
    return format_html('<span class="brain-words">{}{}</span>', shown, more)


def url(text: str) -> str:
    """A URL or a path of any length: it is cut in the middle of nowhere rather than widening the table."""
    return format_html('<span class="brain-cut" title="{}">{}</span>', text, text)


def ago(moment: datetime | None) -> str:
    """How long ago, with the moment as its tooltip."""
    if moment is None:
        return NONE
    seconds = (timezone.now() - moment).total_seconds()
    return format_html(
        '<span class="brain-nowrap" title="{}">{}</span>',
        f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}",
        figures.ago(max(0.0, seconds)),
    )


def counted(count: int, address: str) -> str:
    return to(address, figures.count(count)) if count else "0"
