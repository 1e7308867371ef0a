"""Templates: text with placeholders, checked when they are saved and filled in without running anybody's code.

{consumer.name} {consumer.id} {path.NAME} {query.NAME} {header.NAME} {request_id} {client_ip}, {status} of a response,
{body.a.b} in bodies. `{{` and `}}` stand for the braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from . import exact_json, json_paths
from .heads import RequestHead, ResponseHead
from .json_paths import ABSENT, Keys

MAX_CHARACTERS = 2048
REQUEST = frozenset(("consumer", "path", "query", "header", "request_id", "client_ip"))
RESPONSE = REQUEST | {"status"}

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_NAMES = {
    "consumer": re.compile(r"name|id"),
    "path": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
    "query": re.compile(r"[^{}&=#\x00-\x1f]+"),
    "header": re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    "group": re.compile(r"[1-9]|[A-Za-z_][A-Za-z0-9_]*"),
    "body": re.compile(r".+", re.DOTALL),
}
_BARE = frozenset(("request_id", "client_ip", "status"))

Read = Callable[[RequestHead, ResponseHead | None, Any], str | None]
Encode = Callable[[str, str], str]  # source and value → what stands in the text


@dataclass(frozen=True, slots=True)
class Template:
    """constant: the whole text when it has no placeholders. body_keys: of the one placeholder, where it is {body.…} and
    nothing else. names: its placeholders, as (source, name)."""

    parts: tuple[str | Read, ...]
    constant: str | None
    body_keys: Keys | None
    names: tuple[tuple[str, str], ...]

    def render(
        self, request: RequestHead, response: ResponseHead | None = None, body: Any = None
    ) -> str | None:
        """None when a placeholder has no value: half a value would be a wrong one."""
        if self.constant is not None:
            return self.constant
        made: list[str] = []
        for part in self.parts:
            if type(part) is str:
                made.append(part)
                continue
            value = part(request, response, body)  # type: ignore[operator]
            if value is None:
                return None
            made.append(value)
        return "".join(made)


def as_it_is(source: str, value: str) -> str:
    return value


def parse(text: str, sources: Collection[str], encode: Encode = as_it_is) -> Template:
    """sources: the kinds of placeholders that have a value here. Raises ValueError with what is wrong."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a template has at most {MAX_CHARACTERS} characters")
    parts: list[str | Read] = []
    names: list[tuple[str, str]] = []
    for piece in _PIECE.finditer(text):
        if piece[1] is not None:
            source, name = _placeholder(piece[1], sources)
            names.append((source, name))
            parts.append(_reader(source, name, encode))
        elif piece[0] in ("{", "}"):
            raise ValueError(
                f"a single {piece[0]!r} at character {piece.start() + 1}; write it twice for the brace"
            )
        else:
            literal = piece[0][0] if piece[0] in ("{{", "}}") else piece[0]
            if parts and type(parts[-1]) is str:
                parts[-1] += literal
            else:
                parts.append(literal)
    constant = None if names else "".join(part for part in parts if type(part) is str)
    only = names[0] if len(names) == len(parts) == 1 else ("", "")
    keys = json_paths.parse(only[1]) if only[0] == "body" else None
    return Template(tuple(parts), constant, keys, tuple(names))


def escaped(text: str) -> str:
    """A text as a template that means just that."""
    return text.replace("{", "{{").replace("}", "}}")


def _placeholder(inside: str, sources: Collection[str]) -> tuple[str, str]:
    source, dot, name = inside.partition(".")
    if not dot and "group" in sources and _NAMES["group"].fullmatch(inside) and inside not in _BARE:
        return "group", inside
    known = source in _BARE if not dot else source in _NAMES and source != "group"
    if not known or source not in sources:
        raise ValueError(f"unknown placeholder {{{inside}}}; known here are {', '.join(_spelt(sources))}")
    if dot and _NAMES[source].fullmatch(name) is None:
        raise ValueError(f"{{{inside}}}: {name!r} is no name of a {source} value")
    if source == "body" and None in json_paths.parse(name):
        raise ValueError(f"{{{inside}}}: a placeholder is one value, without []")
    return source, name


def _spelt(sources: Collection[str]) -> list[str]:
    spelt = {"consumer": "{consumer.name}, {consumer.id}", "group": "{1}", "body": "{body.a.b}"}
    return [spelt.get(s, f"{{{s}}}" if s in _BARE else f"{{{s}.NAME}}") for s in sorted(sources)]


def _reader(source: str, name: str, encode: Encode) -> Read:
    """An empty value counts as none, except in a body and in what a pattern matched."""
    find = _finder(source, name)

    def read(request: RequestHead, response: ResponseHead | None, body: Any) -> str | None:
        value = find(request, response, body)
        return encode(source, value) if value is not None else None

    return read


def _finder(source: str, name: str) -> Read:
    if source == "body":
        return _member(json_paths.parse(name))
    if source == "group":  # a path's rewrite hands its match over in the place of the body
        return lambda request, response, body: body[name]
    if source == "header":
        return lambda request, response, body: (response or request).header(name) or None
    if source == "path":
        return lambda request, response, body: request.params.get(name) or None
    if source == "query":
        return lambda request, response, body: request.query_value(name) or None
    if source == "status":
        return lambda request, response, body: str(response.status) if response else None
    field = f"consumer_{name}" if source == "consumer" else source
    return lambda request, response, body: getattr(request, field) or None


def _member(keys: Keys) -> Read:
    def read(request: RequestHead, response: ResponseHead | None, body: Any) -> str | None:
        value = json_paths.find(body, keys)
        if value is ABSENT or type(value) is str:
            return None if value is ABSENT else value
        return exact_json.dumps(value).decode()

    return read
