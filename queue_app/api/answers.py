"""What the queue's API answers alike: conflicts, unknown fields, pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rest_framework.pagination import CursorPagination

from foundation.api import Conflict


@contextmanager
def conflict_if(*errors: type[Exception]) -> Iterator[None]:
    """These errors are the client's to read, as 409."""
    try:
        yield
    except errors as error:
        raise Conflict(str(error)) from error


class NewestFirst(CursorPagination):
    ordering = "-id"  # uuid7: by time
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
