"""What the cache's API answers alike: failures of the store, names that are unknown, fields that it does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import APIException, NotFound, ValidationError

from cache_app import operations

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


def number(name: str, text: str, *, usual: int, most: int) -> int:
    if not text:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and 1 <= int(text) <= most):
        raise ValidationError({name: [f"is a whole number from 1 to {most}"]})
    return int(text)
