"""What several of the queue's admin pages show alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Subquery
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from foundation.admin import shortened
from queue_app.models import Worker


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
    page = reverse(f"admin:queue_app_{model}_change", args=[id])
    return format_html('<a class="brain-link" href="{}">{}</a>', page, shortened(str(id)))


def to_the_millisecond(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(" ", "milliseconds")[:23]
