"""The top of a job's page: from enqueued to ended, and each run with its waits, its worker and its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from foundation import figures
from queue_app import timeline
from queue_app.models import Job
from queue_app.states import OVER, State
from queue_app.timeline import Run, Step

from .cells import to_the_millisecond, worker_link, worker_of

_STEPS = 500  # of a history: a job that is parked every half minute has thousands
_TONES = {
    State.COMPLETED: "completed", State.FAILED: "failed", State.DEAD_LETTER: "dead", State.CANCELLED: "cancelled",
    timeline.LOST: "dead", timeline.GIVEN_BACK: "cancelled", timeline.RUNNING: "p50",
}  # fmt: skip


class TimelineAbove:
    """Puts it above the fields of a job's page."""

    change_form_outer_before_template = "admin/queue_app/job/timeline.html"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Job | None = None, **kwargs: Any
    ) -> Any:
        if obj is not None:
            context["timeline"] = shown(obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)  # type: ignore[misc]


def shown(job: Job) -> dict[str, Any]:
    """One statement."""
    newest = job.events.annotate(**worker_of("worker")).order_by("-id")[: _STEPS + 1]
    events = list(reversed(newest))
    is_cut = len(events) > _STEPS
    steps = [Step(event.state, event.at, event, event.detail) for event in events[is_cut:]]
    found, now = timeline.runs(steps, job.run_after, job.last_error), timezone.now()
    began = steps[0].at if is_cut else job.created_at
    bars = timeline.bars(found, began, now)
    return {
        "is_cut": is_cut,
        "stages": _stages(job, found),
        "runs": [
            {
                "run": run,
                "bar": bar,
                "tone": _TONES.get(run.outcome, ""),
                "claimed": to_the_millisecond(run.claimed_at),
                "waited": figures.duration(run.waited_s),
                "ran": figures.duration(run.ran_s(now)),
                "worker": worker_link(run.worker.worker, run.worker),
                "outcome": run.outcome.replace("_", " ").lower(),
                "told": _told(run),
            }
            for run, bar in zip(found, bars, strict=True)
        ],
    }


def _stages(job: Job, found: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Name, moment, and how long after the one before."""
    moments = [("Enqueued", job.created_at)]
    if found and found[0].due_at > job.created_at:
        moments.append(("Due", found[0].due_at))
    elif not found and job.run_after and not job.is_held and job.run_after > job.created_at:
        moments.append(("Due", job.run_after))
    if found:
        moments.append(("First claimed", found[0].claimed_at))
    if len(found) > 1:
        moments.append(("Last claimed", found[-1].claimed_at))
    if job.state in OVER and job.finished_at:
        moments.append((job.state.replace("_", " ").capitalize(), job.finished_at))
    before = [moments[0][1], *(moment for _, moment in moments)]
    return [
        (name, to_the_millisecond(moment), f"+{figures.duration((moment - earlier).total_seconds())}" if number else "")
        for number, ((name, moment), earlier) in enumerate(zip(moments, before, strict=False))
    ]  # fmt: skip


def _told(run: Run) -> str:
    """What its last step says beside the error."""
    said = [str(run.detail["reason"])] if run.detail.get("reason") and run.outcome != timeline.LOST else []
    if run.detail.get("retry_in_s"):
        said.append(f"again after {figures.duration(run.detail['retry_in_s'])}")
    return ", ".join(said)
