"""The REST API of alerts: /api/v1/queue/alerts, their rules and silences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import Strict
from queue_app import alert_rules, clock, silences
from queue_app.alerts import State
from queue_app.models import Alert, AlertRule, Silence

from .answers import NewestFirst, conflict_if

T = TypeVar("T")
_STATES = [state.value for state in State]


class AlertSerializer(serializers.ModelSerializer[Alert]):
    class Meta:
        model = Alert
        fields = [
            "id", "name", "rule", "condition", "queue", "state", "value", "words", "since", "fired_at", "calm_since",
            "resolved_at", "told_at", "notices",
        ]  # fmt: skip


class RuleSerializer(Strict, serializers.ModelSerializer[AlertRule]):
    class Meta:
        model = AlertRule
        fields = ["id", "name", *alert_rules.EDITABLE, "created_at"]
        read_only_fields = ["created_at"]

    def create(self, validated_data: dict[str, Any]) -> AlertRule:
        trace = audit.by(self.context["request"], "api")
        return _checked(alert_rules.create, validated_data.pop("name"), **validated_data, **trace)

    def update(self, instance: AlertRule, validated_data: dict[str, Any]) -> AlertRule:
        if validated_data.pop("name", instance.name) != instance.name:
            raise ValidationError({"name": ["cannot be changed"]})
        return _checked(
            alert_rules.change, instance, **validated_data, **audit.by(self.context["request"], "api")
        )


class SilenceSerializer(serializers.ModelSerializer[Silence]):
    rule = serializers.SlugRelatedField(slug_field="name", read_only=True)

    class Meta:
        model = Silence
        fields = ["id", "rule", "queue", "until", "reason", "actor", "created_at"]


class AlertSilenceSerializer(Strict, serializers.Serializer[Any]):
    for_s = serializers.FloatField()
    reason = serializers.CharField()


class NewSilenceSerializer(AlertSilenceSerializer):
    rule = serializers.SlugRelatedField(
        slug_field="name", queryset=AlertRule.objects.all(), default=None, allow_null=True
    )
    queue = serializers.CharField(default="", allow_blank=True)


@extend_schema_view(get=extend_schema(summary="List alerts"))
class AlertList(generics.ListAPIView[Alert]):
    """Newest first. Filters: `state` (pending, firing, resolved), `queue`, `name` (the rule's)."""

    serializer_class = AlertSerializer
    pagination_class = NewestFirst
    filters = {
        "state": f"One of {', '.join(_STATES)}.",
        "queue": "Of this queue.",
        "name": "Of the rule of this name.",
    }

    def get_queryset(self) -> QuerySet[Alert]:
        asked = self.request.query_params
        if asked.get("state", _STATES[0]) not in _STATES:
            raise ValidationError({"state": [f"is not one of {', '.join(_STATES)}"]})
        wanted = {field: asked[field] for field in ("state", "queue", "name") if field in asked}
        return Alert.objects.filter(**wanted)


class AlertDetail(generics.RetrieveAPIView[Alert]):
    queryset = Alert.objects.all()
    serializer_class = AlertSerializer


class AlertSilence(APIView):
    """POST `{"for_s": 3600, "reason": …}`: tell nobody of this rule about this queue. 409 when the alert is over."""

    @extend_schema(
        summary="Silence an alert", request=AlertSilenceSerializer, responses={201: SilenceSerializer}
    )
    def post(self, request: Request, pk: int) -> Response:
        alert, given = get_object_or_404(Alert, pk=pk), AlertSilenceSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        row = _checked(silences.silence_alert, alert, **given.validated_data, **audit.by(request, "api"))
        return Response(SilenceSerializer(row).data, status=status.HTTP_201_CREATED)


class RuleList(generics.ListCreateAPIView[AlertRule]):
    queryset = AlertRule.objects.all()
    serializer_class = RuleSerializer
    pagination_class = NewestFirst
    required_role = {"POST": roles.ADMIN}


class RuleDetail(generics.RetrieveUpdateDestroyAPIView[AlertRule]):
    queryset = AlertRule.objects.all()
    serializer_class = RuleSerializer
    required_role = {"DELETE": roles.ADMIN}
    http_method_names = ["get", "patch", "delete", "head", "options"]

    def perform_destroy(self, instance: AlertRule) -> None:
        _checked(alert_rules.delete, instance, **audit.by(self.request, "api"))


@extend_schema_view(get=extend_schema(summary="List silences"))
class SilenceList(generics.ListAPIView[Silence]):
    """GET: newest first; `standing=true`: those that are not over. POST `{"for_s", "reason", "rule", "queue"}`."""

    serializer_class = SilenceSerializer
    pagination_class = NewestFirst
    filters = {"standing": "true: those that are not over."}

    def get_queryset(self) -> QuerySet[Silence]:
        found = Silence.objects.select_related("rule")
        wanted = self.request.query_params.get("standing", "false")
        if wanted not in ("true", "false"):
            raise ValidationError({"standing": ["is neither true nor false"]})
        return found.filter(until__gt=clock.now()) if wanted == "true" else found

    @extend_schema(
        summary="Silence a rule, a queue or all",
        request=NewSilenceSerializer,
        responses={201: SilenceSerializer},
    )
    def post(self, request: Request) -> Response:
        given = NewSilenceSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        until = _checked(silences.after, fields.pop("for_s"))
        row = _checked(silences.silence, until=until, **fields, **audit.by(request, "api"))
        return Response(SilenceSerializer(row).data, status=status.HTTP_201_CREATED)


class SilenceEnd(APIView):
    """POST: tell again. 409 when it is over."""

    @extend_schema(summary="End a silence", request=None, responses=SilenceSerializer)
    def post(self, request: Request, pk: int) -> Response:
        row = _checked(silences.end, get_object_or_404(Silence, pk=pk), **audit.by(request, "api"))
        return Response(SilenceSerializer(row).data)


def _checked(act: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        with conflict_if(alert_rules.Gone, silences.Over):
            return act(*args, **kwargs)
    except alert_rules.BadRule as error:
        raise ValidationError({field: [told] for field, told in error.errors.items()}) from error
    except silences.BadSilence as error:
        raise ValidationError({error.field: [str(error)]}) from error
