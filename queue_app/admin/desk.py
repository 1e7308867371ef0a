"""The dead letters' admin page: what they failed of, and the replays that work them off, with their progress."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin
from queue_app import deadletter, replays
from queue_app.deadletter import Choice
from queue_app.models import Replay

_SHOWN = 20  # replays


class ReplayForm(forms.Form):
    """One failure's dead letters, at a rate."""

    fingerprint = forms.CharField(max_length=16)
    rate = forms.FloatField(
        required=False, min_value=replays.LOWEST_RATE, max_value=replays.HIGHEST_RATE, initial=50
    )


@admin.register(Replay)
class ReplayAdmin(ReadOnlyModelAdmin):
    """Its list is the desk."""

    fields = [
        ("queue", "task"), ("fingerprint", "rate"), ("wanted", "replayed"), ("passed_over", "actor"),
        ("created_at", "finished_at"), "is_stopped",
    ]  # fmt: skip
    readonly_fields = [name for row in fields for name in ([row] if isinstance(row, str) else row)]

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("progress/", view(self.progress), name="queue_app_replay_progress"),
            path("start/", view(self.start), name="queue_app_replay_start"),
            path("<uuid:pk>/stop/", view(self.stop), name="queue_app_replay_stop"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._refuse_strangers(request)
        shown = {**self.admin_site.each_context(request), **self._found(request), "title": "Dead letters"}
        return render(request, "admin/queue_app/replay/desk.html", shown)

    def progress(self, request: HttpRequest) -> HttpResponse:
        """The fragment that the page asks for again."""
        self._refuse_strangers(request)
        return render(request, "admin/queue_app/replay/progress.html", self._found(request))

    def start(self, request: HttpRequest) -> HttpResponse:
        """GET asks, POST starts."""
        self._refuse_viewers(request)
        form = ReplayForm(request.POST if request.method == "POST" else None, initial=request.GET.dict())
        asked = request.POST.get("fingerprint") or request.GET.get("fingerprint", "")
        if request.method == "POST" and form.is_valid():
            return self._start(request, form.cleaned_data)
        count = deadletter.chosen(Choice(fingerprint=asked)).count() if asked else 0
        shown = {"form": form, "fingerprint": asked, "count": count, "title": "Replay dead letters"}
        page = "admin/queue_app/replay/start.html"
        return render(request, page, {**self.admin_site.each_context(request), **shown})

    def stop(self, request: HttpRequest, pk: Any) -> HttpResponse:
        self._refuse_viewers(request)
        if request.method == "POST":
            try:
                replays.stop(pk, **audit.by(request, "admin"))
                self.message_user(request, "Stopped.", messages.SUCCESS)
            except (replays.Ended, Replay.DoesNotExist) as error:
                self.message_user(request, str(error), messages.WARNING)
        return _desk()

    def _start(self, request: HttpRequest, asked: dict[str, Any]) -> HttpResponse:
        try:
            row = replays.start(
                Choice(fingerprint=asked["fingerprint"]), rate=asked["rate"], **audit.by(request, "admin")
            )
            self.message_user(request, f"{row.wanted} are replayed from now on.", messages.SUCCESS)
        except replays.NothingDead as error:
            self.message_user(request, str(error), messages.WARNING)
        return _desk()

    def _found(self, request: HttpRequest) -> dict[str, Any]:
        return {
            "groups": deadletter.groups(Choice()),
            "replays": Replay.objects.all()[:_SHOWN],
            "may_act": self.has_operate_permission(request),
        }

    def _refuse_strangers(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _refuse_viewers(self, request: HttpRequest) -> None:
        if not self.has_operate_permission(request):
            raise PermissionDenied


def _desk() -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:queue_app_replay_changelist"))
