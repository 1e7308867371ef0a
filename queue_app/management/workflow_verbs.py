"""`manage.py queue workflows` and `inspect ID`: how far workflows are, and all about one job or workflow."""

from __future__ import annotations

import argparse
import json
from typing import Any
from uuid import UUID

from foundation.commands import BrainCommand, Failed
from queue_app import offload, trees, workflows
from queue_app.models import Job, Workflow

_SHOWN = 50
_OF_FLOW = (
    "id",
    "kind",
    "name",
    "status",
    "total",
    "completed",
    "dead",
    "cancelled",
    "created_at",
    "finished_at",
)
_OF_JOB = (
    "id", "name", "queue", "delivery", "tenant", "state", "attempt", "max_attempts", "crash_count", "priority", "run_after",
    "parent", "workflow", "request_id", "fingerprint", "progress", "progress_note", "created_at", "started_at", "finished_at",
)  # fmt: skip


class WorkflowVerbs:
    """The part of `manage.py queue` that speaks of workflows."""

    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        listing = self._command.verb(
            "workflows", self.list, "List workflows, newest first, with their progress."
        )
        listing.add_argument("--open", action="store_true", help="only those that are not over")
        looking = self._command.verb(
            "inspect", self.inspect, "All about a job or a workflow. Example: manage.py queue inspect ID"
        )
        looking.add_argument("id", type=UUID, metavar="ID")

    def list(self, **options: Any) -> None:
        found = Workflow.objects.all()
        found = found.filter(finished_at=None) if options["open"] else found
        self._command.table(_OF_FLOW, [[getattr(flow, name) for name in _OF_FLOW] for flow in found[:_SHOWN]])

    def inspect(self, *, id: UUID, **options: Any) -> None:
        root = root_of(id)
        if isinstance(root, Workflow):
            self._workflow(root)
        else:
            self._job(root)

    def _workflow(self, flow: Workflow) -> None:
        fields = {name: getattr(flow, name) for name in _OF_FLOW}
        columns = ["position", "job", "task", "state", "role"]
        rows = [
            [place.position, place.job, job.name if job else "", _standing(job, place.outcome), place.role]
            for place, job in workflows.members(flow, most=1000)
        ]
        self._show(fields | {"jobs": [dict(zip(columns, row, strict=True)) for row in rows]}, fields)
        self._command.table(columns, rows, title="\njobs")

    def _job(self, job: Job) -> None:
        fields = {name: getattr(job, name) for name in _OF_JOB} | {"state": _standing(job, "")}
        fields["tags"] = list(job.tags)
        if job.is_held:
            fields["run_after"] = None
        events = [[event.at, event.state, event.worker, event.detail] for event in job.events.all()]
        columns = ["at", "state", "worker", "detail"]
        data = {"payload": offload.shown(job), "result": job.result, "last_error": job.last_error}
        told = [dict(zip(columns, row, strict=True)) for row in events]
        self._show(fields | data | {"events": told}, fields | {"tags": ", ".join(job.tags)})
        self._command.table(columns, [[*row[:3], _short(row[3])] for row in events], title="\nhistory")
        self._block("error", _error(job.last_error))
        self._block("payload", _as_json(data["payload"]))
        self._block("result", _as_json(job.result))

    def _block(self, title: str, text: str) -> None:
        """What has lines of its own, under a title: nothing for an empty one."""
        if text:
            self._command.line(f"\n{title}", style="italic")
            self._command.line(text)

    def _show(self, document: dict[str, Any], fields: dict[str, Any]) -> None:
        self._command.document(document)
        told = [[name, None if value == "" else value] for name, value in fields.items()]
        self._command.table(["field", "value"], told)


def _short(detail: dict[str, Any]) -> str:
    """The last error's traceback stands below."""
    return ", ".join(f"{key}: {value}" for key, value in detail.items() if value and key != "traceback")


def _error(error: dict[str, Any] | None) -> str:
    """A traceback ends with type and message; an error without one is these two."""
    if not error:
        return ""
    return str(error.get("traceback") or f"{error.get('type', '')}: {error.get('message', '')}").rstrip()


def _as_json(value: Any) -> str:
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def cut(id: UUID, *, force: bool, trace: dict[str, str]) -> str:
    """Cancel the tree of a job or a workflow. Why it was not; empty when it was."""
    try:
        trees.cancel_tree(root_of(id), force=force, **trace)
    except (trees.NothingToCancel, trees.TooLarge, Failed) as error:
        return str(error)
    return ""


def root_of(id: UUID) -> Job | Workflow:
    """Raises Failed."""
    found = Workflow.objects.filter(id=id).first() or Job.objects.filter(id=id).first()
    if found is None:
        raise Failed(f"there is no job or workflow {id}", "see: manage.py queue workflows")
    return found


def _standing(job: Job | None, outcome: str) -> str:
    if job is None:
        return outcome or "past its retention"
    return "PENDING (waits for others)" if job.is_held else job.state


def tree_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tree",
        action="store_true",
        help="of jobs or workflows, with everything that their jobs have enqueued",
    )
