"""What may travel in a job: a JSON object (or any JSON value as a result) up to a number of bytes."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 100  # levels; SQLite's JSON ends at 1,000, and Python's own recursion there too

# Its text is written once and goes into the row as it is. Not ASCII alone: an umlaut is two bytes and not six.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escaped backslash before `u0000` is no NUL


class BadPayload(ValueError):
    """The payload cannot be stored. The message says what is wrong with it, never what is in it."""


def accept(payload: object, *, max_bytes: int) -> str:
    """`payload`, a dict, as the JSON text of the object that the handler will see. Raises BadPayload."""
    if not isinstance(payload, dict):
        raise BadPayload(f"a payload is a dict, not a {type(payload).__name__}")
    return text(payload, max_bytes=max_bytes)


def text(value: object, *, max_bytes: int) -> str:
    """`value` as JSON text. Raises BadPayload."""
    _check_keys(value, 1)
    try:
        found = _encode(value)
    except (TypeError, ValueError) as error:  # an object that is not JSON; NaN
        raise BadPayload(f"not JSON: {error}") from error
    check_text(found, max_bytes=max_bytes)
    return found


def parse(text: str) -> dict[str, Any]:
    """A payload from its text."""
    found: dict[str, Any] = json.loads(text)
    return found


def check_text(found: str, *, max_bytes: int) -> None:
    """What no database should be asked to store although it is JSON. Raises BadPayload."""
    try:
        size_bytes = len(found) if found.isascii() else len(found.encode())
    except UnicodeEncodeError as error:
        raise BadPayload("a string holds half of a surrogate pair, which is not text") from error
    if size_bytes > max_bytes:
        raise BadPayload(f"{size_bytes:,} bytes of JSON, at most {max_bytes:,} are allowed")
    if r"\u0000" in found and _NUL.search(found):
        raise BadPayload("a string holds a NUL character, which PostgreSQL does not store")


def _check_keys(value: object, depth: int) -> None:
    # json.dumps would turn the keys 1 and True into "1" and "true": the handler would not find them again.
    if depth > DEEPEST:
        raise BadPayload(f"not JSON: nested more than {DEEPEST} levels deep, or inside itself")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise BadPayload(f"a key is a {type(key).__name__}: JSON has text keys only")
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        if isinstance(part, dict | list | tuple):
            _check_keys(part, depth + 1)
