"""The schema of our REST APIs (OpenAPI): who may call what, and the problems that each call can answer with."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.openapi import AutoSchema as PlainSchema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView

from . import problems, roles

ROOT = "/api/v1/"
DESCRIBED = tuple(f"{ROOT}{app}/" for app in ("gateway", "queue", "cache", "database"))

_VERBS = {"GET": "Read", "POST": "Make", "PUT": "Make or replace", "PATCH": "Change", "DELETE": "Delete"}


class FieldErrorSerializer(serializers.Serializer):
    pointer = serializers.CharField(
        allow_blank=True,
        help_text="A JSON Pointer (RFC 6901) into the body, or the parameter; empty: all of it.",
    )
    detail = serializers.CharField()
    code = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """RFC 9457"""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(required=False)
    instance = serializers.CharField(required=False)
    request_id = serializers.CharField(required=False)
    errors = FieldErrorSerializer(many=True, required=False)


def described(endpoints: list[tuple[str, str, str, Any]], **_: Any) -> list[tuple[str, str, str, Any]]:
    """A preprocessing hook of drf-spectacular: the endpoints whose answers are described."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith(DESCRIBED)]


class AutoSchema(PlainSchema):
    """REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"]"""

    def get_tags(self) -> list[str]:
        return [": ".join(self.path.removeprefix(ROOT).split("/")[:2])]

    def get_summary(self) -> str | None:
        told: str | None = super().get_summary()
        queryset = getattr(self.view, "queryset", None)
        if told or queryset is None:
            return told
        names = queryset.model._meta
        if self._is_list_view():
            return f"List {names.verbose_name_plural}"
        return f"{_VERBS[self.method]} one {names.verbose_name}"

    def get_description(self) -> str:
        role = self._role()
        told = (super().get_description(), role and f"Needs the role {role}.")
        return "\n\n".join(part for part in told if part)

    def get_operation_id(self) -> str:
        found: str = super().get_operation_id()
        is_action = self.method == "POST" and not isinstance(self.view, GenericAPIView)
        return found.removesuffix("_create") if is_action else found

    def _is_list_view(self, serializer: Any = None) -> bool:
        # Ours are lists without being DRF's ListModelMixin.
        is_ours = self.method == "GET" and hasattr(self.view, "filters")
        return is_ours or bool(super()._is_list_view(serializer))

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        answers: dict[str, Any] = super()._get_response_bodies(direction)
        problem = self.resolve_serializer(ProblemSerializer, "response").ref
        for status in self._problems():
            body = {
                "description": HTTPStatus(status).phrase,
                "content": {problems.CONTENT_TYPE: {"schema": problem}},
            }
            answers.setdefault(str(status), body)
        if self.method == "PUT" and "200" in answers:  # it makes what is not there
            answers["201"] = answers["200"]
        return dict(sorted(answers.items()))

    def _problems(self) -> list[int]:
        """What any such call can answer. What needs no role, signing in, is limited instead."""
        is_write = self.method not in ("GET", "HEAD")
        is_guarded = bool(self.view.permission_classes)
        has_etags = self.path.startswith(f"{ROOT}gateway/")
        is_asked = any(one["in"] == "query" for one in self._get_parameters())
        return [
            *([400] if is_write or is_asked else []),
            401,
            403 if is_guarded else 429,
            *([404] if "{" in self.path else []),
            *([409] if is_write and is_guarded else []),
            *([412] if self.method in ("PUT", "PATCH", "DELETE") and has_etags else []),
            *([415] if is_write and self.get_request_serializer() is not None else []),
        ]

    def _role(self) -> str:
        return roles.required(self.method, self.view) if self.view.permission_classes else ""
