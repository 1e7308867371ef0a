"""The API: tasks as JSON, errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views import View
from django.views.decorators.http import require_safe

from foundation import problems
from orm_app import db
from queue_app import enqueue

from . import drafts
from .models import Task
from .tasks import QUEUE
from .totals import totals

MAX_PAGE = 100


class NotFound(LookupError):
    """There is no task of this number."""


class JSONView(View):
    """Turns what the methods below raise into problems."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().dispatch(request, *args, **kwargs)
        except drafts.Malformed as error:
            return problems.response(request, 400, detail=str(error))
        except drafts.Invalid as error:
            return problems.response(request, 422, detail=str(error), errors=error.errors)
        except NotFound:
            return problems.response(request, 404, detail=NotFound.__doc__)

    def draft(self) -> drafts.Draft:
        return drafts.read(self.request.body)


class TasksView(JSONView):
    def get(self, request: HttpRequest) -> HttpResponse:
        """Newest first. ?limit=1..100, ?before=ID; `next` is the address of the following page, or null."""
        limit = _number(request, "limit", default=20, high=MAX_PAGE)
        before = _number(request, "before", default=0, high=2**63 - 1)
        rows = Task.objects.filter(id__lt=before) if before else Task.objects.all()
        page = list(rows[: limit + 1])
        more = f"{request.path}?limit={limit}&before={page[limit - 1].pk}" if len(page) > limit else None
        return JsonResponse({"tasks": [document(task) for task in page[:limit]], "next": more})

    def post(self, request: HttpRequest) -> HttpResponse:
        """201 and the address of the new task; its assignee gets a mail if, and only if, the task was stored."""
        draft = self.draft()
        with db.transaction():
            task = Task.objects.create(
                title=draft.title, assignee_email=draft.assignee_email, done=draft.done
            )
            enqueue(
                QUEUE, {"to": task.assignee_email, "subject": f"New task: {task.title}", "task_id": task.pk}
            )
        location = reverse("task", args=[task.pk])
        return JsonResponse(document(task), status=201, headers={"Location": location})


class TaskView(JSONView):
    def get(self, request: HttpRequest, number: int) -> HttpResponse:
        return JsonResponse(document(_found(number)))

    def put(self, request: HttpRequest, number: int) -> HttpResponse:
        draft = self.draft()
        task = _found(number)
        task.title, task.assignee_email, task.done = draft.title, draft.assignee_email, draft.done
        task.save(update_fields=["title", "assignee_email", "done"])
        return JsonResponse(document(task))

    def delete(self, request: HttpRequest, number: int) -> HttpResponse:
        _found(number).delete()
        return HttpResponse(status=204)


@require_safe
def stats(request: HttpRequest) -> HttpResponse:
    """The totals, and in Cache-Status (RFC 9211) whether they came from the cache."""
    found = totals.lookup()
    said = f"brain; hit; ttl={int(found.ttl_s)}" if found.hit else "brain; fwd=miss"
    return JsonResponse(found.value, headers={"Cache-Status": said, "Age": str(int(found.age_s))})


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This instance serves; it says nothing about what it depends on, which the gateway's probe must not judge."""
    return JsonResponse({"status": "ok"})


def document(task: Task) -> dict[str, Any]:
    return {
        "id": task.pk,
        "title": task.title,
        "done": task.done,
        "assignee_email": task.assignee_email,
        "created_at": task.created_at.isoformat(),
    }


def _found(number: int) -> Task:
    task = Task.objects.filter(pk=number).first()
    if task is None:
        raise NotFound
    return task


def _number(request: HttpRequest, name: str, *, default: int, high: int) -> int:
    text = request.GET.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not 1 <= int(text) <= high:
        raise drafts.Malformed(f"?{name} is a whole number from 1 to {high}.")
    return int(text)
