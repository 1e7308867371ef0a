"""Fields of a payload that only the handler reads: sealed where they are stored, dots where people look.

    enqueue → seal → row … claim → open → handler          row → mask → admin, API

A field is a dotted path; where it meets a list it goes into each element. A sealed value, whatever its JSON type was, is
an object with one key. It is opened only on the paths that the task declares, and everything on those paths is sealed
at enqueue: a caller cannot smuggle in what another job has sealed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

_KEY = "$sealed"
MASK = "••••••"


def seal(payload: dict[str, Any], paths: Iterable[str], close: Callable[[str], str]) -> dict[str, Any]:
    """A copy with the fields on `paths` sealed by `close`, text → text; a path that leads nowhere is none."""
    return _changed(payload, paths, lambda value: {_KEY: close(_text(value))})


def unseal(payload: dict[str, Any], paths: Iterable[str], open_: Callable[[str], str]) -> dict[str, Any]:
    """A copy with the fields on `paths` as they were. One that was stored before it was declared is left as it is."""
    return _changed(
        payload, paths, lambda value: json.loads(open_(value[_KEY])) if _is_sealed(value) else value
    )


def mask(value: Any) -> Any:
    """`value` with dots for whatever is sealed in it. Needs no task: it may be unknown here."""
    if _is_sealed(value):
        return MASK
    if isinstance(value, dict):
        return {key: mask(part) for key, part in value.items()}
    return [mask(part) for part in value] if isinstance(value, list) else value


def _changed(payload: dict[str, Any], paths: Iterable[str], act: Callable[[Any], Any]) -> dict[str, Any]:
    found: Any = payload
    for path in paths:
        found = _at(found, path.split("."), act)
    result: dict[str, Any] = found
    return result


def _at(value: Any, path: list[str], act: Callable[[Any], Any]) -> Any:
    if not path:
        return act(value)
    if isinstance(value, list | tuple):
        return [_at(part, path, act) for part in value]
    name, *rest = path
    if isinstance(value, dict) and name in value:
        return {**value, name: _at(value[name], rest, act)}
    return value


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_KEY), str)


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
