"""/api/v1/gateway/keys, and consumers/<consumer>/keys. A key's text is in the answer that makes it and nowhere else;
its digest is in none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q, QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import Conflict, Strict
from gateway import changes
from gateway.models import ApiKey, Consumer

from . import lists, references
from .answers import Named
from .rows import RowDetail, RowList, RowSerializer, location, reread, tagged, writing

STATES = ("active", "expired", "revoked")


class KeySerializer(RowSerializer):
    consumer = Named(queryset=Consumer.objects.all())
    state = serializers.SerializerMethodField()
    scopes = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        required=False,
        help_text="Of the consumer's scopes. null: all of them.",
    )

    class Meta:
        model = ApiKey
        fields = [
            "id", "consumer", "prefix", "state", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at",
        ]  # fmt: skip
        read_only_fields = ["prefix", "created_at", "revoked_at", "last_used_at"]
        restless = ["state", "last_used_at"]

    @extend_schema_field(serializers.ChoiceField(STATES))
    def get_state(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"

    def validate_expires_at(self, at: datetime | None) -> datetime | None:
        if at is not None and at <= timezone.now():
            raise ValidationError("is over")
        return at

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if (
            self.instance is not None
            and attrs.get("consumer", self.instance.consumer) != self.instance.consumer
        ):
            raise ValidationError({"consumer": ["cannot be changed"]})
        return attrs


class NewKeySerializer(KeySerializer):
    """The answer to the making of a key."""

    key = serializers.CharField(help_text="Shown once.")

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


class RotationSerializer(Strict, serializers.Serializer):
    overlap_s = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=int(changes.LONGEST_OVERLAP_S),
        help_text="Seconds for which the old key is accepted too.",
    )


def _in_state(state: str) -> Q:
    over = Q(expires_at__lte=timezone.now())
    return {
        "revoked": ~Q(revoked_at=None),
        "expired": Q(revoked_at=None) & over,
        "active": Q(revoked_at=None) & (Q(expires_at=None) | ~over),
    }[state]


class KeyList(RowList):
    """GET: the keys of all consumers, never the keys themselves. POST: a new one, which is shown this once."""

    queryset = ApiKey.objects.select_related("consumer")
    serializer_class = KeySerializer
    orderings = ("id", "created_at")
    filters = {
        "consumer": lists.text("consumer__name", "Of the consumer of this name."),
        "prefix": lists.text("prefix", "`brn_<prefix>_…`"),
        "state": lists.choice(STATES, _in_state, "In this state."),
    }

    @extend_schema(responses={201: NewKeySerializer})
    def post(self, request: Request, **kwargs: Any) -> Response:
        asked = self.get_serializer(data=self.given(request))
        with writing():
            asked.is_valid(raise_exception=True)
            values = dict(asked.validated_data)
            row, text = changes.issue_key(values.pop("consumer"), **values, **audit.by(request, "api"))
        return _shown_once(request, row, text)


class ConsumerKeys(KeyList):
    """GET: the keys of one consumer, never the keys themselves. POST: a new one, which is shown this once."""

    filters = {name: one for name, one in KeyList.filters.items() if name != "consumer"}

    def get_queryset(self) -> QuerySet[ApiKey]:
        if getattr(self, "swagger_fake_view", False):  # the schema's generator looks at the model alone
            return super().get_queryset()
        return super().get_queryset().filter(consumer=self._consumer())

    def given(self, request: Request) -> Any:
        name = self._consumer().name
        if not isinstance(request.data, Mapping):
            return request.data
        if request.data.get("consumer", name) != name:
            raise ValidationError({"consumer": [f"is {name!r} in the address"]})
        return {**request.data, "consumer": name}

    def _consumer(self) -> Consumer:
        found: Consumer = references.find(Consumer.objects.all(), self.kwargs["ref"])
        return found


class KeyDetail(RowDetail):
    """A key. Its scopes and its end can be changed. It is revoked rather than deleted, so that it can be told whose it was."""

    queryset = ApiKey.objects.select_related("consumer")
    serializer_class = KeySerializer
    http_method_names = ["get", "patch", "head", "options"]


class KeyRevoke(APIView):
    """Takes no body. Harmless for a key that is revoked already."""

    required_role = roles.ADMIN

    @extend_schema(summary="Revoke one API key", request=None, responses=KeySerializer)
    def post(self, request: Request, ref: int) -> Response:
        with writing():
            key = references.find(ApiKey.objects.all(), ref)
            changes.revoke_key(key, **audit.by(request, "api"))
        return tagged(KeySerializer(reread(key)))


class KeyRotate(APIView):
    """A new key like the old one, which is accepted for `overlap_s` more seconds. 409 when it is expired or revoked."""

    required_role = roles.ADMIN

    @extend_schema(
        summary="Rotate one API key", request=RotationSerializer, responses={201: NewKeySerializer}
    )
    def post(self, request: Request, ref: int) -> Response:
        asked = RotationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with writing():
            key = references.find(ApiKey.objects.all(), ref)
            if (state := KeySerializer().get_state(key)) != "active":
                raise Conflict(f"The key is {state}: make a new one.")
            row, text = changes.rotate_key(key, **asked.validated_data, **audit.by(request, "api"))
        return _shown_once(request, row, text)


def _shown_once(request: Request, row: models.Model, text: str) -> Response:
    shown = KeySerializer(reread(row))
    headers = {
        "ETag": shown.etag(),
        "Cache-Control": "no-store",
        "Location": request.build_absolute_uri(location(row)),
    }
    return Response({**shown.data, "key": text}, status=status.HTTP_201_CREATED, headers=headers)
