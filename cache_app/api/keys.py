"""/api/v1/cache/keys: looking into an alias, and deleting from it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cache_app import browsing, operations
from foundation import roles
from foundation.api import Strict, asked, by

from .answers import ALIAS, VERSION, number, told


class RowSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="Without prefix and version.")
    version = serializers.CharField()
    full_key = serializers.CharField(help_text="As it stands in the store.")
    ttl_s = serializers.FloatField(
        allow_null=True, help_text="Until the store lets go of it; null: for ever."
    )
    left_s = serializers.FloatField(allow_null=True, help_text="Of its life, which may end before that.")
    size_bytes = serializers.IntegerField()
    memory_bytes = serializers.IntegerField(allow_null=True, help_text="With all that goes with it.")
    serializer = serializers.CharField(help_text="json, typed, pickle, integer, object, foreign …")
    compressor = serializers.CharField(allow_null=True)
    is_signed = serializers.BooleanField()
    is_timed = serializers.BooleanField()


class PageSerializer(serializers.Serializer):
    keys = RowSerializer(many=True)
    cursor = serializers.CharField(allow_blank=True, help_text="Of the next page; empty after the last one.")


class TagSerializer(serializers.Serializer):
    version = serializers.IntegerField(help_text="When the entry was stored.")
    holds = serializers.BooleanField(help_text="Else the tag was invalidated since.")


class EntrySerializer(RowSerializer):
    stored_at = serializers.FloatField(allow_null=True, help_text="Seconds since the epoch.")
    expires_at = serializers.FloatField(allow_null=True)
    load_s = serializers.FloatField(allow_null=True, help_text="How long making the value took.")
    sliding_s = serializers.FloatField(allow_null=True)
    tags = serializers.DictField(child=TagSerializer())
    is_served = serializers.BooleanField(help_text="Whether a read finds it.")
    value = serializers.CharField(
        allow_null=True, help_text="As JSON text, secrets masked; null for viewers, and where there is none."
    )
    why = serializers.CharField(allow_blank=True, help_text="Why there is no value.")
    is_cut = serializers.BooleanField(help_text="The value is longer.")


class RemovedSerializer(serializers.Serializer):
    removed = serializers.IntegerField()


class PatternSerializer(Strict, serializers.Serializer):
    """What to delete."""

    pattern = serializers.CharField(max_length=browsing.LONGEST_PATTERN, help_text="A glob: user:*")
    alias = serializers.CharField(default="default")
    version = serializers.CharField(default="", allow_blank=True)
    dry_run = serializers.BooleanField(default=True, help_text="Count and show, delete nothing.")


class DeletedSerializer(serializers.Serializer):
    """count, sample: of a dry run; removed: of a deletion."""

    count = serializers.IntegerField(allow_null=True)
    is_exact = serializers.BooleanField(allow_null=True, help_text="Else reckoned from a part of the keys.")
    sample = serializers.ListField(child=serializers.CharField())
    removed = serializers.IntegerField(allow_null=True)


class KeysView(APIView):
    """A page costs the server a bounded number of steps, so it may be short or empty although more follow."""

    @extend_schema(
        summary="List keys",
        operation_id="cache_keys_list",
        parameters=[
            ALIAS,
            VERSION,
            OpenApiParameter("pattern", str, description="A glob, or what keys begin with."),
            OpenApiParameter("cursor", str, description="Of another page."),
            OpenApiParameter(
                "page_size", int, description=f"About so many, at most {browsing.LONGEST_PAGE}."
            ),
        ],
        responses={200: PageSerializer},
    )
    def get(self, request: Request) -> Response:
        given = asked(request, ["alias", "version", "pattern", "cursor", "page_size"])
        size = number("page_size", given["page_size"], usual=browsing.PAGE, most=browsing.LONGEST_PAGE)
        if len(given["pattern"]) > browsing.LONGEST_PATTERN:
            raise ValidationError({"pattern": [f"has at most {browsing.LONGEST_PATTERN} characters"]})
        with told():
            cache = operations.cache_of(given["alias"] or "default")
            try:
                found = browsing.page(cache, given["pattern"], given["version"], given["cursor"], size)
            except ValueError as error:
                raise ValidationError({"cursor": [str(error)]}) from error
        return Response({"keys": [row.document() for row in found.rows], "cursor": found.cursor})


class KeyView(APIView):
    """One entry, with what it says of itself."""

    @extend_schema(summary="Read one entry", parameters=[ALIAS, VERSION], responses=EntrySerializer)
    def get(self, request: Request, key: str) -> Response:
        given = asked(request, ["alias", "version"])
        with told():
            found = browsing.look(operations.cache_of(given["alias"] or "default"), key, given["version"])
        if found is None:
            raise NotFound(f"There is no key {key}.")
        return Response({**found.document(), **_value(found, request)}, headers={"Cache-Control": "no-store"})

    @extend_schema(
        summary="Delete one entry", parameters=[ALIAS, VERSION], request=None, responses={204: None}
    )
    def delete(self, request: Request, key: str) -> Response:
        given = asked(request, ["alias", "version"])
        with told():
            removed = operations.delete(given["alias"] or "default", [key], given["version"], **by(request))
        if not removed:
            raise NotFound(f"There is no key {key}.")
        return Response(status=status.HTTP_204_NO_CONTENT)


class DeleteView(APIView):
    """Delete what a pattern matches. Without `dry_run: false` it is counted and shown, and nothing is deleted."""

    @extend_schema(summary="Delete by pattern", request=PatternSerializer, responses=DeletedSerializer)
    def post(self, request: Request) -> Response:
        given = PatternSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        what = {name: given.validated_data[name] for name in ("alias", "pattern", "version")}
        answer: dict[str, Any] = {"count": None, "is_exact": None, "sample": [], "removed": None}
        with told():
            if given.validated_data["dry_run"]:
                found = operations.preview(**what)
                answer |= {"count": found.count, "is_exact": found.is_exact, "sample": found.sample}
            else:
                answer["removed"] = operations.delete_pattern(**what, **by(request))
        return Response(answer)


def _value(found: browsing.Entry, request: Request) -> dict[str, Any]:
    if not roles.allows(request.user, roles.OPERATOR):
        return {"value": None, "why": "Values are for operators.", "is_cut": False}
    return {
        "value": found.preview.text or None,
        "why": found.preview.why,
        "is_cut": found.preview.is_cut,
    }
