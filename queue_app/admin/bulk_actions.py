"""The admin pages of bulk actions: the question before one starts, its progress, and stop."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.http import urlencode
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldBooleanWidget

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, asking, done
from queue_app import bulk, selection
from queue_app.models import BulkAction
from queue_app.selection import FIELDS, BadSelection, Selection
from queue_app.states import Bulk

from . import desk, filters

_NOT_FIELDS = ("p", "o", "all", "_changelist_filters", "e")  # of a list's address
_RATE = UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "placeholder": "as fast as it goes"})
_QUESTIONS = {
    Bulk.REPLAY: "Replay {} dead letters?",
    Bulk.DISCARD: "Discard {} dead letters? They can not be replayed any more.",
    Bulk.CANCEL: "Cancel {} jobs that wait or run?",
    Bulk.RUN: "Run {} jobs now that wait for their time or a retry?",
}


class StartForm(forms.Form):
    rate = forms.FloatField(
        required=False,
        min_value=bulk.LOWEST_RATE,
        max_value=bulk.HIGHEST_RATE,
        label="Jobs per second",
        widget=_RATE,
    )
    force = forms.BooleanField(
        required=False, label="By force: do not wait until a run notices", widget=UnfoldBooleanWidget
    )


@admin.register(BulkAction)
class BulkActionAdmin(ReadOnlyModelAdmin):
    when_empty = "They are begun among the dead letters, or on the list of jobs with all of them chosen."
    list_display = [
        "created_at",
        "badge",
        "meant",
        "share",
        "done",
        "passed_over",
        "pace",
        "actor",
        "standing",
    ]
    list_filter = ["action", ("finished_at", admin.EmptyFieldListFilter)]
    list_filter_submit = False
    fields = [
        ("badge", "standing"), ("meant", "pace"), ("wanted", "seen"), ("done", "passed_over"), ("actor", "is_forced"),
        ("created_at", "finished_at"),
    ]  # fmt: skip
    readonly_fields = [name for row in fields for name in row]
    actions_detail = ["stop_this"]
    change_form_before_template = "admin/queue_app/bulk/progress_live.html"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("start/", view(self.start), name="queue_app_bulkaction_start"),
            path("<uuid:pk>/progress/", view(self.progress), name="queue_app_bulkaction_progress"),
            *desk.urls(self),
            *super().get_urls(),
        ]

    def start(self, request: HttpRequest) -> HttpResponse:
        """GET asks, POST starts. The address says what is meant."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        try:
            what, wanted = self._asked(request)
        except (BadSelection, ValueError) as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:queue_app_bulkaction_changelist"))
        form = StartForm(request.POST if request.method == "POST" else None)
        if what != Bulk.CANCEL:
            del form.fields["force"]
        if request.method == "POST" and form.is_valid():
            return self._start(request, what, wanted, form.cleaned_data)
        count = bulk.count(what, wanted)
        back = f"{reverse('admin:queue_app_job_changelist')}?{urlencode(wanted.as_texts())}"
        shown = {
            "form": form, "count": count, "question": _QUESTIONS[what].format(f"{count:,}"), "told": wanted.as_texts(),
            "action": what.value, "back": back, "title": "Bulk action", "arguments": bool(wanted.arguments),
        }  # fmt: skip
        return render(
            request, "admin/queue_app/bulk/start.html", {**self.admin_site.each_context(request), **shown}
        )

    def progress(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """The fragment that its page asks for again, until it is over."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = get_object_or_404(BulkAction, pk=pk)
        answer = render(request, "admin/queue_app/bulk/progress.html", {"original": row})
        if row.finished_at is not None:
            answer["HX-Refresh"] = "true"  # the page's fields and its Stop are of the time when it ran
        return answer

    @display(description="action", label={action.value: "info" for action in Bulk})
    def badge(self, row: BulkAction) -> str:
        return row.action

    @display(description="of the jobs with")
    def meant(self, row: BulkAction) -> str:
        return ", ".join(f"{name} {value}" for name, value in row.selection.items()) or "all"

    @display(description="progress")
    def share(self, row: BulkAction) -> str:
        return f"{100 * row.progress:.0f} %"

    @display(description="rate")
    def pace(self, row: BulkAction) -> str:
        return f"{row.rate:g}/s" if row.rate else "-"

    @display(description="state", label={"running": "primary", "finished": "success", "stopped": "warning"})
    def standing(self, row: BulkAction) -> str:
        if row.is_stopped:
            return "stopped"
        return "finished" if row.finished_at else "running"

    @action(
        description="Stop",
        permissions=["operate"],
        icon="stop",
        variant=ActionVariant.DANGER,
        dialog=asking("Stop this bulk action?", "What it has done stays done.", "Stop it"),
    )
    def stop_this(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        try:
            bulk.stop(get_object_or_404(BulkAction, pk=object_id).pk, **audit.by(request, "admin"))
            self.message_user(request, "Stopped.", messages.SUCCESS)
        except bulk.Ended as error:
            self.message_user(request, str(error), messages.WARNING)
        return done(request, reverse("admin:queue_app_bulkaction_change", args=[object_id]))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        runs = BulkAction.objects.filter(pk=object_id, finished_at=None).exists()
        return super().get_actions_detail(request, object_id) if runs else []

    def _asked(self, request: HttpRequest) -> tuple[Bulk, Selection]:
        what = Bulk(request.GET.get("action", ""))
        # A field that is misspelt must not pass for none: that would be all jobs.
        asked = {name: text for name, text in request.GET.items() if name != "action" and text}
        return what, selection.read(asked, timezone.now())

    def _start(
        self, request: HttpRequest, what: Bulk, wanted: Selection, given: dict[str, Any]
    ) -> HttpResponse:
        try:
            row = bulk.start(
                what,
                wanted,
                rate=given["rate"],
                force=given.get("force", False),
                **audit.by(request, "admin"),
            )
        except bulk.NothingToDo as error:
            self.message_user(request, f"{str(error).capitalize()}.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:queue_app_bulkaction_changelist"))
        self.message_user(request, "Started. The workers' leader works it off.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:queue_app_bulkaction_change", args=[row.pk]))


def ask(page: Any, request: HttpRequest, what: Bulk) -> HttpResponse | None:
    """From the jobs' list to the question. What the list is narrowed by, and a bulk action cannot be, is refused."""
    unknown = [
        name for name in request.GET if name not in FIELDS and name not in _NOT_FIELDS and request.GET[name]
    ]
    if unknown:
        page.message_user(
            request,
            f"All matches of {', '.join(unknown)} cannot be acted on: use the filters.",
            messages.ERROR,
        )
        return None
    query = {"action": what.value, **filters.asked(request.GET).as_texts()}
    return HttpResponseRedirect(f"{reverse('admin:queue_app_bulkaction_start')}?{urlencode(query)}")
