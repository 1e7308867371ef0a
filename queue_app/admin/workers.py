"""The admin page of workers: what they do, and what they are asked for."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from foundation import audit, figures
from foundation.admin import ReadOnlyModelAdmin, asking, done, shortened
from queue_app import clock, workers
from queue_app.conf import conf
from queue_app.models import Worker
from queue_app.states import Asked

_STATUS = {
    Asked.NOTHING: "alive",
    Asked.QUIET: "quiet",
    Asked.STOP: "stopping",
    Asked.RECYCLE: "recycling",
}


_STALE = 2 / 3  # of the lease: a worker beats at every third of it, so this one has missed a beat


def _percent(part: int, whole: int) -> int:
    return min(100, round(100 * part / max(1, whole)))


@admin.register(Worker)
class WorkerAdmin(ReadOnlyModelAdmin):
    when_empty = (
        "None has run lately, so jobs wait. Start one: manage.py queue, or celery -A brain_project worker."
    )
    list_display = [
        "host", "pid", "status", "pool", "slots", "memory", "consumes", "started_at", "seen",
    ]  # fmt: skip
    fields = [
        ("host", "pid"),
        "version",
        ("status", "consumes"),
        ("pool", "slots"),
        ("memory", "jobs"),
        ("started_at", "seen"),
        ("lease_until", "stopped_at"),
        "id",
    ]
    readonly_fields = [*list_display, "version", "jobs", "lease_until", "stopped_at", "id"]
    actions_detail = ["quiet", "unquiet", "stop", "recycle"]

    @display(
        description="status",
        label={
            "alive": "success", "quiet": "warning", "stopping": "warning", "recycling": "warning", "stuck": "danger",
            "stopped": "info", "lost": "danger",
        },
    )  # fmt: skip
    def status(self, worker: Worker) -> str:
        if (
            worker.lease_until <= clock.now()
        ):  # the lease is by the database's clock, whatever this host's says
            return "stopped" if worker.stopped_at else "lost"
        if worker.stuck:
            return "stuck"
        return _STATUS[Asked(worker.asked)]

    @display(description="slots in use")
    def slots(self, worker: Worker) -> str:
        """A bar and words: what runs, what is stuck, what is free."""
        used = len(worker.running)
        stuck = f", {worker.stuck} stuck" if worker.stuck else ""
        return format_html(
            '<span class="brain-slots"><span class="brain-meter" aria-hidden="true"><i style="width:{}%"></i>'
            '<b style="width:{}%"></b></span><span class="brain-nowrap">{} of {}{}</span></span>',
            _percent(used, worker.concurrency),
            _percent(worker.stuck, worker.concurrency),
            used,
            worker.concurrency,
            stuck,
        )

    @display(description="last seen", ordering="last_seen_at")
    def seen(self, worker: Worker) -> str:
        silent_s = (clock.now() - worker.last_seen_at).total_seconds()
        is_stale = worker.stopped_at is None and silent_s > conf().LEASE_S * _STALE
        return format_html(
            '<span class="brain-nowrap{}" title="{}">{}{}</span>',
            " brain-bad" if is_stale else "",
            f"{worker.last_seen_at:%Y-%m-%d %H:%M:%S}",
            figures.ago(silent_s),
            ", stale" if is_stale else "",
        )

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
        dialog=asking(
            "Quiet this worker?", "It ends what it runs and takes no new jobs.", "Quiet this worker"
        ),
    )
    def quiet(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.QUIET, "It takes no new jobs.")

    @action(
        description="Take jobs again",
        permissions=["operate"],
        icon="play_arrow",
        dialog=asking(
            "Let this worker take jobs again?", "It was asked to be quiet.", "Let this worker take jobs again"
        ),
    )
    def unquiet(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.NOTHING, "It takes jobs again.")

    @action(
        description="Recycle",
        permissions=["operate"],
        icon="restart_alt",
        dialog=asking(
            "Recycle this worker?",
            "It ends what it runs, as at a stop, and starts anew under the same pid.",
            "Recycle this worker",
        ),
    )
    def recycle(self, request: HttpRequest, form: Form, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, Asked.RECYCLE, "It starts anew.")

    @action(
        description="Stop",
        permissions=["operate"],
        icon="stop",
        variant=ActionVariant.DANGER,
        dialog=asking(
            "Stop this worker?",
            "It ends what it runs, gives the rest back and exits. Whatever supervises it may start it again.",
            "Stop this worker",
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
