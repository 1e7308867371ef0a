"""What the queue's API answers alike: conflicts, unknown fields, pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from foundation.api import Conflict, unknown
from queue_app.selection import FIELDS, SEVERAL
from queue_app.states import State

LONGEST_PAGE = 500
_TIME = "A span before now (15m, 6h, 30d), or a time as of ISO 8601"
_TOLD = {
    "state": f"One of {', '.join([*State, *SEVERAL])}.",
    "worker": "Whose last run was there: an id, a host or HOST:PID.",
    "arguments": "Paths into the payload with their values: `to=a@example.com user.id=42`.",
    "fingerprint": "Dead letters of this failure.",
    "request_id": "Of this request.",
    "workflow": "Of this workflow, by its id.",
    "parent": "Enqueued by this job, by its id.",
    "since": f"Enqueued since. {_TIME}.",
    "until": f"Enqueued before. {_TIME}.",
    "died_since": f"A dead letter since. {_TIME}.",
    "died_until": f"A dead letter that became one before. {_TIME}.",
}
SELECTION = {name: _TOLD.get(name, f"Of this {name}, exactly.") for name in FIELDS}


@contextmanager
def conflict_if(*errors: type[Exception]) -> Iterator[None]:
    """These errors are the client's to read, as 409."""
    try:
        yield
    except errors as error:
        raise Conflict(str(error)) from error


def parameters(filters: Mapping[str, str]) -> list[OpenApiParameter]:
    """Those of an address that is no list, for its schema. filters: name → what it means."""
    return [OpenApiParameter(name, str, description=told) for name, told in filters.items()]


class Pages(CursorPagination):
    """Refuses a parameter that is none of the view's `filters` (name → what it means): it would show more than was asked for."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = LONGEST_PAGE
    cursor_query_description = "Of another page: as in `next` and `previous`."
    page_size_query_description = f"Rows of a page, at most {LONGEST_PAGE}."

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> Any:
        known = (*getattr(view, "filters", ()), self.cursor_query_param, self.page_size_query_param)
        wrong = {name: [unknown(name, known)] for name in request.query_params if name not in known}
        size = request.query_params.get(self.page_size_query_param, "1")
        if not (size.isascii() and size.isdecimal() and int(size[:9]) > 0):
            wrong["page_size"] = ["is not a number of rows"]
        if wrong:
            raise ValidationError(wrong)
        return super().paginate_queryset(queryset, request, view)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        filters = getattr(view, "filters", {})
        return [
            *(
                {
                    "name": name,
                    "in": "query",
                    "required": False,
                    "description": told,
                    "schema": {"type": "string"},
                }
                for name, told in filters.items()
            ),
            *super().get_schema_operation_parameters(view),
        ]


class NewestFirst(Pages):
    ordering = "-id"  # uuid7: by time
