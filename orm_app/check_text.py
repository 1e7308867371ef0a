"""A column's CHECK in SQL's words → Django's Q: `"age >= 18 AND age < 150"`, `"kind IN ('a', 'b')"`, `BETWEEN`."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from functools import reduce
from typing import Any

from django.db.models import F, Q

_VALUE = r"(?:-?\d+(?:\.\d+)?|'(?:[^']|'')*'|[A-Za-z_]\w*)"
_ONE = re.compile(
    rf"""
    \s* (?P<name>[A-Za-z_]\w*) \s*
    (?: (?P<operator><=|>=|<>|!=|=|<|>) \s* (?P<value>{_VALUE})
      | (?P<not>NOT\s+)? IN \s* \( \s* (?P<list>{_VALUE}(?:\s*,\s*{_VALUE})*) \s* \)
      | BETWEEN \s+ (?P<low>{_VALUE}) \s+ AND \s+ (?P<high>{_VALUE})
      | IS \s+ (?P<isnot>NOT\s+)? NULL
    ) \s*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_JOIN = re.compile(r"(AND|OR)\b", re.IGNORECASE)
_LOOKUPS = {"=": "exact", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "<>": "exact", "!=": "exact"}


def parse(text: str) -> Q:
    """Raises ValueError for what is more than comparisons joined by AND, or by OR."""
    place, parts, joins = 0, [], set()
    while True:
        match = _ONE.match(text, place)
        if match is None:
            raise _unreadable(text)
        parts.append(_condition(match))
        place = match.end()
        if place == len(text):
            break
        join = _JOIN.match(text, place)
        if join is None:
            raise _unreadable(text)
        joins.add(join[1].upper())
        place = join.end()
    if len(joins) > 1:
        raise _unreadable(text)
    return reduce(operator.or_ if joins == {"OR"} else operator.and_, parts)


def _condition(match: re.Match[str]) -> Q:
    name = match["name"]
    if match["operator"]:
        found = Q((f"{name}__{_LOOKUPS[match['operator']]}", _value(match["value"])))
        return ~found if match["operator"] in ("<>", "!=") else found
    if match["list"]:
        found = Q((f"{name}__in", [_value(one) for one in re.findall(_VALUE, match["list"])]))
        return ~found if match["not"] else found
    if match["low"]:
        return Q((f"{name}__range", (_value(match["low"]), _value(match["high"]))))
    return Q((f"{name}__isnull", not match["isnot"]))


def _value(text: str) -> Any:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text.lstrip("-")[0].isdigit():
        return Decimal(text) if "." in text else int(text)
    return {"TRUE": True, "FALSE": False}.get(text.upper(), F(text))


def _unreadable(text: str) -> ValueError:
    return ValueError(f"cannot read the check {text!r}: comparisons joined by AND or by OR, or give a Q")
