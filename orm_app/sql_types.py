"""The usual SQL types → Django's fields, and SQL's defaults → Python's."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from . import mongo
from .columns import near_text

_FIELDS: dict[str, type[models.Field]] = {
    "SMALLSERIAL": models.SmallAutoField,
    "SERIAL": models.AutoField,
    "BIGSERIAL": models.BigAutoField,
    "TINYINT": models.SmallIntegerField,
    "SMALLINT": models.SmallIntegerField,
    "INT2": models.SmallIntegerField,
    "INTEGER": models.IntegerField,
    "INT": models.IntegerField,
    "INT4": models.IntegerField,
    "BIGINT": models.BigIntegerField,
    "INT8": models.BigIntegerField,
    "SMALLINT UNSIGNED": models.PositiveSmallIntegerField,
    "INTEGER UNSIGNED": models.PositiveIntegerField,
    "INT UNSIGNED": models.PositiveIntegerField,
    "BIGINT UNSIGNED": models.PositiveBigIntegerField,
    "VARCHAR": models.CharField,
    "CHARACTER VARYING": models.CharField,
    "CHAR": models.CharField,
    "TEXT": models.TextField,
    "LONGTEXT": models.TextField,
    "BOOLEAN": models.BooleanField,
    "BOOL": models.BooleanField,
    "TIMESTAMP": models.DateTimeField,
    "TIMESTAMPTZ": models.DateTimeField,
    "TIMESTAMP WITH TIME ZONE": models.DateTimeField,
    "DATETIME": models.DateTimeField,
    "DATE": models.DateField,
    "TIME": models.TimeField,
    "INTERVAL": models.DurationField,
    "DECIMAL": models.DecimalField,
    "NUMERIC": models.DecimalField,
    "REAL": models.FloatField,
    "FLOAT": models.FloatField,
    "DOUBLE": models.FloatField,
    "DOUBLE PRECISION": models.FloatField,
    "UUID": models.UUIDField,
    "JSON": models.JSONField,
    "JSONB": models.JSONField,
    "BLOB": models.BinaryField,
    "BYTEA": models.BinaryField,
    "INET": models.GenericIPAddressField,
}
OBJECTID = "OBJECTID"  # MongoDB's key; its fields come with an optional package
_WITH_LENGTH = {"VARCHAR", "CHARACTER VARYING", "CHAR"}
_DECIMAL_DIGITS, _DECIMAL_PLACES = 38, 10  # of NUMERIC without a size, where SQL would store any
# What MySQL gives no DEFAULT in the table; there the default is Python's alone.
_WITHOUT_DATABASE_DEFAULT = (models.TextField, models.JSONField, models.BinaryField)
_TYPE = re.compile(r"([A-Z][A-Z0-9 ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")

_FUNCTIONS: dict[type[models.Field], dict[str, Callable[[], Any]]] = {
    models.DateTimeField: dict.fromkeys(("CURRENT_TIMESTAMP", "NOW()", "LOCALTIMESTAMP"), timezone.now),
    models.DateField: dict.fromkeys(("CURRENT_DATE", "CURRENT_TIMESTAMP"), timezone.localdate),
    models.UUIDField: dict.fromkeys(("GEN_RANDOM_UUID()", "UUID()", "UUID_GENERATE_V4()"), uuid.uuid4),
}


def field_class(sql_type: str, *, is_primary: bool = False) -> tuple[type[models.Field], dict[str, Any]]:
    """The Django field of a type, and the options that its size gives. Raises ValueError with the near types."""
    text = " ".join(sql_type.upper().split())
    if text == OBJECTID:
        return mongo.key_field(is_primary=is_primary), {}
    match = _TYPE.fullmatch(text)
    if match is None or match[1] not in _FIELDS:
        word = match[1] if match else sql_type.upper()
        raise ValueError(f"unknown type {sql_type!r}: {near_text(word, [*_FIELDS, OBJECTID])}")
    name, first, second = match.groups()
    if (name, first) == ("TINYINT", "1"):  # MySQL's boolean
        return models.BooleanField, {}
    found = _FIELDS[name]
    if name in _WITH_LENGTH:
        if first is None and name != "CHAR":
            raise ValueError(f"{name} needs a length: {name}(100), or TEXT for any")
        return found, {"max_length": int(first or 1)}
    if found is models.DecimalField:
        return found, _digits(sql_type, first, second)
    if second is not None or (
        first is not None and found not in (models.FloatField, models.DateTimeField, models.TimeField)
    ):
        raise ValueError(f"{sql_type!r}: {name} has no size")
    return found, {}


def _digits(sql_type: str, digits: str | None, places: str | None) -> dict[str, int]:
    if digits is None:
        return {"max_digits": _DECIMAL_DIGITS, "decimal_places": _DECIMAL_PLACES}
    found = {"max_digits": int(digits), "decimal_places": int(places or 0)}
    if found["decimal_places"] > found["max_digits"]:
        raise ValueError(f"{sql_type!r}: more decimal places than digits")
    return found


def _value(found: type[models.Field], text: str, functions: Mapping[str, Any]) -> Any:
    """A default in SQL's words as a new instance has it: TRUE is True and not a text that is true of everything."""
    if issubclass(found, models.CharField | models.TextField | models.BinaryField):
        return text
    if text.upper() == "NULL":
        return None
    if issubclass(found, models.BooleanField) and text.upper() in ("TRUE", "FALSE"):
        return text.upper() == "TRUE"
    if issubclass(found, models.JSONField):
        return {"{}": {}, "[]": []}.get(text.strip(), text)
    try:
        value = found().to_python(text)
    except (ValidationError, ValueError, ArithmeticError):
        known = near_text(text.upper(), functions) if functions else f"it is no {found.__name__}"
        raise ValueError(f"unknown default {text!r}: {known}") from None
    is_naive = isinstance(value, datetime) and settings.USE_TZ and timezone.is_naive(value)
    return timezone.make_aware(value) if is_naive else value


def default_options(found: type[models.Field], default: Any) -> dict[str, Any]:
    """Django's default, which a new instance has at once, and where it can be the table's own too (`db_default`)."""
    if isinstance(default, str):
        functions = next((names for kind, names in _FUNCTIONS.items() if issubclass(found, kind)), {})
        function = functions.get(default.upper())
        if function is not None:
            return {"default": function} | ({"db_default": Now()} if function is timezone.now else {})
        default = _value(found, default, functions)
    if default in ([], {}) and isinstance(default, list | dict):
        return {"default": type(default)}  # a new one for each row
    if isinstance(default, list | dict | set):
        raise ValueError(
            "a default that can be changed would be shared by all rows: give a function that makes it"
        )
    if callable(default) or default is None or issubclass(found, _WITHOUT_DATABASE_DEFAULT):
        return {"default": default}
    return {"default": default, "db_default": default}
