"""What every API of ours answers alike: conflicts, names that are unknown, fields that it does not have, who acts."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request

from . import audit


class Conflict(APIException):
    status_code = 409
    default_code = "conflict"


class JsonParser(JSONParser):
    """DRF's, to which a body of thousands of brackets is the server's mistake."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(*args, **kwargs)
        except RecursionError as error:
            raise ParseError("JSON parse error - nested too deep") from error


class Strict(serializers.BaseSerializer):
    """Refuses fields that it does not have: a misspelt one must not pass for one that is set."""

    def to_internal_value(self, data: Any) -> Any:
        strange = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if strange:
            raise ValidationError({str(name): [unknown(str(name), list(self.fields))] for name in strange})
        return super().to_internal_value(data)


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


def by(request: Request) -> dict[str, Any]:
    """Who acts, for the audit log."""
    return audit.by(request, "api")
