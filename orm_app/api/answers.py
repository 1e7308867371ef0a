"""What the database API answers alike: a database that is away, names that are unknown, who acts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from django.db import connections
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.request import Request

from foundation import audit
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


def asked(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of the address. One that is not known is refused: it would show more than was asked for."""
    wrong = {name: [unknown(name, known)] for name in request.query_params if name not in known}
    if wrong:
        raise ValidationError(wrong)
    return {name: str(request.query_params.get(name, "")) for name in known}


def chosen(name: str, text: str, choices: Collection[str], usual: str) -> str:
    if text and text not in choices:
        raise ValidationError({name: [f"is one of {', '.join(choices)}"]})
    return text or usual


def unknown(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not among the known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"is not known here; did you mean {close[0]}?" if close else "is not known here"


def by(request: Request) -> dict[str, Any]:
    """Who acts, for the audit log."""
    return audit.by(request, "api")


class Strict(serializers.BaseSerializer):
    """Refuses fields that it does not have: a misspelt one must not pass for one that is set."""

    def to_internal_value(self, data: Any) -> Any:
        strange = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if strange:
            raise ValidationError({str(name): [unknown(str(name), list(self.fields))] for name in strange})
        return super().to_internal_value(data)
