"""What the queue's API answers alike: conflicts, unknown fields, pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.pagination import CursorPagination


class Conflict(APIException):
    status_code = 409
    default_code = "conflict"


@contextmanager
def conflict_if(*errors: type[Exception]) -> Iterator[None]:
    """These errors are the client's to read, as 409."""
    try:
        yield
    except errors as error:
        raise Conflict(str(error)) from error


class Strict(serializers.BaseSerializer[Any]):
    """Refuses fields that it does not have: a misspelt one must not pass for one that is set."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = set(data) - set(self.fields) if isinstance(data, Mapping) else ()
        if unknown:
            raise ValidationError({name: ["is not known here"] for name in sorted(unknown)})
        return super().to_internal_value(data)


class NewestFirst(CursorPagination):
    ordering = "-id"  # uuid7: by time
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
