"""YAML as plain values that know their lines, and the reading of typed values with every mistake noted down."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import yaml

from .errors import InvalidDocument
from .words import Word, Words

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as quick
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_DEEPEST, _MOST_NODES = 40, 1_000_000  # aliases of aliases grow without end
LARGEST = 2**31 - 1  # of a whole number in every database
_SECRET_KEYS = frozenset({"jwt_secret", "secret", "key"})


@dataclass(frozen=True, slots=True)
class Tree:
    """lines: where the key, or the item of a list, stands, counted from 1."""

    value: Any
    lines: Mapping[Path, int]


def parse(text: str) -> Tree:
    """Raises InvalidDocument for what is not YAML, or holds what JSON cannot."""
    loader = _LOADER(text)
    try:
        check_depth(text, _DEEPEST)
        node = loader.get_single_node()
        walk = _Walk(loader)
        value = None if node is None else walk.value(node, ())
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidDocument([not_yaml(error, text)]) from error
    finally:
        loader.dispose()
    return Tree(value, walk.lines)


def check_depth(text: str, deepest: int) -> None:
    """Raises yaml.YAMLError. libyaml makes nodes by recursion in C: a hundred kilobytes of `[` would end the process
    before anybody could count how deep they are. Its events come without recursion."""
    loader = _LOADER(text)
    depth = 0
    try:
        while (event := loader.get_event()) is not None:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > deepest:
                    raise _wrong(event, "nested too deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    finally:
        loader.dispose()


def not_yaml(error: Exception, text: str) -> str:
    """What the parser found, told as all other mistakes are: `line 3: not YAML: …`."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.encode(errors="replace").count(b"\n", 0, error.position)
        return f"line {line + 1}: not YAML: the character #x{error.character:04x}: {error.reason}"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"not YAML: {' '.join(str(error).split())}"
    lines = text.rstrip("\n").split("\n")
    line, found, begun = min(error.problem_mark.line, len(lines) - 1), error.problem, error.context_mark
    if lines[line][error.problem_mark.column :].startswith("\t"):
        found = "a tab; YAML is indented with spaces"
    elif found == "but found another document":
        found = "another document begins; a file holds one"
    elif begun is not None and begun.line != line:
        found = f"{found} {error.context} that begins on line {begun.line + 1}"
    return f"line {line + 1}: not YAML: {found}"


def shown(path: Path) -> str:
    """routes[0].timeout"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


class _Walk:
    """From YAML's nodes, which know where they stand, to values."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._nodes = 0
        self._flat: set[int] = set()  # an alias comes here again
        self.lines: dict[Path, int] = {(): 1}

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if len(path) > _DEEPEST or self._nodes > _MOST_NODES:  # aliases make it deeper than it is written
            raise _wrong(node, "nested too deep, or too many values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if id(node) not in self._flat:
            self._flat.add(id(node))
            _check_twice(node)
            self._loader.flatten_mapping(node)
        made = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                raise _wrong(key, "a key that is not a text; put it in quotes")
            below = (*path, key.value)
            self.lines[below] = key.start_mark.line + 1
            made[key.value] = self.value(value, below)
        return made

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._loader.construct_object(node)
        except ValueError as error:
            raise _wrong(node, str(error)) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(node, f"{value} is not a number that JSON has")
        if isinstance(value, str) and "\0" in value:
            raise _wrong(node, "a text has no NUL character")
        if not isinstance(value, str | int | float | date | None):
            raise _wrong(node, f"a {node.tag.rpartition(':')[2]} is not a value here")
        return value


def _check_twice(node: yaml.MappingNode) -> None:
    """YAML itself takes the last of two equal keys without a word."""
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if key.value in seen:
                raise _wrong(key, f"the key {key.value!r} stands twice")
            seen.add(key.value)


def _wrong(node: Any, told: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=told, problem_mark=node.start_mark)


class Reader:
    """Notes problems down and goes on with a value that harms nobody; `at` is always the path to what is read."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self._lines = lines
        self._noted: list[tuple[int, str]] = []

    @property
    def problems(self) -> list[str]:
        """In the order of the lines."""
        return [text for _, text in sorted(self._noted, key=lambda noted: noted[0])]

    def place(self, at: Path) -> str:
        """line 14: routes[0].timeout"""
        return f"line {self._line(at)}: {shown(at)}"

    def _line(self, at: Path) -> int:
        while at not in self._lines:
            at = at[:-1]
        return self._lines[at]

    def note(self, at: Path, told: str) -> None:
        self._noted.append((self._line(at), f"{self.place(at)}: {told}"))

    def wrong(self, at: Path, expected: str, value: Any) -> None:
        if value is None:
            found = "nothing"
        elif _is_secret(at):
            found = type(value).__name__
        else:
            found = f"{type(value).__name__} {value!r:.60}"
        self.note(at, f"{expected}, not {found}")

    # --- what holds values ---

    def section(self, value: Any, at: Path, known: Collection[str]) -> dict[str, Any]:
        """A mapping of known keys, without those that are left empty, which are as if they were not there."""
        if not isinstance(value, dict):
            self.wrong(at, "is a mapping", value)
            return {}
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
                self.note((*at, key), f"unknown key; {hint}")
        return {key: item for key, item in value.items() if item is not None}

    def items(self, value: Any, at: Path, what: str) -> Iterable[tuple[Path, Any]]:
        if not isinstance(value, list):
            self.wrong(at, f"is a list of {what}", value)
            return
        for i, item in enumerate(value):
            yield (*at, i), item

    def named(self, values: Mapping[str, Any], key: str, at: Path) -> Iterable[tuple[str, Any, Path]]:
        if key not in values:
            return
        if not isinstance(values[key], dict):
            self.wrong((*at, key), "is a mapping of names", values[key])
            return
        for name, value in values[key].items():
            yield name, value, (*at, key, name)

    def fields(
        self, values: Mapping[str, Any], words: Words, at: Path
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What the words say, by field, and the places where they say it."""
        found: dict[str, Any] = {}
        places: dict[str, str] = {}
        for key, word in words.items():
            if key not in values:
                continue
            below = (*at, key)
            if not isinstance(word, Word):
                group = self.section(values[key], below, word)
                more, their_places = self.fields(group, word, below)
                found |= more
                places |= their_places
                continue
            value = (
                self.choice(values[key], below, word.choices)
                if word.choices
                else self._read(word, values[key], below)
            )
            if value is not None:
                found[word.field] = value
                places[word.field] = self.place(below)
        return found, places

    def _read(self, word: Word, value: Any, at: Path) -> Any:
        match word.kind:
            case "number":
                return self.number(value, at)
            case "count":
                return self.count(value, at)
            case "flag":
                return self.flag(value, at)
            case "words":
                return self.words(value, at)
            case "texts":
                return self.texts(value, at)
            case "mapping":
                return self.mapping(value, at)
            case "time":
                return self.time(value, at)
            case _:
                return self.text(value, at)

    # --- values: None where they are wrong ---

    def text(self, value: Any, at: Path) -> str | None:
        if isinstance(value, str):
            return value
        self.wrong(
            at, "is a text; put it in quotes" if isinstance(value, int | float | date) else "is a text", value
        )
        return None

    def choice(self, value: Any, at: Path, choices: tuple[str, ...]) -> str | None:
        if value is False and "off" in choices:  # which is what YAML 1.1 makes of it without quotes
            return "off"
        if isinstance(value, str) and value in choices:
            return value
        self.wrong(at, f"is one of {', '.join(filter(None, choices))}", value)
        return None

    def number(self, value: Any, at: Path) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
            return float(value)
        self.wrong(at, "is a number", value)
        return None

    def count(self, value: Any, at: Path) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
            return value
        self.wrong(at, "is a whole number that is not negative", value)
        return None

    def flag(self, value: Any, at: Path) -> bool | None:
        if isinstance(value, bool):
            return value
        self.wrong(at, "is true or false", value)
        return None

    def words(self, value: Any, at: Path) -> list[str] | None:
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return value
        self.wrong(at, "is a list of words", value)
        return None

    def texts(self, value: Any, at: Path) -> dict[str, str] | None:
        if not isinstance(value, dict):
            self.wrong(at, "is a mapping of texts", value)
            return None
        return {key: text for key, item in value.items() if (text := self.text(item, (*at, key))) is not None}

    def mapping(self, value: Any, at: Path) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.wrong(at, "is a mapping", value)
            return None
        self._json(value, at)
        return value

    def _json(self, value: Any, at: Path) -> None:
        if isinstance(value, date):
            self.wrong(at, "is no date but a text; put it in quotes", value)
        for key, item in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            self._json(item, (*at, key))

    def time(self, value: Any, at: Path) -> str | None:
        """In ISO 8601 and UTC; without a zone it is taken for UTC, without a time of day for the day's begin."""
        try:
            parsed = datetime.fromisoformat(value) if isinstance(value, str) else value
            if isinstance(parsed, date) and not isinstance(parsed, datetime):
                parsed = datetime.combine(parsed, time())
            if not isinstance(parsed, datetime):
                raise ValueError
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            self.wrong(at, "is a date such as 2027-01-31 or 2027-01-31T12:00:00Z", value)
            return None


def _is_secret(at: Path) -> bool:
    return any(part in _SECRET_KEYS for part in at[-1:]) or at[-2:-1] == ("api_keys",)
