"""/api/v1/gateway/targets, and services/<service>/targets"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from gateway import board, changes, origins
from gateway.board import Standing
from gateway.models import Service, Target
from gateway.models.service import STATES

from . import lists, references
from .answers import Named, moment
from .rows import RowDetail, RowList, RowSerializer, reread, tagged, writing


class StandingSerializer(serializers.Serializer):
    """As the edges of the fleet see it together. Times are null where there was no probe yet."""

    health = serializers.CharField(help_text="unknown, healthy or unhealthy.")
    health_reason = serializers.CharField(
        allow_blank=True, help_text="Of the last probe; empty when it was good."
    )
    checked_at = serializers.DateTimeField(allow_null=True)
    next_probe_at = serializers.DateTimeField(allow_null=True)
    breaker = serializers.CharField(help_text="The worst of all processes: closed, half_open or open.")
    why = serializers.CharField(
        allow_blank=True, help_text="Why it gets no traffic, or less; of the worst process."
    )
    ejected_until = serializers.DateTimeField(allow_null=True)
    inflight = serializers.IntegerField(help_text="Requests under way, of all processes.")
    latency_s = serializers.FloatField(
        allow_null=True, help_text="The peak-EWMA of the processes, their mean."
    )
    processes = serializers.IntegerField(help_text="That know the target.")


class TargetSerializer(RowSerializer):
    service = Named(queryset=Service.objects.all())
    standing = serializers.SerializerMethodField(
        help_text="Of a GET; null where no edge knows it, or Redis does not answer. No part of the ETag."
    )

    class Meta:
        model = Target
        fields = ["id", "service", "url", "weight", "state", "standing"]
        restless = ["standing"]

    @extend_schema_field(StandingSerializer(allow_null=True))
    def get_standing(self, target: Target) -> dict[str, Any] | None:
        known: dict[str, Any] = self.context
        if "request" not in known or known["request"].method != "GET":
            return None  # a write holds the configuration's lock, and Redis may be slow
        if "standings" not in known:  # of all rows of a list, in one look
            known["standings"] = {(one.service, one.name): one for one in board.read() or ()}
        found = known["standings"].get((target.service.name, origins.read(target.url).name))
        return None if found is None else _standing(found)


def _standing(found: Standing) -> dict[str, Any]:
    return {
        "health": found.health,
        "health_reason": found.health_reason,
        "checked_at": moment(found.checked_at),
        "next_probe_at": moment(found.next_at),
        "breaker": found.breaker,
        "why": found.views[0].why if found.views else "",
        "ejected_until": moment(max((view.ejected_until for view in found.views), default=0.0)),
        "inflight": found.inflight,
        "latency_s": found.ewma_s or None,
        "processes": len(found.views),
    }


class TargetList(RowList):
    """GET: the targets of all services. POST: a new one."""

    queryset = Target.objects.select_related("service")
    serializer_class = TargetSerializer
    orderings = ("id", "url")
    filters = {
        "service": lists.text("service__name", "Of the service of this name."),
        "state": lists.choice(STATES, lambda state: Q(state=state), "In this state."),
        "url": lists.text("url", "The whole URL."),
    }


class ServiceTargets(TargetList):
    """GET: the targets of one service. POST: a new one."""

    filters = {name: one for name, one in TargetList.filters.items() if name != "service"}

    def get_queryset(self) -> QuerySet[Target]:
        if getattr(self, "swagger_fake_view", False):  # the schema's generator looks at the model alone
            return super().get_queryset()
        return super().get_queryset().filter(service=self._service())

    def given(self, request: Request) -> Any:
        name = self._service().name
        if not isinstance(request.data, Mapping):
            return request.data
        if request.data.get("service", name) != name:
            raise ValidationError({"service": [f"is {name!r} in the address"]})
        return {**request.data, "service": name}

    def _service(self) -> Service:
        found: Service = references.find(Service.objects.all(), self.kwargs["ref"])
        return found


class TargetDetail(RowDetail):
    """A target. Operators change its weight and state."""

    queryset = Target.objects.select_related("service")
    serializer_class = TargetSerializer
    operable = frozenset({"weight", "state"})


class TargetState(APIView):
    """Takes no body. Harmless for a target that is in the state already."""

    state = "active"

    @extend_schema(summary="Set the state of one target", request=None, responses=TargetSerializer)
    def post(self, request: Request, ref: int) -> Response:
        with writing():
            target = references.find(Target.objects.all(), ref)
            changes.set_target_state(target, self.state, **audit.by(request, "api"))
        return tagged(TargetSerializer(reread(target)))
