"""The admin pages of workflows: how far each is, its jobs in their order, and cancel."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit
from foundation.admin import ReadOnlyModelAdmin, asking, done, shortened
from queue_app import trees, workflows
from queue_app.composition import Status
from queue_app.models import Job, Member, Workflow

from .cells import once

_COLOURS = {
    Status.RUNNING.value: "primary",
    Status.BLOCKED.value: "danger",
    Status.COMPLETED.value: "success",
    Status.CANCELLED.value: "",
}
_SHOWN = 100  # jobs on a workflow's page; the API has them all


@admin.register(Workflow)
class WorkflowAdmin(ReadOnlyModelAdmin):
    when_empty = "Chains, groups and batches of jobs are listed from their enqueue on."
    list_display = ["short_id", "kind", "name", "badge", "done", "dead", "created_at", "finished_at"]
    list_filter = ["kind", ("finished_at", admin.EmptyFieldListFilter)]
    list_filter_submit = False
    search_fields = ["name"]
    search_help_text = "Part of its name, or its whole id"
    fields = [
        ("badge", "done"),
        ("kind", "name"),
        ("dead", "cancelled"),
        ("id", "request_id"),
        ("created_at", "finished_at"),
        ("started_by", "is_cancelled"),
        "jobs",
    ]
    readonly_fields = [name for row in fields for name in ([row] if isinstance(row, str) else row)]
    actions = ["cancel_selected"]
    actions_detail = ["cancel_this"]

    def get_search_results(
        self, request: HttpRequest, flows: QuerySet[Workflow], term: str
    ) -> tuple[QuerySet[Workflow], bool]:
        try:
            return flows.filter(id=UUID(term.strip())), False
        except ValueError:  # not an id
            return super().get_search_results(request, flows, term)

    @display(description="id", ordering="id")
    def short_id(self, flow: Workflow) -> str:
        return shortened(str(flow.id))

    @display(description="status", label=_COLOURS)
    def badge(self, flow: Workflow) -> str:
        return flow.status.value

    @display(description="completed")
    def done(self, flow: Workflow) -> str:
        return f"{flow.completed} of {flow.total}"

    @display(description="started by")
    def started_by(self, flow: Workflow) -> str:
        return _job_link(flow.parent, shortened(str(flow.parent))) if flow.parent else "-"

    @display(description="jobs")
    @once
    def jobs(self, flow: Workflow) -> str:
        places = workflows.members(flow, most=_SHOWN)
        rows = format_html_join("", "<li>{} {} {}</li>", (_told(member, job) for member, job in places))
        more = flow.members.count() - len(places)
        note = format_html("<p>… and {} more</p>", more) if more > 0 else ""
        return format_html("<ol>{}</ol>{}", rows, note)

    @action(description="Cancel them with all that they have enqueued", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, flows: Any) -> None:
        count = cancel_trees(flows, **audit.by(request, "admin"))
        self.message_user(request, f"{count} cancelled.", messages.SUCCESS if count else messages.WARNING)

    @action(
        description="Cancel",
        permissions=["operate"],
        icon="cancel",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Cancel this workflow?",
            "With all that its jobs have enqueued. Those that run are asked to stop.",
            "Cancel it",
        ),
    )
    def cancel_this(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        flow = get_object_or_404(Workflow, id=object_id)
        try:
            cut = trees.cancel_tree(flow, **audit.by(request, "admin"))
            told = f"{cut.cancelled} jobs cancelled, {cut.asked} asked to stop."
            self.message_user(request, told, messages.SUCCESS)
        except (trees.NothingToCancel, trees.TooLarge) as error:
            self.message_user(request, str(error), messages.ERROR)
        return done(request, reverse("admin:queue_app_workflow_change", args=[object_id]))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        runs = Workflow.objects.filter(id=object_id, finished_at=None).exists()
        return super().get_actions_detail(request, object_id) if runs else []


def cancel_trees(roots: Any, **trace: Any) -> int:
    """Of these jobs or workflows, each with all below it. Returns of how many something was left to cancel."""
    count = 0
    for root in roots:
        try:
            trees.cancel_tree(root, **trace)
            count += 1
        except (trees.NothingToCancel, trees.TooLarge):
            continue
    return count


def _told(member: Member, job: Job | None) -> tuple[Any, str, str]:
    role = f"({member.role.replace('_', ' ')})" if member.role else ""
    if job is None:
        return shortened(str(member.job)), member.outcome or "past its retention", role
    return _job_link(job.id, job.name), "waits for others" if job.is_held else job.state, role


def _job_link(id: Any, text: str) -> str:
    page = reverse("admin:queue_app_job_change", args=[id])
    return format_html('<a class="brain-link" href="{}">{}</a>', page, text)
