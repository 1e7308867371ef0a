"""The configuration as entries, (kind, name) → fields in the words of the models, and what two of them differ in."""

from __future__ import annotations

import difflib
import json
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Entry = tuple[str, str]  # ("route", "/api/v1/tasks"), ("target", "SERVICE URL"), ("key", SHA-256 in hex)
Fields = Mapping[str, Any]  # JSON values; foreign keys by name, dates in ISO 8601, secrets sealed

# Each after the ones that it names.
KINDS = ("setting", "issuer", "plan", "service", "target", "consumer", "key", "route", "transform")
SETTING: Entry = ("setting", "gateway")
LINKS: Mapping[str, tuple[str, ...]] = {  # fields that hold the name of an entry of that kind
    "target": ("service",),
    "consumer": ("plan",),
    "key": ("consumer",),
    "route": ("plan", "service"),
    "transform": ("route", "service"),
}
_HIDDEN = frozenset({"secret"})
_MASK = "***"
_LONGEST = 60  # characters of a value in a line,
_SHORTLY = 15  # so many of them before what differs


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. before, after: all fields, None where the thing does not exist."""

    kind: str
    name: str
    before: Fields | None
    after: Fields | None

    @property
    def entry(self) -> Entry:
        return self.kind, self.name

    @property
    def verb(self) -> str:
        return "create" if self.before is None else "delete" if self.after is None else "update"

    def fields(self) -> list[str]:
        """The names of those that differ; all of them where the thing is new or gone."""
        before, after = self.before or {}, self.after or {}
        if self.verb != "update":
            return list(after or before)
        return [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]

    def shown(self) -> dict[str, Any]:
        """For JSON: the fields that differ, without secrets."""
        names = self.fields()
        return {
            "verb": self.verb,
            "kind": self.kind,
            "name": self.name,
            "before": None if self.before is None else _shown(self.before, names),
            "after": None if self.after is None else _shown(self.after, names),
        }

    def line(self, defaults: Fields | None = None) -> str:
        """For a human: `~ route /tasks  timeout_s: 30 -> 60`. defaults: values not worth naming of a new thing."""
        sign = {"create": "+", "update": "~", "delete": "-"}[self.verb]
        head = f"{sign} {self.kind} {short(self.entry)}"
        if self.after is None:
            return head
        parts = [
            self._part(name)
            for name in self.fields()
            if self.before or not self._goes_without(name, defaults)
        ]
        return f"{head}  {', '.join(parts)}" if parts else head

    def _goes_without(self, field: str, defaults: Fields | None) -> bool:
        """Whether it need not be named of a new thing: what is usual, and what stands in the thing's own name."""
        value = (self.after or {})[field]
        usual = (defaults or {}).get(field, _MASK) == value
        named = self.kind == "target" or field not in LINKS.get(self.kind, ())
        return usual or field == "created_at" or (named and value in self.name.split(" "))

    def _part(self, name: str) -> str:
        after = (self.after or {}).get(name)
        if name in _HIDDEN:
            return f"{name}: {'none' if not after else 'another' if self.before else 'set'}"
        if self.before is None:
            return f"{name}: {_cut(_flat(after))[0]}"
        return "{}: {} -> {}".format(name, *_cut(_flat(self.before.get(name)), _flat(after)))

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {short(self.entry)}"


def short(entry: Entry) -> str:
    # A key's digest is no secret, but its whole length helps nobody.
    return f"{entry[1][:12]}…" if entry[0] == "key" else entry[1]


def shown(fields: Fields) -> dict[str, Any]:
    """The fields with secrets masked; whether there is one stays visible."""
    return _shown(fields, fields)


def _shown(fields: Fields, names: Iterable[str]) -> dict[str, Any]:
    return {name: _MASK if name in _HIDDEN and fields.get(name) else fields.get(name) for name in names}


def _flat(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = " ".join(value) or "none"
    elif value is None or value == "" or value == {}:
        text = "none"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return " ".join(text.split())


def _cut(*texts: str) -> list[str]:
    """Shortened, and begun shortly before the first difference: certificates all begin alike."""
    alike = len(os.path.commonprefix(texts)) if len(texts) > 1 else 0
    start = max(0, alike - _SHORTLY) if max(map(len, texts)) > _LONGEST else 0
    return [_window(text, start) for text in texts]


def _window(text: str, start: int) -> str:
    begun = f"…{text[start:]}" if start else text
    return begun if len(begun) <= _LONGEST else f"{begun[:_LONGEST]}…"


def compare(have: Mapping[Entry, Fields], wanted: Mapping[Entry, Fields | None]) -> list[Change]:
    """What makes `have` say what `wanted` says, in an order in which it can be done. None: it is to be gone. Fields that
    an entry of `wanted` lacks stay as they are."""
    found = []
    for entry, fields in wanted.items():
        before = have.get(entry)
        after = None if fields is None else {**(before or {}), **fields}
        if before != after:
            found.append(Change(*entry, before, after))
    return in_order(found)


def in_order(changes: Iterable[Change]) -> list[Change]:
    """What names others after them; then what goes, before what it names."""
    found = list(changes)
    there = [change for change in found if change.after is not None]
    gone = [change for change in found if change.after is None]
    there.sort(key=lambda change: KINDS.index(change.kind))
    gone.sort(key=lambda change: -KINDS.index(change.kind))
    return there + gone


def folded(changes: Iterable[Change]) -> list[Change]:
    """Changes that followed each other as one for each entry; what ended where it began is left out."""
    first: dict[Entry, Fields | None] = {}
    last: dict[Entry, Fields | None] = {}
    for change in changes:
        first.setdefault(change.entry, change.before)
        last[change.entry] = change.after
    return in_order(
        Change(*entry, before, last[entry]) for entry, before in first.items() if before != last[entry]
    )


def loose_ends(
    entries: Iterable[tuple[Entry, Fields]], known: Mapping[Entry, Any]
) -> list[tuple[Entry, str, str]]:
    """(entry, field, what is wrong) for each name that an entry gives and nobody has."""
    found = []
    for entry, fields in entries:
        for link in LINKS.get(entry[0], ()):
            name = fields.get(link)
            if name and (link, name) not in known:
                close = difflib.get_close_matches(name, [n for kind, n in known if kind == link], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                found.append((entry, link, f"there is no {link} {name!r}{hint}"))
    return found


def urls(told: Iterable[Fields]) -> list[str]:
    """All that the gateway would connect to by name."""
    return [url for fields in told for url in (fields.get("url"), fields.get("jwks_url")) if url]
