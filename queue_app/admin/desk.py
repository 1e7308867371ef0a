"""The dead letters' page: what they failed of, and what can be done to all of a failure, a queue or a task."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path
from django.utils import timezone
from django.utils.http import urlencode

from queue_app import deadletter, selection
from queue_app.models import BulkAction, Queue
from queue_app.selection import BadSelection, Selection

_SHOWN = 10  # bulk actions
_MOST = 100  # failures
_FIELDS = ("queue", "task", "tenant", "since", "died_since", "died_until")


def urls(page: Any) -> list[Any]:
    """page: the admin of bulk actions, whose list is a part of the desk."""
    view = page.admin_site.admin_view
    return [
        path("desk/", view(lambda request: _desk(page, request)), name="queue_app_desk_changelist"),
        path(
            "desk/failures/", view(lambda request: _failures(page, request)), name="queue_app_desk_failures"
        ),
    ]


def _desk(page: Any, request: HttpRequest) -> HttpResponse:
    _refuse_strangers(page, request)
    try:
        shown = _found(page, request)
    except BadSelection as error:
        page.message_user(request, str(error), "ERROR")
        return HttpResponseRedirect(request.path)
    names = list(Queue.objects.values_list("name", flat=True))
    context = {**page.admin_site.each_context(request), **shown, "title": "Dead letters", "queues": names}
    return render(request, "admin/queue_app/desk/desk.html", context)


def _failures(page: Any, request: HttpRequest) -> HttpResponse:
    """The fragment that the page asks for again."""
    _refuse_strangers(page, request)
    try:
        return render(request, "admin/queue_app/desk/failures.html", _found(page, request))
    except BadSelection:
        return HttpResponse(status=204)  # htmx leaves what is there


def _found(page: Any, request: HttpRequest) -> dict[str, Any]:
    asked = {name: request.GET[name] for name in _FIELDS if request.GET.get(name)}
    wanted: Selection = selection.read(asked, timezone.now())
    groups = deadletter.groups(wanted, most=_MOST + 1)
    return {
        "groups": groups[:_MOST],
        "most": _MOST if len(groups) > _MOST else None,
        "asked": asked,
        "query": urlencode(asked),
        "bulk_actions": BulkAction.objects.all()[:_SHOWN],
        "may_act": page.has_operate_permission(request),
    }


def _refuse_strangers(page: Any, request: HttpRequest) -> None:
    if not page.has_view_permission(request):
        raise PermissionDenied
