"""The queue's admin pages: jobs with their history and the dead letters' actions, queues, workers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import Form, ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, RoleModelAdmin, as_block, as_json, done, shortened

from . import admin_desk as admin_desk  # registers itself
from . import deadletter, ledger, limits_told, offload, queues, quotas, workers
from . import limits_admin as limits_admin  # registers itself
from . import schedules_admin as schedules_admin  # registers itself
from . import workflows_admin as workflows_admin  # registers itself
from .conf import conf
from .models import Job, JobEvent, Queue, Worker
from .states import WAITING, Asked, Priority, State, Turn

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
        return super().get_queryset(request).annotate(**_worker_of("worker"))

    @display(description="at")
    def moment(self, event: JobEvent) -> str:
        return _to_the_millisecond(event.at)

    @display(description="worker")
    def ran_on(self, event: Any) -> str:
        return _worker_link(event.worker, event)

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
class JobAdmin(ReadOnlyModelAdmin):
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
        return jobs.annotate(**_worker_of("owner"))

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
        return _to_the_millisecond(job.run_after) if job.run_after else "-"

    @display(description="workflow")
    def part_of(self, job: Job) -> str:
        return _page_link("workflow", job.workflow)

    @display(description="enqueued by")
    def enqueued_by(self, job: Job) -> str:
        return _page_link("job", job.parent)

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
        return _worker_link(job.owner, job)

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
        count = workflows_admin.cancel_trees(jobs, **audit.by(request, "admin"))
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


class QueueForm(ModelForm):
    class Meta:
        model = Queue
        fields = ["name", *queues.EDITABLE]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not queues.is_name(name):
            raise ValidationError("Letters, digits, dots, dashes and underscores, at most 100 of them.")
        return name

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not self.errors:
            try:
                quotas.check({key: values[key] for key in (*queues.LIMITS, "delivery")})
            except quotas.BadLimit as error:
                self.add_error(error.field, error.problem)
        return values


@admin.register(Queue)
class QueueAdmin(RoleModelAdmin):
    form = QueueForm
    list_display = ["name", "status", "waiting", "running", "dead", "retries", "backoff", "created_at"]
    search_fields = ["name"]
    search_help_text = "Part of a queue's name"
    fieldsets = [
        (None, {"fields": ["name", "paused", "delivery", "created_at"]}),
        ("Retries", {"fields": ["max_retries", ("backoff_base_s", "backoff_max_s")]}),
        ("Runs and records", {"fields": [("soft_time_limit_s", "time_limit_s"), ("retention_s", "dead_retention_s")]}),
        ("Limits", {"fields": [
            ("is_fair", "in_use"), ("max_concurrency", "tenant_concurrency"),
            ("rate_count", "rate_period_s", "rate_burst"),
            ("tenant_rate_count", "tenant_rate_period_s", "tenant_rate_burst"),
        ]}),
    ]  # fmt: skip

    @display(description="status", label={"active": "success", "paused": "warning"})
    def status(self, queue: Queue) -> str:
        return "paused" if queue.paused else "active"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Queue]:
        running, dead = [State.PROCESSING], [State.DEAD_LETTER]
        counts = {"waiting": WAITING, "running": running, "dead": dead}
        return (
            super()
            .get_queryset(request)
            .annotate(**{f"jobs_{name}": _jobs_in(states) for name, states in counts.items()})
        )

    @display(description="waiting")
    def waiting(self, queue: Any) -> int:
        return int(queue.jobs_waiting)

    @display(description="running")
    def running(self, queue: Any) -> int:
        return int(queue.jobs_running)

    @display(description="dead letters")
    def dead(self, queue: Any) -> str:
        if not queue.jobs_dead:
            return "0"
        jobs = reverse("admin:queue_app_job_changelist")
        query = {"queue": queue.name, "state__exact": State.DEAD_LETTER.value}
        return format_html(
            '<a class="brain-link" href="{}?{}">{}</a>', jobs, urlencode(query), queue.jobs_dead
        )

    @display(description="retries", ordering="max_retries")
    def retries(self, queue: Queue) -> str:
        return _or_default(queue.max_retries, conf().MAX_RETRIES)

    @display(description="back-off (s)")
    def backoff(self, queue: Queue) -> str:
        first = _or_default(queue.backoff_base_s, conf().BACKOFF_BASE_S)
        return f"{first}, at most {_or_default(queue.backoff_max_s, conf().BACKOFF_MAX_S)}"

    @display(description="limits in use")
    def in_use(self, queue: Queue) -> str:
        if not queue.pk or not queues.has_limits(queue):
            return "-"
        use = limits_told.in_use(queue.name)
        return f"{limits_told.of_queue(queue)}: {use.held} in use, {use.waiting} wait"

    def get_readonly_fields(self, request: HttpRequest, obj: Queue | None = None) -> list[str]:
        return ["created_at", "in_use", *([] if obj is None else ["name"])]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its jobs would stay behind, without a policy

    def save_model(self, request: HttpRequest, obj: Queue, form: ModelForm, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in queues.EDITABLE}
        trace = audit.by(request, "admin")
        if not change:
            queues.create_queue(obj.name, actor=trace["actor"], source=trace["source"])
        queues.configure(obj.name, **trace, **changes)


_STATUS = {
    Asked.NOTHING: "alive",
    Asked.QUIET: "quiet",
    Asked.STOP: "stopping",
    Asked.RECYCLE: "recycling",
}


def _asking(title: str, description: str) -> dict[str, Any]:
    return {
        "title": title,
        "description": description,
        "form_class": None,
        "form_submit_text": title.removesuffix("?"),
    }


@admin.register(Worker)
class WorkerAdmin(ReadOnlyModelAdmin):
    list_display = [
        "host", "pid", "status", "pool", "slots", "memory", "consumes", "started_at", "last_seen_at",
    ]  # fmt: skip
    fields = [
        ("host", "pid"),
        ("status", "consumes"),
        ("pool", "slots"),
        ("memory", "jobs"),
        ("started_at", "last_seen_at"),
        ("lease_until", "stopped_at"),
        "id",
    ]
    readonly_fields = [*list_display, "jobs", "lease_until", "stopped_at", "id"]
    actions_detail = ["quiet", "unquiet", "stop", "recycle"]

    @display(
        description="status",
        label={
            "alive": "success", "quiet": "warning", "stopping": "warning", "recycling": "warning", "stuck": "danger",
            "stopped": "info", "lost": "danger",
        },
    )  # fmt: skip
    def status(self, worker: Worker) -> str:
        if worker.lease_until <= timezone.now():
            return "stopped" if worker.stopped_at else "lost"
        if worker.stuck:
            return "stuck"
        return _STATUS[Asked(worker.asked)]

    @display(description="slots in use")
    def slots(self, worker: Worker) -> str:
        stuck = f", {worker.stuck} stuck" if worker.stuck else ""
        return f"{len(worker.running)} of {worker.concurrency}{stuck}"

    @display(description="memory", ordering="memory_bytes")
    def memory(self, worker: Worker) -> str:
        return "-" if worker.memory_bytes is None else filesizeformat(worker.memory_bytes)

    @display(description="runs")
    def jobs(self, worker: Worker) -> str:
        pages = ((reverse("admin:queue_app_job_change", args=[id]), shortened(id)) for id in worker.running)
        return format_html_join(", ", '<a class="brain-link" href="{}">{}</a>', pages) or "-"

    @action(
        description="Quiet",
        permissions=["operate"],
        icon="pause",
        dialog=_asking("Quiet this worker?", "It ends what it runs and takes no new jobs."),
    )
    def quiet(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.QUIET, "It takes no new jobs.")

    @action(
        description="Take jobs again",
        permissions=["operate"],
        icon="play_arrow",
        dialog=_asking("Let this worker take jobs again?", "It was asked to be quiet."),
    )
    def unquiet(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.NOTHING, "It takes jobs again.")

    @action(
        description="Recycle",
        permissions=["operate"],
        icon="restart_alt",
        dialog=_asking(
            "Recycle this worker?", "It ends what it runs, as at a stop, and starts anew under the same pid."
        ),
    )
    def recycle(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.RECYCLE, "It starts anew.")

    @action(
        description="Stop",
        permissions=["operate"],
        icon="stop",
        variant=ActionVariant.DANGER,
        dialog=_asking(
            "Stop this worker?",
            "It ends what it runs, gives the rest back and exits. Whatever supervises it may start it again.",
        ),
    )
    def stop(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.STOP, "It ends.")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        worker = workers.living().filter(id=object_id).first()
        if worker is None or worker.asked in (Asked.STOP, Asked.RECYCLE):
            return []
        absent = "unquiet" if worker.asked != Asked.QUIET else "quiet"
        actions = super().get_actions_detail(request, object_id)
        return [found for found in actions if not found.action_name.endswith(f"_{absent}")]

    def _ask(self, request: HttpRequest, object_id: str, asked: Asked, told: str) -> HttpResponse:
        worker = get_object_or_404(Worker, id=object_id)
        try:
            workers.ask(worker, asked, **audit.by(request, "admin"))
            self.message_user(
                request, f"Asked. {told} It hears of it within a few seconds.", messages.SUCCESS
            )
        except workers.Refused as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_worker_change", args=[object_id]))

    @display(description="queues")
    def consumes(self, worker: Worker) -> str:
        return ", ".join(worker.queues) or "-"


def _jobs_in(states: Any) -> Any:
    counted = Job.objects.filter(queue=OuterRef("name"), state__in=[State(state).value for state in states])
    return Coalesce(Subquery(counted.order_by().values("queue").annotate(n=Count("pk")).values("n")), 0)


def _or_default(value: float | None, default: float) -> str:
    return f"{default:g} (default)" if value is None else f"{value:g}"


def _worker_of(field: str) -> dict[str, Any]:
    """Annotations: host and pid of the worker whose id is in `field`; no foreign key, as rows of workers go away."""
    worker = Worker.objects.filter(id=OuterRef(field))
    return {f"worker_{name}": Subquery(worker.values(name)[:1]) for name in ("host", "pid")}


def _worker_link(worker: Any, row: Any) -> str:
    if worker is None:
        return "-"
    if row.worker_pid is None:
        return shortened(str(worker))
    page = reverse("admin:queue_app_worker_change", args=[worker])
    return format_html('<a class="brain-link" href="{}">{}:{}</a>', page, row.worker_host, row.worker_pid)


def _page_link(model: str, id: Any) -> str:
    if id is None:
        return "-"
    page = reverse(f"admin:queue_app_{model}_change", args=[id])
    return format_html('<a class="brain-link" href="{}">{}</a>', page, shortened(str(id)))


def _to_the_millisecond(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(" ", "milliseconds")[:23]
