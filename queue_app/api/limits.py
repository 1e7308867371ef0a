"""The REST API of limits: /api/v1/queue/queues/<name>/limits and …/tenants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit
from foundation.api import Strict
from queue_app import limits_told, queues, quotas, tenants
from queue_app.models import Queue, Tenant

from .queues import found
from .shapes import QueueLimitsSerializer, TenantPolicySerializer, TenantsSerializer

T = TypeVar("T")


def _count() -> serializers.IntegerField:
    return serializers.IntegerField(required=False, allow_null=True)


class LimitsSerializer(Strict, serializers.Serializer[Any]):
    """What can be a limit is said by quotas.check alone."""

    is_fair = serializers.BooleanField(required=False)
    max_concurrency, rate_count, rate_burst = _count(), _count(), _count()
    tenant_concurrency, tenant_rate_count, tenant_rate_burst = _count(), _count(), _count()
    rate_period_s = serializers.FloatField(required=False, allow_null=True)
    tenant_rate_period_s = serializers.FloatField(required=False, allow_null=True)


class TenantSerializer(Strict, serializers.Serializer[Any]):
    name = serializers.CharField(allow_blank=True)
    is_new = serializers.BooleanField(default=False)
    paused = serializers.BooleanField(required=False, allow_null=True)
    weight, max_concurrency, rate_count, rate_burst = _count(), _count(), _count(), _count()
    rate_period_s = serializers.FloatField(required=False, allow_null=True)


class QueueLimits(APIView):
    """GET: the limits and what is in use. PATCH: change some of them; null takes one away."""

    @extend_schema(summary="Read a queue's limits", responses=QueueLimitsSerializer)
    def get(self, request: Request, name: str) -> Response:
        return Response(_shown(found(name)))

    @extend_schema(
        summary="Change a queue's limits", request=LimitsSerializer, responses=QueueLimitsSerializer
    )
    def patch(self, request: Request, name: str) -> Response:
        queue, given = found(name), LimitsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        changes = dict(given.validated_data)
        _checked(lambda: queues.configure(queue.name, **changes, **audit.by(request, "api")))
        return Response(_shown(Queue.objects.get(name=name)))


class QueueTenants(APIView):
    """GET: the tenants and what they have in use. PATCH `{"name": …, "weight": 3}`: change what one may take."""

    @extend_schema(summary="List a queue's tenants", responses=TenantsSerializer)
    def get(self, request: Request, name: str) -> Response:
        found(name)
        return Response({"results": [_tenant(standing) for standing in tenants.standing(name)]})

    @extend_schema(
        summary="Change what a tenant may take", request=TenantSerializer, responses=TenantPolicySerializer
    )
    def patch(self, request: Request, name: str) -> Response:
        queue, given = found(name), TenantSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        changes = dict(given.validated_data)
        tenant = changes.pop("name")
        row = _checked(lambda: tenants.configure(queue.name, tenant, **changes, **audit.by(request, "api")))
        return Response({"name": row.name, **_policy(row)})


def _shown(queue: Queue) -> dict[str, Any]:
    limits = {key: getattr(queue, key) for key in queues.LIMITS}
    return {"name": queue.name, **limits, "in_use": limits_told.in_use(queue.name)._asdict()}


def _tenant(found: tenants.Standing) -> dict[str, Any]:
    standing = {
        "name": found.name,
        "waiting": found.waiting,
        "held": found.held,
        "unstarted": found.unstarted,
    }
    return {**standing, **_policy(found.row or Tenant(name=found.name))}


def _policy(row: Tenant) -> dict[str, Any]:
    return {key: getattr(row, key) for key in tenants.EDITABLE}


def _checked(act: Callable[[], T]) -> T:
    try:
        return act()
    except quotas.BadLimit as error:
        raise ValidationError({error.field: [error.problem]}) from error
    except tenants.UnknownTenant as error:
        raise ValidationError({"name": [str(error)]}) from error
