"""/api/v1/gateway/export and apply: the whole configuration as one YAML document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ParseError, PermissionDenied, ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import audit, roles
from foundation.api import unknown
from gateway import config, holder
from gateway.errors import InvalidDocument
from gateway.models import Configuration

from . import etags
from .rows import writing
from .schema import ETAG, IF_MATCH

YAML = "application/yaml"  # RFC 9512
_SWITCHES = ("prune", "dry_run")


class TooLarge(APIException):
    status_code = 413
    default_code = "too_large"


class YamlRenderer(BaseRenderer):
    media_type = YAML
    format = "yaml"

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return str(data).encode()


class YamlParser(BaseParser):
    """The text as it is: config.load reads it."""

    media_type = YAML

    def parse(self, stream: Any, *args: Any, **kwargs: Any) -> str:
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(most + 1)
        if len(body) > most:
            raise TooLarge(f"The document is larger than {most} bytes.")
        try:
            text: str = body.decode()
        except UnicodeDecodeError as error:
            raise ParseError("The document is not UTF-8.") from error
        return text


class PlainYamlParser(YamlParser):
    media_type = "text/yaml"


class OldYamlParser(YamlParser):
    media_type = "application/x-yaml"


class JsonDocumentParser(YamlParser):
    """JSON is YAML."""

    media_type = "application/json"


class ChangeSerializer(serializers.Serializer):
    """One difference."""

    verb = serializers.ChoiceField(["create", "update", "delete"])
    kind = serializers.CharField()
    name = serializers.CharField(help_text="Of a key: the end of its digest.")
    before = serializers.DictField(
        allow_null=True, help_text="The fields that differ; null where it did not exist."
    )
    after = serializers.DictField(
        allow_null=True, help_text="The fields that differ; null where it is deleted."
    )


class AppliedSerializer(serializers.Serializer):
    version = serializers.IntegerField(help_text="Of the configuration, now.")
    is_dry_run = serializers.BooleanField()
    changes = ChangeSerializer(many=True)
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What production would refuse.")


class ExportView(APIView):
    """The configuration as YAML, without secrets. Its ETag is that of the version, for If-Match of `apply`."""

    required_role = roles.ADMIN  # it holds the digests of keys, and those of imported keys can be guessed
    renderer_classes = (YamlRenderer,)

    @extend_schema(
        summary="Export the configuration", parameters=[ETAG], responses={(200, YAML): OpenApiTypes.STR}
    )
    def get(self, request: Request) -> Response:
        with holder.one_moment():
            text, version = config.export(), _version()
        return Response(text, headers={"ETag": _etag(version)})


class ApplyView(APIView):
    """Make the configuration what the document says, all of it or nothing. `prune=true`: delete what it does not name.
    `dry_run=true`: only tell what would be done."""

    parser_classes = (YamlParser, PlainYamlParser, OldYamlParser, JsonDocumentParser)

    @extend_schema(
        summary="Apply a document",
        parameters=[
            OpenApiParameter("prune", bool, description="Delete what the document does not name."),
            OpenApiParameter("dry_run", bool, description="Only tell what would be done; for operators too."),
            IF_MATCH,
            ETAG,
        ],
        request={YAML: OpenApiTypes.STR},
        responses=AppliedSerializer,
    )
    def post(self, request: Request) -> Response:
        switches = _switches(request)
        if not switches["dry_run"] and not roles.allows(request.user, roles.ADMIN):
            raise PermissionDenied(
                "The role admin is needed to apply a document; `dry_run=true` is for operators too."
            )
        try:
            wanted = config.load(request.data or "")  # without a body DRF parses nothing: {}
            done = (
                _diffed(request, wanted, **switches)
                if switches["dry_run"]
                else _applied(request, wanted, **switches)
            )
        except InvalidDocument as error:
            raise ValidationError(error.problems) from error
        version = _version()
        shown = [change_shown(one.kind, one.name, one.before, one.after) for one in done]
        body = {
            "version": version,
            "is_dry_run": switches["dry_run"],
            "changes": shown,
            "warnings": list(wanted.warnings),
        }
        return Response(body, headers={"ETag": _etag(version)})


def change_shown(
    kind: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> dict[str, Any]:
    """before, after: the fields that differ, without secrets; null where it does not exist."""
    if before is not None and after is not None:
        names = [field for field in {**before, **after} if before.get(field) != after.get(field)]
        before, after = ({field: side.get(field) for field in names} for side in (before, after))
    verb = "create" if before is None else "delete" if after is None else "update"
    # A key's name is its digest, which the API never shows.
    told_name = f"…{name[-8:]}" if kind == "key" else name
    return {
        "verb": verb,
        "kind": kind,
        "name": told_name,
        "before": audit.mask(before),
        "after": audit.mask(after),
    }


def _diffed(request: Request, wanted: Any, *, prune: bool, dry_run: bool) -> list[Any]:
    etags.require_match(request, _etag(_version()))
    return list(config.diff(wanted, prune=prune))


def _applied(request: Request, wanted: Any, *, prune: bool, dry_run: bool) -> list[Any]:
    with writing():
        etags.require_match(request, _etag(_version()))
        return list(config.apply(wanted, prune=prune, **audit.by(request, "api")))


def _switches(request: Request) -> dict[str, bool]:
    wrong = {}
    for name, value in request.query_params.items():
        if name not in _SWITCHES:
            wrong[name] = [unknown(name, _SWITCHES)]
        elif value not in ("true", "false"):
            wrong[name] = ["is true or false"]
    if wrong:
        raise ValidationError(wrong)
    return {name: request.query_params.get(name) == "true" for name in _SWITCHES}


def _version() -> int:
    return Configuration.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def _etag(version: int) -> str:
    return f'"v{version}"'
