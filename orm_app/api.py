"""The database layer's API: what `manage.py database` shows, for viewers."""

from __future__ import annotations

from dataclasses import asdict

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from . import status


class StatusView(APIView):
    """State, server, version, pool and pending migrations of every configured database."""

    def get(self, request: Request) -> Response:
        return Response({"databases": [asdict(one) for one in status.every()]})
