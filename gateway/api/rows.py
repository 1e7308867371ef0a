"""Lists of rows and single rows, as all nouns of the configuration have them: read, written through changes.py.

Who may do what: viewers read, operators change the fields of `operable`, which can be changed back at once, and admins
do the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from django.db import models
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from foundation import audit, roles
from foundation.api import Strict
from gateway import changes, entries, lookups
from gateway.models import Configuration
from orm_app import db

from . import etags, references
from .answers import Choice, told
from .lists import Filter, Filters, Pages
from .schema import ETAG, IF_MATCH, IF_NONE_MATCH


class RowSerializer(Strict, serializers.ModelSerializer):
    """Meta.restless: fields that change without anybody's doing. Meta.kept: what a PUT leaves as it is when left out."""

    serializer_choice_field = Choice

    def create(self, validated_data: dict[str, Any]) -> models.Model:
        return self.written(self.Meta.model(), validated_data)

    def update(self, instance: models.Model, validated_data: dict[str, Any]) -> models.Model:
        if not self.partial:
            validated_data = self._defaults() | validated_data
        return self.written(instance, validated_data)

    def written(self, row: models.Model, values: dict[str, Any]) -> models.Model:
        for name, value in values.items():
            setattr(row, name, value)
        changes.save(row, **audit.by(self.context["request"], "api"))
        return row

    def etag(self) -> str:
        return etags.of(self.data, apart_from=getattr(self.Meta, "restless", ()))

    def _defaults(self) -> dict[str, Any]:
        """What a PUT that leaves a field out gives it."""
        kept = getattr(self.Meta, "kept", ())
        written = [name for name, field in self.fields.items() if not field.read_only and name not in kept]
        return {name: self.Meta.model._meta.get_field(name).get_default() for name in written}


class RowList(generics.GenericAPIView):
    filters: ClassVar[Mapping[str, Filter]] = {}
    orderings: ClassVar[tuple[str, ...]] = ("name",)
    filter_backends = (Filters,)
    pagination_class = Pages
    required_role = {"POST": roles.ADMIN}

    def get(self, request: Request, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        answer: Response = self.get_paginated_response(self.get_serializer(page, many=True).data)
        return answer

    @extend_schema(parameters=[ETAG])
    def post(self, request: Request, **kwargs: Any) -> Response:
        given = self.given(request)
        serializer = self.get_serializer(data=given)
        with writing(given):
            serializer.is_valid(raise_exception=True)
            row = serializer.save()
        return created(request, row, self.get_serializer(reread(row)))

    def given(self, request: Request) -> Any:
        """The body, with what the address says."""
        return request.data


class RowDetail(generics.GenericAPIView):
    operable: ClassVar[frozenset[str]] = frozenset()
    lookup_field = lookup_url_kwarg = "ref"

    @property
    def required_role(self) -> dict[str, str]:
        patch = roles.OPERATOR if self.operable else roles.ADMIN
        return {"PUT": roles.ADMIN, "PATCH": patch, "DELETE": roles.ADMIN}

    @extend_schema(parameters=[ETAG])
    def get(self, request: Request, ref: str | int) -> Response:
        serializer = self.get_serializer(references.find(self.get_queryset(), ref))
        if etags.is_known(request, serializer.etag()):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers={"ETag": serializer.etag()})
        return tagged(serializer)

    @extend_schema(parameters=[IF_MATCH, ETAG])
    def patch(self, request: Request, ref: str | int) -> Response:
        self._refuse_beyond_role(request)
        with writing(request.data):
            row = references.find(self.get_queryset(), ref)
            etags.require_match(request, self.get_serializer(row).etag())
            serializer = self.get_serializer(row, data=request.data, partial=True)
            serializer.is_valid(raise_exception=True)
            serializer.save()
        return tagged(self.get_serializer(reread(row)))

    @extend_schema(parameters=[IF_MATCH])
    def delete(self, request: Request, ref: str | int) -> Response:
        with writing():
            row = references.find(self.get_queryset(), ref)
            etags.require_match(request, self.get_serializer(row).etag())
            changes.delete(row, **audit.by(request, "api"))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def get_object(self) -> Any:
        """For DRF's answer to OPTIONS."""
        return references.find(self.get_queryset(), self.kwargs["ref"])

    def _refuse_beyond_role(self, request: Request) -> None:
        if roles.allows(request.user, roles.ADMIN):
            return
        given = request.data if isinstance(request.data, Mapping) else {}
        beyond = sorted(set(given) - self.operable)
        if beyond:
            raise PermissionDenied(f"The role admin is needed to change {', '.join(map(str, beyond))}.")


class NamedDetail(RowDetail):
    """Rows that a client can name, and so put: `PUT plans/gold` makes it or replaces the whole of it."""

    @extend_schema(parameters=[IF_MATCH, IF_NONE_MATCH, ETAG])
    def put(self, request: Request, ref: str) -> Response:
        given = self._named(request.data, ref)
        with writing(given):
            row = self._stored(ref)
            etags.require_match(request, None if row is None else self.get_serializer(row).etag())
            serializer = self.get_serializer(row, data=given)
            serializer.is_valid(raise_exception=True)
            stored = serializer.save()
        shown = self.get_serializer(reread(stored))
        return created(request, stored, shown) if row is None else tagged(shown)

    def _stored(self, ref: str) -> Any:
        if references.is_id(ref):
            return references.find(self.get_queryset(), ref)
        return references.named(self.get_queryset(), ref)

    @staticmethod
    def _named(given: Any, ref: str) -> Any:
        if references.is_id(ref) or not isinstance(given, Mapping):
            return given
        if given.get("name", ref) != ref:
            raise ValidationError({"name": [f"is {ref!r} in the address; PATCH changes a name"]})
        return {**given, "name": ref}


@contextmanager
def writing(given: Any = None) -> Iterator[None]:
    """A transaction that holds the row which every change takes, so that nothing comes between a look and a write.
    given: the body, whose names are looked up before that."""
    if isinstance(given, Mapping):
        lookups.ahead(url for url in entries.urls([given]) if isinstance(url, str))
    with told(), db.transaction():
        Configuration.objects.get_or_create(pk=1)
        Configuration.objects.select_for_update().get(pk=1)
        yield


def tagged(serializer: Any, **options: Any) -> Response:
    return Response(serializer.data, headers={"ETag": serializer.etag()}, **options)


def created(request: Request, row: models.Model, serializer: Any) -> Response:
    answer = tagged(serializer, status=status.HTTP_201_CREATED)
    # By id, for a name may hold slashes; below the list's address, whatever list it was made through.
    answer["Location"] = request.build_absolute_uri(location(row))
    return answer


def location(row: models.Model) -> str:
    return reverse(f"gateway-{row._meta.model_name}", args=[row.pk])


def reread(row: Any) -> Any:
    """As the database has it, so that its ETag is the one of the next GET."""
    return type(row)._default_manager.get(pk=row.pk)
