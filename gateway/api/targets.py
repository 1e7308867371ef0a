"""/api/v1/gateway/targets, and services/<service>/targets"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from gateway import changes
from gateway.models import Service, Target
from gateway.models.service import STATES

from . import lists, references
from .rows import RowDetail, RowList, RowSerializer, reread, tagged, writing


class TargetSerializer(RowSerializer):
    service = serializers.SlugRelatedField(slug_field="name", queryset=Service.objects.all())

    class Meta:
        model = Target
        fields = ["id", "service", "url", "weight", "state"]


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
