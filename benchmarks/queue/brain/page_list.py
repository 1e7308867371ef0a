"""Which pages read the ledger: found in the admin's registry and in the API's URLs, so that a later one is measured too.

admin registry, queue_app.urls → address of each page that can be looked at → with each of its queries from QUERIES

An address that needs a row of nobody knows which table is told, and not passed over in silence.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.db.models import Count, Model, QuerySet
from django.urls import reverse
from unfold.admin import ModelAdmin

from foundation.admin import MOST_COUNTED
from queue_app import urls
from queue_app.models import Alert, AlertRule, BulkAction, Job, Queue, Schedule, Worker, Workflow

API = "/api/v1/queue/"
_ARGUMENT = re.compile(r"<[^>]+>")
_SITE = {"admin: first page": "/admin/", "admin: overview": "/admin/overview/", "metrics": "/metrics"}

# The fields by which jobs are found, alone and together, frequent ones and rare ones.
_SELECTIONS = {
    "state COMPLETED": "state=COMPLETED",
    "state PENDING": "state=PENDING",
    "state PROCESSING": "state=PROCESSING",
    "state FAILED": "state=FAILED",
    "state DEAD_LETTER": "state=DEAD_LETTER",
    "state CANCELLED": "state=CANCELLED",
    "queue, frequent": "queue={queue}",
    "queue, rare": "queue={rare_queue}",
    "queue, none": "queue=nothing",
    "queue and COMPLETED": "queue={queue}&state=COMPLETED",
    "queue and DEAD_LETTER": "queue={queue}&state=DEAD_LETTER",
    "rare queue and PENDING": "queue={rare_queue}&state=PENDING",
    "rare queue and CANCELLED": "queue={rare_queue}&state=CANCELLED",
    "task, frequent": "task={task}",
    "task, rare": "task={rare_task}",
    "task and tenant": "task={task}&tenant={tenant}",
    "tenant, frequent": "tenant={tenant}",
    "tenant, rare": "tenant={rare_tenant}",
    "tenant and DEAD_LETTER": "tenant={rare_tenant}&state=DEAD_LETTER",
    "worker": "worker={owner}",
    "worker, by its host": "worker={host}",
    "tag, frequent": "tag=tag-7",
    "tag, rare": "tag=rare",
    "tag and state": "tag=tag-7&state=CANCELLED",
    "arguments, frequent": "arguments=customer.country=DE",
    "arguments, rare": "arguments=customer.id=7",
    "arguments, none": "arguments=customer.id=x",
    "arguments and queue": "queue={queue}&arguments=customer.id=7",
    "since": "since=1h",
    "until": "until=15d",
    "a day and a queue": "since=11d&until=10d&queue={rare_queue}",
    "failure, frequent": "fingerprint={fingerprint}",
    "failure, rare": "fingerprint={rare_fingerprint}",
    "request id": "request_id={request_id}",
    "request id, none": "request_id=nothing",
}

# What each page is asked, besides nothing: label → query string. Words in braces are samples; `{page}` is the last page
# middle of the list, `{cursor}` a place in the middle of it.
QUERIES: dict[str, dict[str, str]] = {
    "admin job": {
        "deep": "p={page}",
        **_SELECTIONS,
        "search by id": "q={job}",
        "search by request id": "q={request_id}",
        "search, nothing found": "q=nothing",
    },
    "api jobs": {"deep": "cursor={cursor}", "page of 500": "page_size=500", **_SELECTIONS},
    "admin workflow": {
        "deep": "p={page}",
        "kind": "kind__exact=chain",
        "open": "finished_at__isempty=1",
        "over": "finished_at__isempty=0",
        "search": "q=import 7",
        "search by id": "q={workflow}",
    },
    "api workflows": {"deep": "cursor={cursor}", "kind": "kind=chain", "open": "finished=false"},
    "api workflows/<uuid:pk>/jobs": {"page of 500": "page_size=500"},
    "admin firing": {
        "deep": "p={page}",
        "missed": "outcome__exact=missed",
        "one schedule's": "schedule__id__exact={schedule}",
    },
    "admin alert": {"deep": "p={page}", "firing": "state__exact=firing", "search": "q=latency"},
    "admin schedule": {"paused": "paused__exact=1", "search": "q=task_07"},
    "admin tenant": {"one queue's": "queue__name__exact={queue}", "search": "q=tenant-1"},
    "admin worker": {"deep": "p={page}"},
    "admin queue": {"search": "q=q1"},
    "admin bulkaction/start": {
        "all": "action=cancel",
        "of a failure": "action=replay&fingerprint={fingerprint}",
    },
    "admin bulkaction/desk": {"queue": "queue={queue}", "since": "since=1d"},
    "api dead-letters": {
        "queue": "queue={queue}",
        "task": "task={task}",
        "failure": "fingerprint={fingerprint}",
    },
    "admin rollup": {
        "6 hours": "since=6h",
        "a day": "since=24h",
        "7 days": "since=7d",
        "30 days": "since=30d",
        "30 days of a queue": "since=30d&queue={queue}",
    },
    "api stats": {
        "6 hours": "since=6h",
        "a day": "since=24h",
        "7 days": "since=7d",
        "30 days": "since=30d",
        "30 days of a queue": "since=30d&queue={queue}",
        "30 days of a task": "since=30d&name={task}",
        "30 days of a tenant": "since=30d&tenant={tenant}",
    },
}


@dataclass(frozen=True, slots=True)
class Page:
    """One address as it is asked for. name: for the reader of the table."""

    name: str
    address: str


def samples() -> dict[str, str]:
    """What stands for the words in addresses and queries: the most and the least frequent ones, and rows of every kind."""
    queues, tasks, tenants = (
        _by_frequency(Job.objects.all(), field) for field in ("queue", "name", "tenant")
    )
    dead = Job.objects.filter(state="DEAD_LETTER")
    failures = _by_frequency(dead, "fingerprint")
    middle = Job.objects.count() // 2
    found = {
        "queue": queues[0],
        "rare_queue": queues[-1],
        "task": tasks[0],
        "rare_task": tasks[-1],
        "tenant": next(filter(None, tenants)),
        "rare_tenant": tenants[-1],
        "fingerprint": failures[0],
        "rare_fingerprint": failures[-1],
        "job": dead.values_list("id", flat=True).latest("id"),
        "host": Worker.objects.values_list("host", flat=True).latest("last_seen_at"),
        "owner": Worker.objects.values_list("id", flat=True).latest("last_seen_at"),
        "request_id": Job.objects.exclude(request_id="").values_list("request_id", flat=True).latest("id"),
        "cursor_id": Job.objects.order_by("id").values_list("id", flat=True)[middle],
        "workflow": Workflow.objects.order_by("-total").values_list("id", flat=True)[0],
        "schedule": Schedule.objects.earliest("id").id,
    }
    return {name: str(value) for name, value in found.items()}


def pages(known: Mapping[str, str]) -> tuple[list[Page], list[str]]:
    """Every page with each of its queries; and what could not be addressed, each with its reason."""
    found: list[Page] = []
    notes: list[str] = []
    for name, address, rows in (*_admin(known), *_api(known, notes), *_site()):
        found.append(Page(name, address))
        for label, query in QUERIES.get(name, {}).items():
            words = {**known, **rows()}
            found.append(Page(f"{name}, {label}", f"{address}?{query.format_map(words)}"))
    named = {page.name for page in found}
    notes += [f"{name}: QUERIES names it, and there is no such page" for name in QUERIES if name not in named]
    return found, notes


# Whose row an address of the API names, by what stands before the argument.
_MODELS: dict[str, type[Model]] = {
    "jobs": Job,
    "workers": Worker,
    "queues": Queue,
    "workflows": Workflow,
    "schedules": Schedule,
    "bulk-actions": BulkAction,
    "alerts": Alert,
    "alerts/rules": AlertRule,
}
Words = Callable[[], dict[str, str]]


def _admin(known: Mapping[str, str]) -> Iterator[tuple[str, str, Words]]:
    """Of each model: its list, a row's page, the page for a new one, and the pages that its class adds."""
    admin.autodiscover()  # wherever else it is done
    for model, page in admin.site._registry.items():
        meta = model._meta
        if meta.app_label != "queue_app":
            continue
        name, prefix = f"admin {meta.model_name}", f"admin:queue_app_{meta.model_name}"
        yield name, reverse(f"{prefix}_changelist"), lambda model=model, page=page: _last_page(model, page)
        known_as = {pattern.name for pattern in page.get_urls()}
        if f"queue_app_{meta.model_name}_change" in known_as:
            yield f"{name}, one", reverse(f"{prefix}_change", args=[_row(model, known)]), dict
        if f"queue_app_{meta.model_name}_add" in known_as:
            yield f"{name}, new", reverse(f"{prefix}_add"), dict
        usual = {pattern.name for pattern in ModelAdmin.get_urls(page)}  # actions among them: a GET may act
        for pattern in page.get_urls():
            if pattern.name and pattern.name not in usual and not _ARGUMENT.search(str(pattern.pattern)):
                yield f"{name}/{str(pattern.pattern).strip('/')}", reverse(f"admin:{pattern.name}"), dict


def _api(known: Mapping[str, str], notes: list[str]) -> Iterator[tuple[str, str, Words]]:
    for pattern in urls.urlpatterns:
        route, view = str(pattern.pattern), getattr(pattern.callback, "view_class", None)
        if view is None or not hasattr(view, "get"):
            continue
        model = _MODELS.get(route.partition("/<")[0])
        if _ARGUMENT.search(route) and model is None:
            notes.append(f"api {route}: MODELS does not say whose rows these are")
            continue
        address = API + (_ARGUMENT.sub(_row(model, known), route) if model else route)
        is_by_id = str(getattr(getattr(view, "pagination_class", None), "ordering", "")) == "-id"
        yield f"api {route}", address, lambda by_id=is_by_id: _middle_place(known) if by_id else {}


def _site() -> Iterator[tuple[str, str, Words]]:
    """Pages of the site that read the ledger among other things."""
    for name, address in _SITE.items():
        yield name, address, dict


def _row(model: type[Model], known: Mapping[str, str]) -> str:
    """The key of the row whose page is asked for: a large one where rows differ in size, else the newest."""
    chosen = {Job: "job", Workflow: "workflow", Queue: "queue"}.get(model)
    return known[chosen] if chosen else str(model._default_manager.values_list("pk", flat=True).latest("pk"))


def _last_page(model: Any, page: Any) -> dict[str, str]:
    most = min(model.objects.count(), MOST_COUNTED)  # further a list does not go
    return {"page": str(max(1, most // page.list_per_page))}


def _middle_place(known: Mapping[str, str]) -> dict[str, str]:
    return {"cursor": quote(b64encode(f"p={known['cursor_id']}".encode()).decode())}


def _by_frequency(rows: QuerySet[Job], field: str) -> list[str]:
    counted = rows.order_by().values_list(field).annotate(n=Count("pk")).order_by("-n", field)
    return [value for value, _ in counted]
