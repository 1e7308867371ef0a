"""The dead letters' REST API: what they failed of, and payloads to mend; many at once: bulk_actions.py."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from foundation.api import Strict
from queue_app import deadletter
from queue_app.models import Job
from queue_app.offload import PayloadLost
from queue_app.payloads import BadPayload
from queue_app.registry import UnknownTask

from .answers import SELECTION, conflict_if, parameters
from .bulk_actions import selected
from .shapes import ChangedPayloadSerializer, FailuresSerializer

MOST = 100


class PayloadSerializer(Strict, serializers.Serializer[Any]):
    payload = serializers.DictField()


class DeadLetters(APIView):
    """The dead letters by what they failed of, the MOST most frequent ones. Filters: as of `jobs`. more: there are others."""

    @extend_schema(summary="List failures", parameters=parameters(SELECTION), responses=FailuresSerializer)
    def get(self, request: Request) -> Response:
        groups = deadletter.groups(selected(request.query_params.dict()), most=MOST + 1)
        shown = [group._asdict() for group in groups[:MOST]]
        return Response({"results": shown, "more": len(groups) > MOST})


class PayloadEdit(APIView):
    """POST: another payload for a dead job. 400 when its task does not take it, 409 when it is not dead."""

    @extend_schema(
        summary="Mend a dead letter's payload", request=PayloadSerializer, responses=ChangedPayloadSerializer
    )
    def post(self, request: Request, pk: UUID) -> Response:
        job = get_object_or_404(Job, id=pk)
        asked = PayloadSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            with conflict_if(deadletter.Refused, UnknownTask, PayloadLost):
                changes = deadletter.edit(job, asked.validated_data["payload"], **audit.by(request, "api"))
        except BadPayload as error:
            raise ValidationError({"payload": [str(error)]}) from error
        return Response({"id": str(job.id), "changes": changes})
