"""/api/v1/cache/tags/invalidate, /namespaces/invalidate and /clear."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cache_app import operations
from foundation import roles
from foundation.api import Strict, by

from .answers import told
from .keys import RemovedSerializer

_MOST = 100  # names in one call
_LONGEST = 200  # characters of one


class _NameField(serializers.CharField):
    def __init__(self) -> None:
        super().__init__(max_length=_LONGEST)


class TagsSerializer(Strict, serializers.Serializer):
    """Which tags end."""

    tags = serializers.ListField(child=_NameField(), min_length=1, max_length=_MOST)
    alias = serializers.CharField(default="default")


class NamespacesSerializer(Strict, serializers.Serializer):
    """Which namespaces end."""

    namespaces = serializers.ListField(child=_NameField(), min_length=1, max_length=_MOST)
    alias = serializers.CharField(default="default")


class ClearSerializer(Strict, serializers.Serializer):
    """Which alias."""

    alias = serializers.CharField(default="default")


class TagsView(APIView):
    """Every entry that was stored under one of them is a miss from now on."""

    @extend_schema(summary="Invalidate tags", request=TagsSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        given = TagsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with told():
            operations.invalidate_tags(
                given.validated_data["alias"], given.validated_data["tags"], **by(request)
            )
        return Response(status=status.HTTP_204_NO_CONTENT)


class NamespacesView(APIView):
    """Every entry in one of them is a miss from now on."""

    @extend_schema(summary="Invalidate namespaces", request=NamespacesSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        given = NamespacesSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with told():
            for name in given.validated_data["namespaces"]:
                operations.invalidate_namespace(given.validated_data["alias"], name, **by(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ClearView(APIView):
    """Remove every key under the alias' prefix, and nothing else."""

    required_role = roles.ADMIN

    @extend_schema(summary="Clear an alias", request=ClearSerializer, responses=RemovedSerializer)
    def post(self, request: Request) -> Response:
        given = ClearSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        with told():
            removed = operations.clear(given.validated_data["alias"], **by(request))
        return Response({"removed": removed})
