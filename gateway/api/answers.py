"""What the gateway's API answers alike: conflicts, failed preconditions, fields that it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as Invalid
from django.db import IntegrityError
from django.db.models import ProtectedError
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.settings import api_settings

from foundation.api import Conflict

_MOST_NAMED = 5  # rows that the refusal to delete one names
_MOST_COMPARED = 1_000  # names with one that nobody has


class PreconditionFailed(APIException):
    """RFC 9110 section 15.5.13: somebody else's change came first."""

    status_code = 412
    default_code = "precondition_failed"


@contextmanager
def told() -> Iterator[None]:
    """What a write can be refused for is the client's to read."""
    try:
        yield
    except Invalid as error:
        raise _pointed(error) from error
    except ProtectedError as error:
        raise Conflict(_needed_by(error.protected_objects)) from error
    except IntegrityError as error:
        raise Conflict("Another change came first: look at what there is now, and try again.") from error


def _pointed(error: Invalid) -> ValidationError:
    if not hasattr(error, "error_dict"):
        return ValidationError(error.messages)
    fields = dict(error.message_dict)
    if NON_FIELD_ERRORS in fields:
        fields[api_settings.NON_FIELD_ERRORS_KEY] = _in_words(fields.pop(NON_FIELD_ERRORS))
    return ValidationError(fields)


def _in_words(texts: list[str]) -> list[str]:
    # A constraint of the database is named, where no check of ours has said the same in words.
    return [text for text in texts if not text.startswith("Constraint “")] or texts


def _needed_by(rows: Collection[Any]) -> str:
    found = sorted(f"{row._meta.verbose_name} {row}" for row in rows)
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"It is needed by {', '.join(found[:_MOST_NAMED])}{more}."


def moment(at: float) -> str | None:
    """Seconds since the epoch as a date; 0.0 is none."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at else None


class Named(serializers.SlugRelatedField):
    """A row by its name. One that is not there is told as in a document, with the name that was meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(slug_field="name", **options)

    def to_internal_value(self, data: Any) -> Any:
        try:
            if isinstance(data, str) and "\x00" in data:  # PostgreSQL takes none, not even to compare with
                self.fail("invalid")
            return super().to_internal_value(data)
        except ValidationError as error:
            if not isinstance(data, str):
                raise
            rows = self.get_queryset()
            told = f"there is no {rows.model._meta.verbose_name} {data[:200]!r}"
            close = difflib.get_close_matches(data, rows.values_list("name", flat=True)[:_MOST_COMPARED], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValidationError(told + hint, code="does_not_exist") from error


class Choice(serializers.ChoiceField):
    """Says what can be chosen."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except ValidationError as error:
            offered = ", ".join(str(choice) for choice in self.choices if choice != "")
            raise ValidationError(f"is not one of {offered}", code="invalid_choice") from error
