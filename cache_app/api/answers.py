"""What the cache's API answers alike: failures of the store, names that are unknown, fields that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.request import Request

from cache_app import operations
from foundation import audit

ALIAS = OpenApiParameter("alias", str, description='Of CACHES; usually "default".')
VERSION = OpenApiParameter("version", str, description="Of the keys; usually the alias' own.")


class StoreUnavailable(APIException):
    status_code = 503
    default_code = "store_unavailable"


@contextmanager
def told() -> Iterator[None]:
    """What a store or a name fails with, as a problem."""
    try:
        with operations.asking():
            yield
    except operations.CacheUnavailable as error:
        raise StoreUnavailable(f"The cache does not answer: {error}") from error
    except operations.UnknownAlias as error:
        raise NotFound(f"{error}.") from error


def asked(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of the address. One that is not known is refused: it would show more than was asked for."""
    wrong = {name: [unknown(name, known)] for name in request.query_params if name not in known}
    if wrong:
        raise ValidationError(wrong)
    return {name: str(request.query_params.get(name, "")) for name in known}


def unknown(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not among the known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"is not known here; did you mean {close[0]}?" if close else "is not known here"


def number(name: str, text: str, *, usual: int, most: int) -> int:
    if not text:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and 1 <= int(text) <= most):
        raise ValidationError({name: [f"is a whole number from 1 to {most}"]})
    return int(text)


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
