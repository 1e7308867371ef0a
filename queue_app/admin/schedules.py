"""The admin pages of schedules and of what their moments came to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import Form, ModelForm, SplitDateTimeField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSplitDateTimeWidget

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, RoleModelAdmin, asking, done, name_parts, shortened
from queue_app import clock, schedules
from queue_app.models import Firing, Schedule

from .cells import once

_SHOWN = 10  # firings and next runs on a schedule's page
_COLOURS = {
    str(Firing.Outcome.FIRED): "success",
    str(Firing.Outcome.OVERLAPPED): "info",
    str(Firing.Outcome.WAITING): "info",
    str(Firing.Outcome.MISSED): "warning",
    str(Firing.Outcome.REFUSED): "danger",
}


class ScheduleForm(ModelForm):
    class Meta:
        model = Schedule
        fields = ["name", *schedules.EDITABLE]

    def clean_payload(self) -> Any:
        payload = self.cleaned_data["payload"]
        return {} if payload is None else payload

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if self.errors:
            return values
        name = values.get("name", self.instance.name)  # read-only on an existing one
        try:
            schedules.examine(name, **{field: values[field] for field in schedules.EDITABLE})
        except schedules.BadSchedule as error:
            for field, told in error.errors.items():
                self.add_error(field if field in self.fields else None, told)
        return values


class BackfillForm(BaseDialogForm):
    start = SplitDateTimeField(label="Start", widget=UnfoldAdminSplitDateTimeWidget)
    end = SplitDateTimeField(label="End", widget=UnfoldAdminSplitDateTimeWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("start", "end"):
            name_parts(self.fields[name])

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "start" in values and "end" in values:
            schedule = get_object_or_404(Schedule, pk=self.object_id)
            try:
                schedules.backfillable(schedule, values["start"], values["end"])
            except schedules.BadSchedule as error:
                raise ValidationError(error.errors) from error
        return values


@admin.register(Schedule)
class ScheduleAdmin(RoleModelAdmin):
    form = ScheduleForm
    when_empty = "A schedule enqueues a task again and again, by cron or an interval."
    list_display = ["name", "status", "when", "following", "task", "last_at", "missed", "overlap"]
    list_filter = ["paused"]
    list_filter_submit = False
    search_fields = ["name", "task"]
    search_help_text = "Part of a schedule's or a task's name"
    actions = ["pause_selected", "resume_selected"]
    actions_detail = ["run_this", "pause_this", "resume_this", "backfill_this"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        found = super().get_queryset(request)
        is_list = request.resolver_match and request.resolver_match.url_name.endswith("_changelist")
        return found.defer("payload") if is_list else found

    def get_fieldsets(self, request: HttpRequest, obj: Schedule | None = None) -> list[Any]:
        timing = [("cron", "time_zone"), "interval_s"]
        policies = [("missed", "window_s"), "overlap"]
        standing = [("status", "when"), "coming", "history"]
        return [
            (None, {"fields": ["name", *(standing if obj else [])]}),
            ("When", {"fields": timing}),
            ("What", {"fields": ["task", "payload", ("queue", "priority"), "tenant"]}),
            ("If it is late", {"fields": policies}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> list[str]:
        return ["name", "status", "when", "coming", "history"] if obj else []

    @display(description="status", label={"active": "success", "paused": "warning", "ended": "info"})
    def status(self, schedule: Schedule) -> str:
        if schedule.paused:
            return "paused"
        return "active" if schedule.next_at else "ended"

    @display(description="when")
    def when(self, schedule: Schedule) -> str:
        return schedules.words(schedule)

    @display(description="next", ordering="next_at")
    def following(self, schedule: Schedule) -> str:
        if schedule.paused or schedule.next_at is None:
            return "-"
        return schedules.next_words(schedule, schedule.next_at, clock.now())

    @display(description="next runs")
    @once
    def coming(self, schedule: Schedule) -> str:
        now = clock.now()
        runs = [(schedules.next_words(schedule, run, now),) for run in schedules.next_runs(schedule)]
        return format_html_join("", "{}<br>", runs) or "-"

    @display(description="last runs")
    @once
    def history(self, schedule: Schedule) -> str:
        zone = schedules.zone(schedule)  # as the next ones are told
        rows = [
            (
                f"{firing.due_at.astimezone(zone):%a %d %b %Y %H:%M:%S %Z}",
                firing.outcome,
                firing.cause,
                _job_link(firing.job),
                firing.note,
            )
            for firing in schedule.firings.all()[:_SHOWN]
        ]
        if not rows:
            return "-"
        told = format_html_join("", "{} {} by {} {} {}<br>", rows)
        page = reverse("admin:queue_app_firing_changelist")
        return format_html(
            '{}<a class="brain-link" href="{}?schedule__id__exact={}">all</a>', told, page, schedule.pk
        )

    def save_model(self, request: HttpRequest, obj: Schedule, form: ModelForm, change: bool) -> None:
        fields = {name: form.cleaned_data[name] for name in schedules.EDITABLE}
        trace = audit.by(request, "admin")
        if change:
            schedules.change(obj, **fields, **trace)
        else:
            obj.__dict__.update(schedules.create(obj.name, **fields, **trace).__dict__)

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        schedules.delete(obj, **audit.by(request, "admin"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        for schedule in queryset:
            schedules.delete(schedule, **audit.by(request, "admin"))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Not every firing by its name: there may be a hundred thousand, which nobody may delete by themselves."""
        names = [str(schedule) for schedule in objs]
        return names, {"schedules": len(names)}, set(), []

    @action(description="Pause", permissions=["operate"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        for schedule in queryset:
            schedules.pause(schedule, **audit.by(request, "admin"))
        self.message_user(request, "Paused.", messages.SUCCESS)

    @action(description="Resume", permissions=["operate"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        resumed = 0
        for schedule in queryset:
            try:
                schedules.resume(schedule, **audit.by(request, "admin"))
                resumed += 1
            except schedules.Refused as error:
                self.message_user(request, f"{schedule}: {error}", messages.ERROR)
        if resumed:
            self.message_user(request, "Resumed: they fire from now on.", messages.SUCCESS)

    @action(
        description="Run now",
        permissions=["operate"],
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        dialog=asking(
            "Run this schedule now?",
            "Its job is enqueued at once, paused or not, beside one that may still run.",
            "Run it",
        ),
    )
    def run_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, schedules.run_now, "Enqueued.")

    @action(
        description="Pause",
        permissions=["operate"],
        icon="pause",
        dialog=asking(
            "Pause this schedule?",
            "It fires no more. What comes due meanwhile does not fire later either.",
            "Pause it",
        ),
    )
    def pause_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, schedules.pause, "Paused.")

    @action(
        description="Resume",
        permissions=["operate"],
        icon="resume",
        dialog=asking("Resume this schedule?", "It fires again, from now on.", "Resume it"),
    )
    def resume_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._act(request, object_id, schedules.resume, "Resumed.")

    @action(
        description="Backfill",
        permissions=["operate"],
        icon="history",
        dialog=asking(
            "Enqueue what was missed?",
            "A job for each moment from start to end (UTC) that has none yet.",
            "Enqueue them",
            BackfillForm,
        ),
    )
    def backfill_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        ends = form.cleaned_data["start"], form.cleaned_data["end"]
        return self._act(request, object_id, schedules.backfill, "Enqueued.", *ends)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        hidden = (
            "resume_this" if not Schedule.objects.filter(pk=object_id, paused=True).exists() else "pause_this"
        )
        found = super().get_actions_detail(request, object_id)
        return [one for one in found if not one.action_name.endswith(hidden)]

    def _act(self, request: HttpRequest, object_id: str, act: Any, told: str, *args: Any) -> HttpResponse:
        schedule = get_object_or_404(Schedule, pk=object_id)
        try:
            act(schedule, *args, **audit.by(request, "admin"))
            self.message_user(request, told, messages.SUCCESS)
        except (schedules.Refused, schedules.BadSchedule) as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_schedule_change", args=[object_id]))


@admin.register(Firing)
class FiringAdmin(ReadOnlyModelAdmin):
    when_empty = "Each moment of a schedule is kept here, with what became of it."
    list_display = ["due_at", "schedule", "badge", "cause", "made", "note", "at"]
    list_select_related = ["schedule"]
    ordering = ["-id"]  # as they were written; by `due_at` all of them would have to be sorted
    sortable_by = ()
    list_filter = ["outcome", "cause", "schedule"]
    list_filter_submit = False
    fields = readonly_fields = ["schedule", "due_at", "at", "badge", "cause", "made", "note"]

    @display(description="outcome", ordering="outcome", label=_COLOURS)
    def badge(self, firing: Firing) -> str:
        return firing.outcome

    @display(description="job")
    def made(self, firing: Firing) -> str:
        return _job_link(firing.job)


def _job_link(job: UUID | None) -> str:
    if job is None:
        return "-"
    page = reverse("admin:queue_app_job_change", args=[job])
    return format_html('<a class="brain-link" href="{}">{}</a>', page, shortened(str(job)))
