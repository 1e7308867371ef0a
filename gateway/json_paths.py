"""Places in a JSON document: `a.b` is a member of a member, `items[].name` a member of every element.

A dot or a bracket that belongs to a name is written with a backslash: `a\\.b`.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 20
ABSENT: Any = object()

_STEP = re.compile(r"(?P<each>\[\])|(?P<dot>\.)|(?P<name>(?:[^.\[\]\\]|\\[.\[\]\\])+)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Keys = tuple[str | None, ...]  # None: every element of a list


def parse(text: str) -> Keys:
    """Raises ValueError with what is wrong."""
    keys: list[str | None] = []
    at, names_follow = 0, True
    while at < len(text):
        step = _STEP.match(text, at)
        if (
            step is None
            or (step["dot"] and (names_follow or not keys))
            or (step["name"] and not names_follow)
        ):
            raise ValueError(f"{text!r} is not a place in JSON: write a.b or items[].name")
        if step["each"]:
            if names_follow and keys:
                raise ValueError(f"{text!r}: [] stands right behind a name, as in items[].name")
            keys.append(None)
        elif step["name"]:
            keys.append(_ESCAPED.sub(r"\1", step["name"]))
        names_follow = bool(step["dot"])
        at = step.end()
    if not keys or names_follow or keys[-1] is None:
        raise ValueError(f"{text!r}: a place in JSON ends with a name")
    if len(keys) > MAX_DEPTH:
        raise ValueError(f"{text!r}: at most {MAX_DEPTH} steps")
    return tuple(keys)


def escaped(name: str) -> str:
    """A name as one step of a path."""
    return re.sub(r"([.\[\]\\])", r"\\\1", name)


def find(root: Any, keys: Keys) -> Any:
    """The value at a place without `[]`, or ABSENT."""
    for key in keys:
        if type(root) is not dict:
            return ABSENT
        root = root.get(key, ABSENT)
    return root


def holders(root: Any, keys: Keys, *, create: bool = False) -> list[dict[str, Any]]:
    """The objects that have, or may have, the last key. create: members on the way that are no objects become
    empty ones; elements of lists stay what they are."""
    found = [root]
    for key, after in zip(keys, keys[1:], strict=False):
        below: list[Any] = []
        for value in found:
            if key is None:
                if type(value) is list:
                    below += value
            elif type(value) is dict:
                child = value.get(key, ABSENT)
                if create and after is not None and type(child) is not dict:
                    child = value[key] = {}
                if child is not ABSENT:
                    below.append(child)
        found = below
    return [value for value in found if type(value) is dict]
