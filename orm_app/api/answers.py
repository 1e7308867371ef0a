"""What the database API answers alike: a database that is away, names that are unknown, who acts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from django.db import connections
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import APIException, NotFound, ValidationError

from orm_app import asking

T = TypeVar("T")
ALIAS = OpenApiParameter("alias", str, description='Of DATABASES; without it "default".')


class DatabaseUnavailable(APIException):
    status_code = 503
    default_code = "database_unavailable"


def told(alias: str, what: str, ask: Callable[[], T], patience_s: float | None = None) -> T:
    """The database's answer; DatabaseUnavailable without one."""
    return value(alias, asking.of(alias, what, ask, patience_s))


def value(alias: str, answer: asking.Answer[T]) -> T:
    if answer.error:
        raise DatabaseUnavailable(f"{alias} does not answer: {answer.error}")
    return answer.value  # type: ignore[return-value]


def alias_of(name: str) -> str:
    found = name or "default"
    if found not in connections:
        raise NotFound(f"DATABASES has no alias {found!r}.")
    return found


def chosen(name: str, text: str, choices: Collection[str], usual: str) -> str:
    if text and text not in choices:
        raise ValidationError({name: [f"is one of {', '.join(choices)}"]})
    return text or usual
