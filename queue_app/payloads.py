"""What may travel in a job: a JSON object (or any JSON value as a result) up to a number of bytes."""

from __future__ import annotations

import json
from typing import Any


class BadPayload(ValueError):
    """The payload cannot be stored. The message says what is wrong with it, never what is in it."""


def accept(payload: object, *, max_bytes: int) -> dict[str, Any]:
    """`payload` as the JSON object that the handler will see. Raises BadPayload."""
    if not isinstance(payload, dict):
        raise BadPayload(f"a payload is a dict, not a {type(payload).__name__}")
    accepted: dict[str, Any] = plain_json(payload, max_bytes=max_bytes)
    return accepted


def plain_json(value: object, *, max_bytes: int) -> Any:
    """`value` as plain JSON types, after a round trip through its text. Raises BadPayload."""
    return json.loads(text(value, max_bytes=max_bytes))


def text(value: object, *, max_bytes: int) -> str:
    """`value` as JSON text. Raises BadPayload."""
    _check_keys(value, set())
    try:
        found = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:  # an object that is not JSON; NaN or a cycle
        raise BadPayload(f"not JSON: {error}") from error
    size_bytes = len(found)  # ASCII: json.dumps escapes the rest
    if size_bytes > max_bytes:
        raise BadPayload(f"{size_bytes:,} bytes of JSON, at most {max_bytes:,} are allowed")
    if r"\u0000" in found:
        raise BadPayload("a string holds a NUL character, which PostgreSQL does not store")
    return found


def _check_keys(value: object, above: set[int]) -> None:
    # json.dumps would turn the keys 1 and True into "1" and "true": the handler would not find them again.
    if not isinstance(value, dict | list | tuple) or id(value) in above:  # a cycle: json.dumps reports it
        return
    above = above | {id(value)}
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, str):
            raise BadPayload(f"a key is a {type(key).__name__}: JSON has text keys only")
    for part in value.values() if isinstance(value, dict) else value:
        _check_keys(part, above)
