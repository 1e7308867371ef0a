"""Edits of a JSON body, in this order: remove, rename, replace (where it is present), set (whether or not; objects on
the way are made), add (where it is absent)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import exact_json, json_paths
from .errors import BadBody
from .heads import RequestHead, ResponseHead
from .json_paths import ABSENT, Keys
from .templates import Template

MAX_GROWTH_BYTES = 1 << 20  # what one transformation may add: a short body can hold many elements

Write = Callable[[dict[str, Any], str, Any], None]


@dataclass(frozen=True, slots=True)
class Value:
    """A template, or JSON as it is to stand there."""

    template: Template | None
    literal: bytes = b"null"

    def of(self, body: Any, request: RequestHead, response: ResponseHead | None) -> Any:
        """ABSENT when a placeholder has no value. A template that is one {body.…} and nothing else keeps its type."""
        if self.template is None:
            return exact_json.loads(self.literal)
        if self.template.body_keys is not None:
            return _copied(json_paths.find(body, self.template.body_keys))
        made = self.template.render(request, response, body)
        return ABSENT if made is None else made


Values = tuple[tuple[Keys, Value], ...]


@dataclass(frozen=True, slots=True)
class JsonEdit:
    """rename: a place, and the name that its last step gets."""

    remove: tuple[Keys, ...] = ()
    rename: tuple[tuple[Keys, str], ...] = ()
    replace: Values = ()
    set: Values = ()
    add: Values = ()

    def apply(self, root: Any, request: RequestHead, response: ResponseHead | None) -> None:
        """Changes the body in place; placeholders read it as it was before. Raises BadBody."""
        planned = [
            (keys, value.of(root, request, response), write)
            for values, write in ((self.replace, _replace), (self.set, _set), (self.add, _add))
            for keys, value in values
        ]
        for keys in self.remove:
            for holder in json_paths.holders(root, keys):
                holder.pop(_last(keys), None)
        for keys, name in self.rename:
            for holder in json_paths.holders(root, keys):
                if _last(keys) in holder:
                    holder[name] = holder.pop(_last(keys))
        growth = 0
        for keys, value, write in planned:
            growth = _write(root, keys, value, write, growth)


def _write(root: Any, keys: Keys, value: Any, write: Write, growth: int) -> int:
    """growth: bytes that the edits before may have added. Returns it with this one's. Raises BadBody."""
    if write is _set and keys[0] is not None and type(root) is not dict:
        raise BadBody("The body has to be a JSON object.")
    holders = json_paths.holders(root, keys, create=write is _set and value is not ABSENT)
    if len(holders) > 1 and value is not ABSENT:
        growth += len(holders) * (len(exact_json.dumps(value)) + len(_last(keys)) + 4)
        if growth > MAX_GROWTH_BYTES:
            raise BadBody("The body has too many elements to be edited.")
    for holder in holders:
        # Elements may share an object: every edit changes all of them alike.
        write(holder, _last(keys), value)
    return growth


def _set(holder: dict[str, Any], key: str, value: Any) -> None:
    if value is ABSENT:  # what the client sent under this name is not to be taken for ours
        holder.pop(key, None)
    else:
        holder[key] = value


def _replace(holder: dict[str, Any], key: str, value: Any) -> None:
    if key in holder:
        _set(holder, key, value)


def _add(holder: dict[str, Any], key: str, value: Any) -> None:
    if value is not ABSENT:
        holder.setdefault(key, value)


def _last(keys: Keys) -> str:
    return keys[-1]  # type: ignore[return-value]  # json_paths.parse ends every place with a name


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(member) for key, member in value.items()}
    if type(value) is list:
        return [_copied(element) for element in value]
    return value
