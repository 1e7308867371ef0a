"""What a transformation says, read into edits, with every mistake named by the path to its key.

    request:  {headers: VERBS, query: VERBS, path: PATH, body: VERBS}
    response: {headers: VERBS, status: {map: {"404": 410}}, body: VERBS}
    VERBS:    {remove: [name], rename: {old: new}, replace | set | add | append: {name: template}}
    PATH:     {strip_prefix, add_prefix} | {replace: {pattern, with}} | {template}

docs/gateway-transforms.md has all of it; `append` is of headers and queries only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import exact_json, head_edits, json_paths, path_edits, templates
from .head_edits import PairEdit, Plan
from .json_edits import JsonEdit, Value
from .path_edits import PathEdit
from .templates import Template

T = TypeVar("T")

MAX_EDITS = 100  # of one verb
MAX_LITERAL_BYTES = 16_384

PHASES = ("request", "response")
_SECTIONS = {"request": ("headers", "query", "path", "body"), "response": ("headers", "status", "body")}
_WRITES = ("replace", "set", "add", "append")
_PATH = ("strip_prefix", "add_prefix", "replace", "template")
_SOURCES = {"request": templates.REQUEST, "response": templates.RESPONSE}

_HEADER = re.compile(
    r"[!#$%&'*+.^`|~0-9A-Za-z-]+"
)  # a token (RFC 9110), but no underscore: those are dropped
# How a message is framed and read, and what only the gateway says.
_FRAMING = {
    "connection", "content-encoding", "content-length", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
_OURS = {
    "request": {"expect", "forwarded", "host", "via", "x-real-ip", "x-request-id"},
    "response": {"ratelimit", "ratelimit-policy", "via", "x-brain-error", "x-request-id", "x-upstream"},
}
_OUR_PREFIXES = {"request": ("x-consumer-", "x-forwarded-"), "response": ()}


@dataclass(frozen=True, slots=True)
class Part:
    """One transformation's edits of one phase."""

    headers: PairEdit[tuple[bytes, bytes]] | None = None
    query: PairEdit[bytes] | None = None
    path: PathEdit | None = None
    statuses: dict[int, int] = field(default_factory=dict)
    body: JsonEdit | None = None


def read(spec: object, phase: str, parameters: Collection[str] | None = None) -> tuple[Part, list[str]]:
    """The edits and what is wrong. parameters: the placeholders of the route's path, None where it is not known."""
    reader = _Reader(phase, parameters)
    return reader.part(spec), reader.problems


class _Reader:
    """Collects problems; `at` is always the path to the value that is read."""

    def __init__(self, phase: str, parameters: Collection[str] | None) -> None:
        self.phase, self.parameters = phase, parameters
        self.problems: list[str] = []

    def part(self, spec: object) -> Part:
        values = self._mapping(spec, self.phase, _SECTIONS[self.phase])
        at = self.phase
        return Part(
            headers=self._headers(values["headers"], f"{at}.headers") if "headers" in values else None,
            query=self._query(values["query"], f"{at}.query") if "query" in values else None,
            path=self._path(values["path"], f"{at}.path") if "path" in values else None,
            statuses=self._statuses(values["status"], f"{at}.status") if "status" in values else {},
            body=self._body(values["body"], f"{at}.body") if "body" in values else None,
        )

    # --- lists of named values ---

    def _headers(self, given: object, at: str) -> PairEdit[tuple[bytes, bytes]]:
        return head_edits.header_edit(
            self._plan(given, at, self._header_name, self._header_template, str.lower)
        )

    def _query(self, given: object, at: str) -> PairEdit[bytes]:
        return head_edits.query_edit(self._plan(given, at, self._parameter_name, self._template, str))

    def _plan(
        self,
        given: object,
        at: str,
        named: Callable[[object, str], str],
        templated: Callable[[object, str], Template],
        fold: Callable[[str], str],
    ) -> Plan:
        """fold: the form in which names are compared."""
        values = self._mapping(given, at, ("remove", "rename", *_WRITES))
        removed = [fold(named(name, f"{at}.remove")) for name in self._list(values, "remove", at)]
        renamed = {
            fold(named(old, f"{at}.rename.{old}")): named(new, f"{at}.rename.{old}")
            for old, new in self._entries(values, "rename", at)
        }
        written = {
            verb: tuple(
                (
                    fold(named(name, f"{at}.{verb}.{name}")).encode(),
                    name.encode(),
                    templated(value, f"{at}.{verb}.{name}"),
                )
                for name, value in self._entries(values, verb, at)
            )
            for verb in _WRITES
        }
        return Plan(
            removed=frozenset(name.encode() for name in removed),
            renamed={old.encode(): (fold(new).encode(), new.encode()) for old, new in renamed.items()},
            replaced=written["replace"], set=written["set"], added=written["add"], appended=written["append"],
        )  # fmt: skip

    def _header_name(self, name: object, at: str) -> str:
        text = self._text(name, at)
        lower = text.lower()
        if _HEADER.fullmatch(text) is None:
            self.problems.append(f"{at}: {text!r} is no name of a header (letters, digits, hyphens)")
        elif is_ours(lower, self.phase):
            self.problems.append(f"{at}: {text} is the gateway's own and cannot be edited")
        return text

    def _parameter_name(self, name: object, at: str) -> str:
        text = self._text(name, at)
        if not 0 < len(text) <= 256 or not text.isprintable():
            self.problems.append(f"{at}: {text!r:.60} is no name of a parameter")
        return text

    def _header_template(self, value: object, at: str) -> Template:
        template = self._template(value, at, head_edits.header_value)
        literal = "".join(part for part in template.parts if isinstance(part, str))
        if not literal.isascii() or not literal.isprintable():
            self.problems.append(f"{at}: a header has visible ASCII characters only")
        elif not template.names and (not literal or literal != literal.strip()):
            self.problems.append(f"{at}: a header's value is not empty and has no spaces around it")
        return template

    # --- path, status, body ---

    def _path(self, given: object, at: str) -> PathEdit | None:
        values = self._mapping(given, at, _PATH)
        ways = [key for key in _PATH if key in values]
        if len(ways) != 1 and set(ways) != {"strip_prefix", "add_prefix"}:
            self.problems.append(f"{at}: give strip_prefix and/or add_prefix, or replace, or template")
            return None
        if ways == ["template"]:
            text = self._text(values["template"], f"{at}.template")
            return self._rewrite(lambda: path_edits.from_template(text), f"{at}.template")
        if ways == ["replace"]:
            return self._pattern(values["replace"], f"{at}.replace")
        prefixes = {key: self._prefix(values.get(key), f"{at}.{key}") for key in _PATH[:2]}
        return path_edits.move(prefixes["strip_prefix"], prefixes["add_prefix"])

    def _prefix(self, value: object, at: str) -> bytes:
        if value is None:
            return b""
        return self._tried(lambda: path_edits.check_prefix(self._text(value, at)), at) or b""

    def _pattern(self, given: object, at: str) -> PathEdit | None:
        values = self._mapping(given, at, ("pattern", "with"))
        pattern, text = (self._text(values.get(key), f"{at}.{key}") for key in ("pattern", "with"))
        if not pattern:
            return None
        return self._rewrite(lambda: path_edits.by_pattern(pattern, text), at)

    def _rewrite(self, make: Callable[[], tuple[PathEdit, Template]], at: str) -> PathEdit | None:
        made = self._tried(make, at)
        if made is None:
            return None
        self._known_parameters(made[1], at)
        return made[0]

    def _statuses(self, given: object, at: str) -> dict[int, int]:
        values = self._mapping(given, at, ("map",))
        found = {}
        for old, new in self._entries(values, "map", at):
            pair = bodied_status(old), bodied_status(new)
            if None in pair:
                self.problems.append(
                    f"{at}.map.{old}: a status from 200 to 599 that can have a body, for another one"
                )
            else:
                found[pair[0]] = pair[1]
        return found  # type: ignore[return-value]  # no None is left

    def _body(self, given: object, at: str) -> JsonEdit:
        values = self._mapping(given, at, ("remove", "rename", *_WRITES[:3]))
        written = {
            verb: tuple(
                (self._place(name, f"{at}.{verb}.{name}"), self._value(value, f"{at}.{verb}.{name}"))
                for name, value in self._entries(values, verb, at)
            )
            for verb in _WRITES[:3]
        }
        return JsonEdit(
            remove=tuple(self._place(name, f"{at}.remove") for name in self._list(values, "remove", at)),
            rename=tuple(
                (self._place(old, f"{at}.rename.{old}"), self._member(new, f"{at}.rename.{old}"))
                for old, new in self._entries(values, "rename", at)
            ),
            **written,
        )

    def _place(self, text: object, at: str) -> json_paths.Keys:
        return self._tried(lambda: json_paths.parse(self._text(text, at)), at) or ("",)

    def _member(self, name: object, at: str) -> str:
        keys = self._place(name, at)
        if len(keys) != 1:
            self.problems.append(f"{at}: the new name alone; the member stays where it is")
        return keys[-1] or ""

    def _value(self, value: object, at: str) -> Value:
        if isinstance(value, str):
            return Value(self._template(value, at, body=True))
        literal = self._tried(lambda: exact_json.dumps(value), at) or b"null"
        if len(literal) > MAX_LITERAL_BYTES:
            self.problems.append(f"{at}: at most {MAX_LITERAL_BYTES} bytes of JSON")
        return Value(None, literal)

    # --- values ---

    def _template(
        self, value: object, at: str, encode: templates.Encode = templates.as_it_is, *, body: bool = False
    ) -> Template:
        text = self._text(value, at)
        sources = _SOURCES[self.phase] | ({"body"} if body else set())
        template = self._tried(lambda: templates.parse(text, sources, encode), at) or templates.parse("-", ())
        self._known_parameters(template, at)
        return template

    def _known_parameters(self, template: Template, at: str) -> None:
        for source, name in template.names:
            if source == "path" and self.parameters is not None and name not in self.parameters:
                self.problems.append(f"{at}: the route's path has no {{{name}}}")

    def _tried(self, make: Callable[[], T], at: str) -> T | None:
        try:
            return make()
        except ValueError as error:
            self.problems.append(f"{at}: {error}")
            return None

    def _mapping(self, value: object, at: str, known: Collection[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{at}: is a mapping of {', '.join(known)}, not {value!r:.60}")
            return {}
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
                self.problems.append(f"{at}.{key}: unknown key; {hint}")
        return value

    def _entries(self, values: dict[str, Any], key: str, at: str) -> list[tuple[Any, Any]]:
        section = values.get(key, {})
        if not isinstance(section, dict):
            self.problems.append(f"{at}.{key}: is a mapping of names, not {section!r:.60}")
            return []
        return self._bounded(list(section.items()), f"{at}.{key}")

    def _list(self, values: dict[str, Any], key: str, at: str) -> list[Any]:
        section = values.get(key, [])
        if not isinstance(section, list):
            self.problems.append(f"{at}.{key}: is a list of names, not {section!r:.60}")
            return []
        return self._bounded(section, f"{at}.{key}")

    def _bounded(self, found: list[Any], at: str) -> list[Any]:
        if len(found) > MAX_EDITS:
            self.problems.append(f"{at}: at most {MAX_EDITS}")
        return found[:MAX_EDITS]

    def _text(self, value: object, at: str) -> str:
        if not isinstance(value, str):
            self.problems.append(f"{at}: is a text, not {value!r:.60}")
            return ""
        return value


def is_ours(lower: str, phase: str) -> bool:
    """Whether a header is the gateway's own in this phase: neither transformations nor plugins change it."""
    return lower in _FRAMING or lower in _OURS[phase] or lower.startswith(_OUR_PREFIXES[phase])


def bodied_status(value: object) -> int | None:
    """A status whose response has a body, from its number or text; the others are framed in another way."""
    text = str(value)
    good = re.fullmatch(r"[2-5][0-9]{2}", text) is not None and text not in ("204", "205", "206", "304")
    return int(text) if good and not isinstance(value, bool) else None
