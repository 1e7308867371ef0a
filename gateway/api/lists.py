"""Lists: filters, ordering and pages by cursor. A parameter that a list does not know is refused: it would show more
than was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError as Invalid
from django.db.models import Q, QuerySet
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from foundation.api import unknown

LONGEST_PAGE = 500
_PAGING = ("cursor", "page_size", "ordering")


@dataclass(frozen=True, slots=True)
class Filter:
    """condition: of the rows that have the value; raises ValueError with what the value should be."""

    condition: Callable[[str], Q]
    description: str
    schema: Mapping[str, Any]


def text(lookup: str, description: str) -> Filter:
    return Filter(lambda value: Q(**{lookup: value}), description, {"type": "string"})


def flag(lookup: str, description: str) -> Filter:
    def condition(value: str) -> Q:
        if value not in ("true", "false"):
            raise ValueError("is true or false")
        return Q(**{lookup: value == "true"})

    return Filter(condition, description, {"type": "boolean"})


def choice(choices: Sequence[str], condition: Callable[[str], Q], description: str) -> Filter:
    def checked(value: str) -> Q:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return condition(value)

    return Filter(checked, description, {"type": "string", "enum": list(choices)})


def holding(field: str, description: str) -> Filter:
    """Rows whose JSON list in `field` has the value."""
    # As text, for SQLite cannot look into JSON lists; quotes included, so that no part of a word is found.
    return Filter(
        lambda value: Q(**{f"{field}__icontains": json.dumps(value)}), description, {"type": "string"}
    )


NAMED = {"name": text("name", "The whole name."), "search": text("name__icontains", "A part of the name.")}


class Filters(BaseFilterBackend):
    """By the view's `filters`, in an order of its `orderings`, of which the first is the usual one.

    orderings: fields in which few rows are equal, for a cursor counts equal ones one by one, up to 1,000.
    """

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        wrong = {}
        for name, value in request.query_params.items():
            try:
                if name in view.filters:
                    queryset = queryset.filter(view.filters[name].condition(_printable(value)))
                else:
                    _check_paging(name, value, (*view.filters, *_PAGING))
            except ValueError as error:
                wrong[name] = [str(error)]
        if wrong:
            raise ValidationError(wrong)
        return queryset

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        """What CursorPagination asks for."""
        asked = request.query_params.get("ordering", view.orderings[0])
        known = _orderings(view)
        if asked not in known:
            raise ValidationError({"ordering": [f"is not one of {', '.join(known)}"]})
        return (asked, "-pk" if asked.startswith("-") else "pk")

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        usual = f"Usually {view.orderings[0]}."
        ordering = Filter(Q, usual, {"type": "string", "enum": _orderings(view)})
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": one.description,
                "schema": dict(one.schema),
            }
            for name, one in {**view.filters, "ordering": ordering}.items()
        ]


def _orderings(view: Any) -> list[str]:
    fields = dict.fromkeys(field.lstrip("-") for field in view.orderings)
    return [f"{sign}{field}" for field in fields for sign in ("", "-")]


def _printable(value: str) -> str:
    if "\x00" in value:  # PostgreSQL takes none, not even to compare with
        raise ValueError("holds a character that is none")
    return value


def _check_paging(name: str, value: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(unknown(name, known))
    is_size = value.isascii() and value.isdecimal() and len(value) < 5 and 1 <= int(value) <= LONGEST_PAGE
    if name == "page_size" and not is_size:
        raise ValueError(f"is a whole number from 1 to {LONGEST_PAGE}")


class Pages(CursorPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = LONGEST_PAGE
    cursor_query_description = "Of another page: as in `next` and `previous`."
    page_size_query_description = f"Rows of a page, at most {LONGEST_PAGE}."

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> Any:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (
            ValueError,
            OverflowError,
            Invalid,
        ) as error:  # a cursor that somebody made up, or of another ordering
            raise NotFound(self.invalid_cursor_message) from error
