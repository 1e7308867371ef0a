"""What several of the queue's admin pages show alike."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.db.models import OuterRef, Subquery
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode

from foundation.admin import shortened
from queue_app import charts
from queue_app.models import Worker

_SPARK_WIDTH, _SPARK_HEIGHT = 120, 28


def once(shown: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    """Of a page's field that asks the database: the page's templates look at each field several times."""

    @functools.wraps(shown)
    def kept(page: Any, row: Any) -> str:
        found: dict[str, str] = row.__dict__.setdefault("_shown", {})
        if shown.__name__ not in found:
            found[shown.__name__] = shown(page, row)
        return found[shown.__name__]

    return kept


def worker_of(field: str) -> dict[str, Any]:
    """Annotations: host and pid of the worker whose id is in `field`; no foreign key, as rows of workers go away."""
    worker = Worker.objects.filter(id=OuterRef(field))
    return {f"worker_{name}": Subquery(worker.values(name)[:1]) for name in ("host", "pid")}


def worker_link(worker: Any, row: Any) -> str:
    if worker is None:
        return "-"
    if row.worker_pid is None:
        return shortened(str(worker))
    page = reverse("admin:queue_app_worker_change", args=[worker])
    return format_html('<a class="brain-link" href="{}">{}:{}</a>', page, row.worker_host, row.worker_pid)


def page_link(model: str, id: Any) -> str:
    if id is None:
        return "-"
    return link(reverse(f"admin:queue_app_{model}_change", args=[id]), shortened(str(id)))


def link(page: str, text: str) -> str:
    """A dash where there is no text."""
    return format_html('<a class="brain-link" href="{}">{}</a>', page, text) if text else "-"


def unbroken(text: str) -> str:
    """In one line: beside a long text the table would break it within its words."""
    return format_html('<span class="brain-nowrap">{}</span>', text)


def to_the_millisecond(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(" ", "milliseconds")[:23]


def queue_page(name: str, page: str = "change") -> str:
    """A page of the queue's: "change", or "live"."""
    return reverse(f"admin:queue_app_queue_{page}", args=[quote(name)])


def statistics_page(queue: str) -> str:
    return f"{reverse('admin:queue_app_rollup_changelist')}?{urlencode({'queue': queue})}"


def jobs_page(**wanted: str) -> str:
    """The list of jobs, narrowed by fields of a selection."""
    return f"{reverse('admin:queue_app_job_changelist')}?{urlencode(wanted)}"


def spark(values: Sequence[int]) -> str:
    """A sparkline, which says in words what it shows."""
    told = (
        f"{sum(values)} runs in the last hour, {max(values)} in its busiest minute"
        if values
        else "no runs in the last hour"
    )
    found = charts.spark(values or [0, 0], _SPARK_WIDTH, _SPARK_HEIGHT)
    return format_html(
        '<svg class="brain-spark" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<title>{}</title><polygon points="{}"/><polyline points="{}"/></svg>',
        _SPARK_WIDTH, _SPARK_HEIGHT, told, told, found.area, found.line,
    )  # fmt: skip


def key(*names: str) -> str:
    """An element's id that stays the same from look to look, so that htmx gives the focus back to it."""
    return f"k{zlib.crc32(chr(0).join(names).encode()):08x}"
