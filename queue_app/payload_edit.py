"""An edited payload: what was shown as dots is what it was, and what changed is told without secrets.

stored → open → plain … shown with dots → edited → restored → accepted; plain and restored → changes
"""

from __future__ import annotations

from typing import Any

from .payloads import BadPayload
from .secret_fields import MASK

_ABSENT = object()


def restored(edited: Any, shown: Any, plain: Any, at: str = "payload") -> Any:
    """`edited` with the secrets of `plain` where it has dots as `shown` has. Raises BadPayload.

    In a list, dots come back only in an element that is as it was: one that was moved would get its neighbour's secret.
    """
    if edited == MASK:
        if shown != MASK:
            raise BadPayload(f"{at} is dots: give the value itself")
        return plain
    if isinstance(edited, dict):
        return {
            key: restored(value, _under(shown, key), _under(plain, key), f"{at}.{key}")
            for key, value in edited.items()
        }
    if isinstance(edited, list):
        return [_element(edited, shown, plain, number, at) for number in range(len(edited))]
    return edited


def changes(
    before: Any, after: Any, shown_before: Any, shown_after: Any, at: str = ""
) -> dict[str, dict[str, Any]]:
    """{dotted path: {"before": …, "after": …}}; a side that is not there is left out. before, after: with secrets."""
    if before == after and type(before) is type(after):
        return {}
    if isinstance(before, dict) and isinstance(after, dict) and MASK not in (shown_before, shown_after):
        found: dict[str, dict[str, Any]] = {}
        for key in [*before, *(key for key in after if key not in before)]:
            found |= changes(
                _under(before, key),
                _under(after, key),
                _under(shown_before, key),
                _under(shown_after, key),
                at=f"{at}.{key}" if at else key,
            )
        return found
    told = {"before": shown_before, "after": shown_after}
    return {at: {side: value for side, value in told.items() if value is not _ABSENT}}


def _element(edited: list[Any], shown: Any, plain: Any, number: int, at: str) -> Any:
    value = edited[number]
    if not _has_mask(value):
        return value
    is_there = isinstance(shown, list) and isinstance(plain, list) and number < min(len(shown), len(plain))
    if not is_there or shown[number] != value:
        raise BadPayload(f"{at}.{number} is not as it was and has dots in it: give the values themselves")
    return plain[number]


def _has_mask(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_mask, value.values()))
    return any(map(_has_mask, value)) if isinstance(value, list) else bool(value == MASK)


def _under(value: Any, key: str) -> Any:
    return value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
