"""The admin page of jobs: their history, and the actions on dead letters."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, as_block, as_json, done, shortened
from queue_app import deadletter, ledger, offload
from queue_app.models import Job, JobEvent, Queue
from queue_app.states import WAITING, Priority, State, Turn

from .cells import page_link, to_the_millisecond, worker_link, worker_of
from .timeline import TimelineAbove
from .workflows import cancel_trees

_SHOWN = 20_000  # characters of a payload: a page of megabytes helps nobody

_COLOURS = {
    State.PENDING.value: "info",
    State.PROCESSING.value: "primary",
    State.COMPLETED.value: "success",
    State.FAILED.value: "warning",
    State.DEAD_LETTER.value: "danger",
    State.CANCELLED.value: "",
}

_TURNS = {
    Turn.NONE: "needs none: its queue has no limits",
    Turn.LATER: "will wait for one when it is due",
    Turn.WAITS: "waits for one",
    Turn.HAS: "has one",
}


class QueueFilter(admin.SimpleListFilter):
    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in Queue.objects.values_list("name", flat=True)]

    def queryset(self, request: HttpRequest, jobs: QuerySet[Job]) -> QuerySet[Job]:
        return jobs.filter(queue=self.value()) if self.value() else jobs


class FingerprintFilter(admin.SimpleListFilter):
    """By the links of the dead letters' page; the failures of a bad day would be a long list."""

    title = "failure"
    parameter_name = "fingerprint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        asked = request.GET.get(self.parameter_name, "")
        return [(asked, asked)] if asked else []

    def queryset(self, request: HttpRequest, jobs: QuerySet[Job]) -> QuerySet[Job]:
        return jobs.filter(ledger.DEAD, fingerprint=self.value()) if self.value() else jobs


class JobEventInline(TabularInline):
    model = JobEvent
    verbose_name_plural = "history"
    fields = readonly_fields = ["moment", "state", "ran_on", "told"]
    ordering = ["id"]
    extra = 0
    can_delete = False
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobEvent]:
        return super().get_queryset(request).annotate(**worker_of("worker"))

    @display(description="at")
    def moment(self, event: JobEvent) -> str:
        return to_the_millisecond(event.at)

    @display(description="worker")
    def ran_on(self, event: Any) -> str:
        return worker_link(event.worker, event)

    @display(description="detail")
    def told(self, event: JobEvent) -> str:
        said = (f"{key.replace('_', ' ')}: {value}" for key, value in event.detail.items() if value)
        return ", ".join(said) or "-"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # the job's own page has asked already


@admin.register(Job)
class JobAdmin(TimelineAbove, ReadOnlyModelAdmin):
    list_display = ["short_id", "name", "queue", "badge", "urgency", "attempts", "traced", "created_at"]
    list_filter = ["state", QueueFilter, FingerprintFilter]
    list_filter_submit = False
    search_fields = ["id", "request_id"]
    search_help_text = "Job id or request id, whole"
    ordering = ["-id"]  # uuid7: by time
    inlines = [JobEventInline]
    actions = ["replay_selected", "discard_selected", "cancel_trees_selected"]
    actions_detail = ["replay_this", "discard_this"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs = super().get_queryset(request)
        if request.resolver_match and request.resolver_match.url_name.endswith("_changelist"):
            return jobs.defer("payload", "result", "last_error")  # up to a MiB each, and the list shows none
        return jobs.annotate(**worker_of("owner"))

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> list[Any]:
        standing = [
            ("badge", "attempts"),
            ("name", "queue"),
            ("urgency", "crash_count"),
            ("tenant", "its_turn"),
            ("id", "request_id"),
            ("part_of", "enqueued_by"),
        ]
        times = [("created_at", "finished_at"), ("started_at", "ran_on"), ("not_before", "published_at")]
        failed = [("Last error", {"fields": ["error"]})] if obj and obj.last_error else []
        return [
            (None, {"fields": standing}),
            *failed,
            ("Data", {"fields": ["payload_json", "result_json"]}),
            ("Times", {"fields": [*times, "fence"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Job | None = None) -> list[str]:
        rows = [row for _, options in self.get_fieldsets(request, obj) for row in options["fields"]]
        return [name for row in rows for name in ([row] if isinstance(row, str) else row)]

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
        return shortened(str(job.id))

    @display(description="request id")
    def traced(self, job: Job) -> str:
        return shortened(job.request_id)

    @display(description="state", ordering="state", label=_COLOURS)
    def badge(self, job: Job) -> str:
        return job.state

    @display(description="priority", ordering="priority")
    def urgency(self, job: Job) -> str:
        named = {priority.value: priority.name.lower() for priority in Priority}
        name = named.get(job.priority)
        return f"{name} ({job.priority})" if name else str(job.priority)

    @display(description="turn")
    def its_turn(self, job: Job) -> str:
        """Why a job of a queue with limits does not start."""
        if job.state not in (*WAITING, State.PROCESSING):
            return "-"
        return _TURNS[Turn(job.turn)]

    @display(description="attempts")
    def attempts(self, job: Job) -> str:
        return f"{job.attempt} of {job.max_attempts}"

    @display(description="not before")
    def not_before(self, job: Job) -> str:
        if job.is_held:
            return "waits for other jobs of its workflow"
        return to_the_millisecond(job.run_after) if job.run_after else "-"

    @display(description="workflow")
    def part_of(self, job: Job) -> str:
        return page_link("workflow", job.workflow)

    @display(description="enqueued by")
    def enqueued_by(self, job: Job) -> str:
        return page_link("job", job.parent)

    @display(description="error")
    def error(self, job: Job) -> str:
        if not job.last_error:
            return "-"
        told = job.last_error
        traceback = as_block(told["traceback"]) if told.get("traceback") else ""
        return format_html(
            "<strong>{}</strong>: {}{}", told.get("type", ""), told.get("message", ""), traceback
        )

    @display(description="worker")
    def ran_on(self, job: Any) -> str:
        return worker_link(job.owner, job)

    @display(description="payload")
    def payload_json(self, job: Job) -> str:
        text = json.dumps(offload.shown(job), indent=2, ensure_ascii=False)
        if len(text) <= _SHOWN:
            return as_block(text)
        return as_block(f"{text[:_SHOWN]}\n… {len(text) - _SHOWN:,} characters more: the API has them all")

    @display(description="result")
    def result_json(self, job: Job) -> str:
        return as_json(job.result)

    @action(description="Replay the dead letters among them", permissions=["operate"])
    def replay_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        count = deadletter.replay_many(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} replayed.", messages.SUCCESS if count else messages.WARNING)

    @action(description="Discard the dead letters among them", permissions=["operate"])
    def discard_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        count = deadletter.discard_many(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} discarded.", messages.SUCCESS if count else messages.WARNING)

    @action(description="Cancel them with all that they have enqueued", permissions=["operate"])
    def cancel_trees_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        count = cancel_trees(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} cancelled.", messages.SUCCESS if count else messages.WARNING)

    @action(
        description="Replay",
        permissions=["operate"],
        icon="replay",
        variant=ActionVariant.PRIMARY,
        dialog={
            "title": "Replay this job?",
            "description": "It runs again under its own id, with a whole new series of attempts.",
            "form_class": None,
            "form_submit_text": "Replay it",
        },
    )
    def replay_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, deadletter.replay, "Replayed: it waits for a worker again.")

    @action(
        description="Discard",
        permissions=["operate"],
        icon="delete",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Discard this job?",
            "description": "It will be cancelled and can not be replayed any more.",
            "form_class": None,
            "form_submit_text": "Discard it",
        },
    )
    def discard_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, deadletter.discard, "Discarded.")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        dead = Job.objects.filter(id=object_id, state=State.DEAD_LETTER).exists()
        return super().get_actions_detail(request, object_id) if dead else []

    def _act(self, request: HttpRequest, object_id: str, act: Any, told: str) -> HttpResponse:
        job = get_object_or_404(Job, id=object_id)
        try:
            act(job, **audit.by(request, "admin"))
            self.message_user(request, told, messages.SUCCESS)
        except deadletter.Refused as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_job_change", args=[object_id]))
