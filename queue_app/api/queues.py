"""The REST API of queues: /api/v1/queue/queues."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from queue_app import stats


class QueueList(APIView):
    def get(self, request: Request) -> Response:
        return Response({"results": [_depth(depth) for depth in stats.depths()]})


def _depth(depth: stats.Depth) -> dict[str, Any]:
    return {
        "name": depth.queue,
        "paused": depth.paused,
        "oldest_due_s": round(depth.oldest_due_s, 3),
        "jobs": depth.jobs,
    }
