"""The REST API of statistics: /api/v1/queue/stats."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from queue_app import clock, spans, stats
from queue_app.histograms import COUNTS, Tally, quantiles

from .answers import parameters
from .shapes import QueueStatisticsSerializer

_ASKED = {
    "queue": "Of this queue.",
    "name": "Of this task.",
    "tenant": "Of this tenant.",
    "since": "A span: 30m, 1h, 30d; usually 1h.",
    "step": "1m, 5m, 15m, 1h, 6h or 1d; usually by the length.",
}


class Stats(APIView):
    """Filters: `queue`, `name`, `tenant`; `since` (1h, 30d), `step` (1m … 1d). Waits and durations in seconds."""

    @extend_schema(
        summary="Read statistics", parameters=parameters(_ASKED), responses=QueueStatisticsSerializer
    )
    def get(self, request: Request) -> Response:
        try:
            asked = spans.question(request.query_params.dict(), clock.now())
        except spans.BadQuestion as error:
            raise ValidationError({field: [told] for field, told in error.errors.items()}) from error
        series, summary = stats.both(asked)
        return Response(
            {
                "since": asked.since,
                "until": asked.until,
                "step_s": asked.step_s,
                "summary": [
                    {"queue": queue, "name": name, **shown(tally)} for (queue, name), tally in summary.items()
                ],
                "series": [{"at": at, **shown(tally)} for at, tally in series],
            }
        )


def shown(tally: Tally) -> dict[str, Any]:
    """As JSON: the counts, the share of runs that failed, and percentiles in seconds."""
    counts = {name: getattr(tally, name) for name in COUNTS}
    share = tally.failure_share
    return {**counts, "failure_share": share, "wait_s": quantiles(tally.wait), "run_s": quantiles(tally.run)}
