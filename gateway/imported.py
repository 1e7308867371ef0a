"""What an importer makes of somebody else's file: our document, and notes on all that it could not carry over."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from . import reading
from .errors import InvalidDocument

MAX_CHARACTERS = 8 << 20
_DEEPEST = 500  # schemas of an API may be deep; nothing that is meant is deeper

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMED = re.compile(r"[^A-Za-z0-9/{}._:*\[\]~-]+")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True  # a list that two routes share is written out twice, for people to read


@dataclass(frozen=True, slots=True)
class Imported:
    """document: in the shape that `manage.py gateway apply` takes. notes: each begins with a place in the file."""

    document: dict[str, Any]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The document as YAML, below its notes as comments."""
        comments = "".join(f"# {' '.join(note.split())}\n" for note in self.notes)
        return comments + yaml.dump(
            self.document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110
        )


@dataclass(slots=True)
class Findings:
    """Collects notes and problems. lines: of the places in the file, such as `services[0].url`."""

    lines: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, at: str, text: str) -> None:
        told = f"{self._place(at)}: {text}"
        if told not in self.notes:
            self.notes.append(told)

    def wrong(self, at: str, text: str) -> None:
        self.problems.append(f"{self._place(at)}: {text}")

    def mapping(self, value: object, at: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(at, f"is a mapping, not {value!r:.60}")
            return {}
        return {str(key): member for key, member in value.items()}

    def items(self, value: object, at: str) -> list[tuple[str, Any]]:
        """A list's elements with their places."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(at, f"is a list, not {value!r:.60}")
            return []
        return [(f"{at}[{i}]", element) for i, element in enumerate(value)]

    def mappings(self, value: object, at: str) -> list[tuple[str, dict[str, Any]]]:
        return [(place, self.mapping(element, place)) for place, element in self.items(value, at)]

    def words(self, value: object, at: str) -> list[str]:
        return [
            str(element) for _, element in self.items(value, at) if isinstance(element, str | int | float)
        ]

    def leftover(self, values: Mapping[str, Any], known: Collection[str], at: str) -> None:
        """Notes each key that nothing has been made of."""
        for key, value in values.items():
            if key not in known and value not in (None, [], {}):
                self.note(f"{at}.{key}" if at else key, "not carried over")

    def _place(self, at: str) -> str:
        line = self.lines.get(at)
        return f"{at or 'the file'} (line {line})" if line else at or "the file"


def parse(text: str) -> tuple[Any, Findings]:
    """A YAML or JSON text. Raises InvalidDocument."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidDocument([f"the file has more than {MAX_CHARACTERS} characters"])
    loader = _Loader(text)
    try:
        reading.check_depth(text, _DEEPEST)
        node = loader.get_single_node()
        parsed = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDocument([reading.not_yaml(error, text)]) from error
    finally:
        loader.dispose()
    findings = Findings({})
    if node is not None:
        lines: dict[str, int] = {}
        _note_lines(node, lines, findings)
        findings.lines = lines
    return parsed, findings


def _note_lines(root: yaml.Node, lines: dict[str, int], findings: Findings) -> None:
    """Each place's line. A node that is used again by an alias is walked once, so that aliases of aliases of aliases
    do not take for ever."""
    waiting: list[tuple[yaml.Node, str]] = [(root, "")]
    seen: set[int] = set()
    while waiting:
        node, at = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for i, element in enumerate(node.value):
                lines[f"{at}[{i}]"] = element.start_mark.line + 1
                waiting.append((element, f"{at}[{i}]"))
        elif isinstance(node, yaml.MappingNode):
            known: set[str] = set()
            for key, value in node.value:
                place = f"{at}.{key.value}" if at else str(key.value)
                if place in known and key.tag != "tag:yaml.org,2002:merge":
                    findings.wrong(f"{place} (line {key.start_mark.line + 1})", "stands twice")
                known.add(place)
                lines[place] = key.start_mark.line + 1
                waiting.append((value, place))


def finish(document: dict[str, Any], findings: Findings) -> Imported:
    """Raises InvalidDocument when there were problems."""
    if findings.problems:
        raise InvalidDocument(findings.problems)
    return Imported({key: value for key, value in document.items() if value}, tuple(findings.notes))


def name_of(text: str, taken: Collection[str], fallback: str) -> str:
    """A name as our rows take it, and one that is not taken."""
    base = _NAMED.sub("-", text).strip("-") or fallback
    base = base if re.match(r"[A-Za-z0-9/{]", base) else f"{fallback}-{base.lstrip('._:*[]}~-')}"
    name, number = base[:75], 2
    while name in taken:
        name, number = f"{base[:75]}-{number}", number + 1
    return name
