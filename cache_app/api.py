"""GET /api/v1/cache/status: the overview of Redis and this process's counts per cached function."""

from __future__ import annotations

from dataclasses import asdict

import redis
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from . import keyspace, stats


class StoreUnavailable(APIException):
    status_code = 503
    default_detail = "Redis does not answer."


class StatusView(APIView):
    def get(self, request: Request) -> Response:
        try:
            overview = keyspace.overview()
        except redis.RedisError as error:
            raise StoreUnavailable from error
        return Response({**asdict(overview), "degraded": overview.degraded, "functions": stats.snapshot()})
