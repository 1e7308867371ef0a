"""The filters of the jobs' list: the fields of a selection, by the names that the API and the command have for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter, TextFilter

from queue_app import finding, selection
from queue_app.levels import ALL_TIME_S
from queue_app.models import Job, Queue, Rollup
from queue_app.selection import FIELDS, Selection
from queue_app.states import State

_OLD = {"state__exact": "state"}  # Django's name for it, in links that people have kept


class _Narrowing:
    """The whole selection is applied at once, by `narrowed`; a filter shows its field, and keeps it in the links."""

    def queryset(self, request: HttpRequest, jobs: QuerySet[Job]) -> QuerySet[Job]:
        return jobs


class StateFilter(_Narrowing, DropdownFilter):
    title, parameter_name = "state", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word) for word in (*State, *selection.SEVERAL)]


class QueueFilter(_Narrowing, DropdownFilter):
    title, parameter_name = "queue", "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in Queue.objects.values_list("name", flat=True)]


class TaskFilter(_Narrowing, DropdownFilter):
    """The tasks of which anything has ever been counted, and the one that is asked for."""

    title, parameter_name = "task", "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        counted = Rollup.objects.filter(step_s=ALL_TIME_S).order_by().values_list("name", flat=True)
        asked = request.GET.get(self.parameter_name, "")
        return [(name, name) for name in sorted({*counted.distinct(), *([asked] if asked else [])})]


class _Text(_Narrowing, TextFilter):
    hint = ""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            field = choice["form"].fields[self.parameter_name]
            field.label, field.widget.attrs["placeholder"] = self.title, self.hint
            yield choice


class TenantFilter(_Text):
    title, parameter_name = "Tenant", "tenant"


class TagFilter(_Text):
    title, parameter_name = "Tag", "tag"


class WorkerFilter(_Text):
    title, parameter_name, hint = "Worker", "worker", "id, host or host:pid"


class ArgumentsFilter(_Text):
    title, parameter_name, hint = "Arguments", "arguments", "to=a@example.com user.id=42"


class SinceFilter(_Text):
    title, parameter_name, hint = "Enqueued since", "since", "15m, 6h, 30d or 2026-11-26T10:00Z"


class UntilFilter(_Text):
    title, parameter_name, hint = "Enqueued before", "until", "15m, 6h, 30d or 2026-11-26T10:00Z"


class _Linked(_Text):
    """By links of other pages; there is nothing to choose from unless it is set."""

    def has_output(self) -> bool:
        return bool(self.value())


class FingerprintFilter(_Linked):
    title, parameter_name = "Failure", "fingerprint"


class DiedSinceFilter(_Linked):
    title, parameter_name = "Died since", "died_since"


class DiedUntilFilter(_Linked):
    title, parameter_name = "Died before", "died_until"


class WorkflowFilter(_Linked):
    title, parameter_name = "Workflow", "workflow"


class ParentFilter(_Linked):
    title, parameter_name = "Enqueued by", "parent"


FILTERS = [
    StateFilter, QueueFilter, TaskFilter, TenantFilter, TagFilter, WorkerFilter, ArgumentsFilter, SinceFilter, UntilFilter,
    FingerprintFilter, DiedSinceFilter, DiedUntilFilter, WorkflowFilter, ParentFilter,
]  # fmt: skip


def asked(query: QueryDict) -> Selection:
    """What the list's address selects. Raises BadSelection."""
    return selection.read(
        {name: query[name] for name in query if name in FIELDS and query[name]}, timezone.now()
    )


def renamed(query: QueryDict, without: Iterable[str] = ()) -> QueryDict:
    """The address with today's names, and without some of its fields."""
    found = query.copy()
    for old, new in _OLD.items():
        if old in found:
            found[new] = found.pop(old)[-1]
    for name in without:
        found.pop(name, None)
    return found


def narrowed(jobs: QuerySet[Job], wanted: Selection) -> QuerySet[Job]:
    """jobs: as the list loads them."""
    if wanted.is_empty:
        return jobs
    return finding.jobs(wanted, jobs)
