"""The queue's admin pages: jobs with their history and the dead letters' actions, queues, workers."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, RoleModelAdmin

from . import deadletter, queues
from .models import Job, JobEvent, Queue, Worker
from .states import Priority, State

_COLOURS = {
    State.PENDING.value: "info",
    State.PROCESSING.value: "primary",
    State.COMPLETED.value: "success",
    State.FAILED.value: "warning",
    State.DEAD_LETTER.value: "danger",
    State.CANCELLED.value: "",
}


class QueueFilter(admin.SimpleListFilter):
    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in Queue.objects.values_list("name", flat=True)]

    def queryset(self, request: HttpRequest, jobs: QuerySet[Job]) -> QuerySet[Job]:
        return jobs.filter(queue=self.value()) if self.value() else jobs


class JobEventInline(TabularInline):
    model = JobEvent
    verbose_name_plural = "history"
    fields = readonly_fields = ["at", "state", "worker", "told"]
    ordering = ["id"]
    extra = 0
    can_delete = False
    hide_title = True

    @display(description="detail")
    def told(self, event: JobEvent) -> str:
        return ", ".join(f"{key}: {value}" for key, value in event.detail.items() if value) or "-"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # the job's own page has asked already


@admin.register(Job)
class JobAdmin(ReadOnlyModelAdmin):
    list_display = ["short_id", "name", "queue", "badge", "urgency", "attempts", "request_id", "created_at"]
    list_filter = ["state", QueueFilter]
    list_filter_submit = False
    search_fields = ["id", "request_id"]
    search_help_text = "Job id or request id, whole"
    ordering = ["-id"]  # uuid7: by time
    inlines = [JobEventInline]
    actions = ["replay_selected", "discard_selected"]
    actions_detail = ["replay_this", "discard_this"]
    fieldsets = [
        (
            None,
            {"fields": ["id", "name", "queue", "badge", "urgency", "attempts", "crash_count", "request_id"]},
        ),
        ("Times", {"fields": ["created_at", "run_after", "published_at", "started_at", "finished_at"]}),
        ("Last error", {"fields": ["error"]}),
        ("Data", {"fields": ["payload_json", "result_json"]}),
        ("Run", {"fields": ["owner", "fence"], "classes": ["collapse"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Job | None = None) -> list[str]:
        return [name for _, options in self.fieldsets for name in options["fields"]]

    def get_search_results(
        self, request: HttpRequest, jobs: QuerySet[Job], term: str
    ) -> tuple[QuerySet[Job], bool]:
        # Exact, by index: `icontains` over a uuid would read the whole table.
        word = term.strip()
        if not word:
            return jobs, False
        by_request = jobs.filter(request_id=word)
        try:
            return jobs.filter(id=word) | by_request, False
        except ValidationError:  # not an id
            return by_request, False

    @display(description="id", ordering="id")
    def short_id(self, job: Job) -> str:
        return format_html("<code>{}</code>", str(job.id))

    @display(description="state", ordering="state", label=_COLOURS)
    def badge(self, job: Job) -> str:
        return job.state

    @display(description="priority", ordering="priority")
    def urgency(self, job: Job) -> str:
        named = {priority.value: priority.name for priority in Priority}
        return f"{job.priority} {named.get(job.priority, '')}".strip()

    @display(description="attempts")
    def attempts(self, job: Job) -> str:
        return f"{job.attempt} of {job.max_attempts}"

    @display(description="error")
    def error(self, job: Job) -> str:
        if not job.last_error:
            return "-"
        told = job.last_error
        return format_html(
            "<strong>{}</strong>: {}<pre style='white-space: pre-wrap'>{}</pre>",
            told.get("type", ""),
            told.get("message", ""),
            told.get("traceback", ""),
        )

    @display(description="payload")
    def payload_json(self, job: Job) -> str:
        return _pretty(job.payload)

    @display(description="result")
    def result_json(self, job: Job) -> str:
        return _pretty(job.result)

    @action(description="Replay the dead letters among them", permissions=["operate"])
    def replay_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        count = deadletter.replay_many(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} replayed.", messages.SUCCESS if count else messages.WARNING)

    @action(description="Discard the dead letters among them", permissions=["operate"])
    def discard_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        count = deadletter.discard_many(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} discarded.", messages.SUCCESS if count else messages.WARNING)

    @action(description="Replay", permissions=["operate"], icon="replay", variant=ActionVariant.PRIMARY)
    def replay_this(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return self._act(request, object_id, deadletter.replay, "Replayed: it waits for a worker again.")

    @action(description="Discard", permissions=["operate"], icon="delete", variant=ActionVariant.DANGER)
    def discard_this(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        return self._act(request, object_id, deadletter.discard, "Discarded.")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        dead = Job.objects.filter(id=object_id, state=State.DEAD_LETTER).exists()
        return super().get_actions_detail(request, object_id) if dead else []

    def _act(self, request: HttpRequest, object_id: str, act: Any, done: str) -> HttpResponseRedirect:
        job = get_object_or_404(Job, id=object_id)
        try:
            act(job, **audit.by(request, "admin"))
            self.message_user(request, done, messages.SUCCESS)
        except deadletter.NotDead as error:
            self.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:queue_app_job_change", args=[object_id]))


@admin.register(Queue)
class QueueAdmin(RoleModelAdmin):
    list_display = ["name", "status", "max_retries", "backoff_base_s", "backoff_max_s", "created_at"]
    search_fields = ["name"]
    fields = ["name", *queues.EDITABLE, "created_at"]

    @display(description="status", label={"active": "success", "paused": "warning"})
    def status(self, queue: Queue) -> str:
        return "paused" if queue.paused else "active"

    def get_readonly_fields(self, request: HttpRequest, obj: Queue | None = None) -> list[str]:
        return ["created_at"] if obj is None else ["name", "created_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its jobs would stay behind, without a policy

    def save_model(self, request: HttpRequest, obj: Queue, form: ModelForm, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in queues.EDITABLE}
        trace = audit.by(request, "admin")
        if not change:
            queues.create_queue(obj.name, actor=trace["actor"], source=trace["source"])
        queues.configure(obj.name, **trace, **changes)


@admin.register(Worker)
class WorkerAdmin(ReadOnlyModelAdmin):
    list_display = ["host", "pid", "status", "pool", "concurrency", "consumes", "started_at", "last_seen_at"]
    fields = ["id", *list_display, "lease_until", "stopped_at"]
    readonly_fields = fields

    @display(description="status", label={"alive": "success", "stopped": "info", "lost": "danger"})
    def status(self, worker: Worker) -> str:
        if worker.lease_until > timezone.now():
            return "alive"
        return "stopped" if worker.stopped_at else "lost"

    @display(description="queues")
    def consumes(self, worker: Worker) -> str:
        return ", ".join(worker.queues)


def _pretty(value: Any) -> str:
    if value is None:
        return "-"
    return format_html(
        "<pre style='white-space: pre-wrap'>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False)
    )
