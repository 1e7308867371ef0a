"""The admin page of jobs: filters, history, and what can be done to one, to some or to all of a selection."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import BooleanField, Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldBooleanWidget

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, as_block, as_json, asking, done, shortened
from queue_app import cancelling, deadletter, offload, promoting
from queue_app.models import Delivery, Job, JobEvent
from queue_app.selection import BadSelection
from queue_app.states import OVER, WAITING, Bulk, Priority, State, Turn

from . import bulk_actions, filters, payload_page
from .cells import (
    jobs_page,
    link,
    once,
    page_link,
    queue_page,
    to_the_millisecond,
    unbroken,
    worker_link,
    worker_of,
)
from .filters import FILTERS
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


_REFUSALS = (deadletter.Refused, cancelling.Over, promoting.NotLater)


class CancelForm(BaseDialogForm):
    force = BooleanField(
        required=False,
        label="By force",
        help_text="Do not wait until the run notices",
        widget=UnfoldBooleanWidget,
    )


class JobEventInline(TabularInline):
    model = JobEvent
    verbose_name_plural = "history"
    fields = readonly_fields = ["moment", "step", "ran_on", "told"]
    ordering = ["id"]
    extra = 0
    can_delete = False
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobEvent]:
        return super().get_queryset(request).annotate(**worker_of("worker"))

    @display(description="at")
    def moment(self, event: JobEvent) -> str:
        return unbroken(to_the_millisecond(event.at))

    @display(description="state")
    def step(self, event: JobEvent) -> str:
        return unbroken(event.state)

    @display(description="worker")
    def ran_on(self, event: Any) -> str:
        return unbroken(worker_link(event.worker, event))

    @display(description="detail")
    def told(self, event: JobEvent) -> str:
        short = {
            key: value for key, value in event.detail.items() if value and key != "traceback"
        }  # see the timeline
        return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in short.items()) or "-"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True  # the job's own page has asked already


@admin.register(Job)
class JobAdmin(TimelineAbove, ReadOnlyModelAdmin):
    when_empty = "A job comes with the first enqueue, .delay() or moment of a schedule."
    list_display = [
        "short_id",
        "name",
        "queue",
        "badge",
        "urgency",
        "attempts",
        "labels",
        "created_at",
    ]
    list_filter = FILTERS
    list_filter_submit = True
    search_fields = ["id", "request_id"]
    search_help_text = "Job id or request id, whole"
    ordering = ["-id"]  # uuid7: by time
    sortable_by = ()  # there is an index in this order alone
    list_per_page = 30
    inlines = [JobEventInline]
    actions = [
        "replay_selected",
        "discard_selected",
        "run_selected",
        "cancel_selected",
        "cancel_trees_selected",
    ]
    actions_detail = ["replay_this", "edit_this", "discard_this", "run_this", "cancel_this"]

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(payload_page.edit)
        return [path("<uuid:pk>/payload/", view, name="queue_app_job_payload"), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """What the address asks for is checked first; what cannot be is told and left out."""
        told: dict[str, str] = {}
        try:
            filters.asked(request.GET)
        except BadSelection as error:
            told = error.errors
        query = filters.renamed(request.GET, without=told)
        if query.urlencode() != request.GET.urlencode() and request.method == "GET":
            for name, problem in told.items():
                self.message_user(request, f"{name.capitalize()} {problem}.", messages.ERROR)
            return HttpResponseRedirect(f"{request.path}?{query.urlencode()}")
        return super().changelist_view(request, extra_context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs = super().get_queryset(request)
        if request.resolver_match and request.resolver_match.url_name.endswith("_changelist"):
            # Up to a MiB each, and the list shows none.
            light = jobs.defer("payload", "result", "last_error").prefetch_related("tag_rows")
            return filters.narrowed(light, filters.asked(request.GET))
        return jobs.annotate(**worker_of("owner"))

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> list[Any]:
        standing = [
            ("badge", "attempts"),
            ("of_task", "in_queue"),
            ("urgency", "crash_count"),
            ("of_tenant", "its_turn"),
            ("tagged", "failure"),
            ("id", "of_request"),
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

    @display(description="id")
    def short_id(self, job: Job) -> str:
        return shortened(str(job.id))

    @display(description="state", label=_COLOURS)
    def badge(self, job: Job) -> str:
        return job.state

    @display(description="priority")
    def urgency(self, job: Job) -> str:
        named = {priority.value: priority.name.lower() for priority in Priority}
        return named.get(job.priority, str(job.priority))

    @display(description="tags")
    def labels(self, job: Job) -> str:
        return ", ".join(job.tags) or "-"

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

    @display(description="task")
    def of_task(self, job: Job) -> str:
        return link(jobs_page(task=job.name), job.name)

    @display(description="queue")
    def in_queue(self, job: Job) -> str:
        return link(queue_page(job.queue), job.queue)

    @display(description="tenant")
    def of_tenant(self, job: Job) -> str:
        return link(jobs_page(tenant=job.tenant), job.tenant)

    @display(description="tags")
    def tagged(self, job: Job) -> str:
        return format_html_join(", ", "{}", ((link(jobs_page(tag=tag), tag),) for tag in job.tags)) or "-"

    @display(description="failure")
    def failure(self, job: Job) -> str:
        """The others that died of the same error."""
        return link(jobs_page(fingerprint=job.fingerprint), job.fingerprint)

    @display(description="request id")
    def of_request(self, job: Job) -> str:
        return link(jobs_page(q=job.request_id), job.request_id)

    @display(description="workflow")
    def part_of(self, job: Job) -> str:
        return page_link("workflow", job.workflow)

    @display(description="enqueued by")
    def enqueued_by(self, job: Job) -> str:
        return page_link("job", job.parent)

    @display(description="error")
    @once
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
    @once
    def payload_json(self, job: Job) -> str:
        text = json.dumps(offload.shown(job), indent=2, ensure_ascii=False)
        if len(text) <= _SHOWN:
            return as_block(text)
        return as_block(f"{text[:_SHOWN]}\n… {len(text) - _SHOWN:,} characters more: the API has them all")

    @display(description="result")
    @once
    def result_json(self, job: Job) -> str:
        return as_json(job.result)

    @action(description="Replay the dead letters among them", permissions=["operate"])
    def replay_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> HttpResponse | None:
        return self._act_on(request, jobs, Bulk.REPLAY, deadletter.replay, "replayed")

    @action(description="Discard the dead letters among them", permissions=["operate"])
    def discard_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> HttpResponse | None:
        return self._act_on(request, jobs, Bulk.DISCARD, deadletter.discard, "discarded")

    @action(description="Run those now that wait for their time or a retry", permissions=["operate"])
    def run_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> HttpResponse | None:
        return self._act_on(request, jobs, Bulk.RUN, promoting.run_now, "due now")

    @action(description="Cancel those that wait or run", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> HttpResponse | None:
        return self._act_on(request, jobs, Bulk.CANCEL, cancelling.cancel, "cancelled, or asked to stop")

    @action(description="Cancel them with all that they have enqueued", permissions=["operate"])
    def cancel_trees_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        if is_of_all_pages(request):
            self.message_user(
                request, "Trees are cancelled by the page: choose jobs of this one.", messages.ERROR
            )
            return
        count = cancel_trees(jobs, **audit.by(request, "admin"))
        self.message_user(request, f"{count} cancelled.", messages.SUCCESS if count else messages.WARNING)

    @action(
        description="Replay",
        permissions=["operate"],
        icon="replay",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Replay this job?",
            "It runs again under its own id, with a whole new series of attempts.",
            "Replay it",
        ),
    )
    def replay_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, deadletter.replay, "Replayed: it waits for a worker again.")

    @action(
        description="Discard",
        permissions=["operate"],
        icon="delete",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Discard this job?", "It will be cancelled and can not be replayed any more.", "Discard it"
        ),
    )
    def discard_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, deadletter.discard, "Discarded.")

    @action(description="Edit payload", permissions=["operate"], icon="edit")
    def edit_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:queue_app_job_payload", args=[object_id]))

    @action(
        description="Run now",
        permissions=["operate"],
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        dialog=asking("Run this job now?", "It waits no longer for its time or its retry.", "Run it"),
    )
    def run_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, promoting.run_now, "It is due now.")

    @action(
        description="Cancel",
        permissions=["operate"],
        icon="cancel",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Cancel this job?",
            "At once while it waits; one that runs is asked to stop, or made to by force.",
            "Cancel it",
            CancelForm,
        ),
    )
    def cancel_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        cancel = partial(cancelling.cancel, force=form.cleaned_data["force"])
        return self._act(request, object_id, cancel, "Cancelled, or asked to stop.")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        job = Job.objects.only("state", "run_after", "delivery").filter(id=object_id).first()
        wanted = _possible(job) if job else set()
        found = super().get_actions_detail(request, object_id)
        return [one for one in found if any(one.action_name.endswith(f"_{name}") for name in wanted)]

    def _act_on(
        self, request: HttpRequest, jobs: QuerySet[Job], action: Bulk, one: Any, done: str
    ) -> HttpResponse | None:
        """The chosen ones at once; all that the list's address means as a bulk action, after a question."""
        if is_of_all_pages(request):
            return bulk_actions.ask(self, request, action)
        results = [_refused(one, job, audit.by(request, "admin")) for job in jobs]
        count = results.count("")
        self.message_user(request, f"{count} {done}.", messages.SUCCESS if count else messages.WARNING)
        return None

    def _act(self, request: HttpRequest, object_id: str, act: Any, told: str) -> HttpResponse:
        job = get_object_or_404(Job, id=object_id)
        try:
            act(job, **audit.by(request, "admin"))
            self.message_user(request, told, messages.SUCCESS)
        except _REFUSALS as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_job_change", args=[object_id]))


def is_of_all_pages(request: HttpRequest) -> bool:
    """Whether "select all" was clicked, and not rows of the page."""
    return request.POST.get("select_across", "0") not in ("", "0")


def _possible(job: Job) -> set[str]:
    """The actions that its state allows."""
    if job.state == State.DEAD_LETTER:
        return {"replay_this", "edit_this", "discard_this"}
    if job.state in OVER:
        return set()
    waits = job.state in WAITING and job.run_after is not None and not job.is_held
    return {"cancel_this", *(["run_this"] if waits and job.delivery == Delivery.LEDGER else [])}


def _refused(act: Any, job: Job, trace: dict[str, Any]) -> str:
    try:
        act(job, **trace)
    except _REFUSALS as error:
        return str(error)
    return ""
