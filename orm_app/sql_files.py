"""An app's `sql/` folder: `001_name.up.sql`, `001_name.down.sql`, and `001_name.postgresql.up.sql` for one dialect.

Comments at the head of an up file speak to us: `-- atomic: false`, `-- depends on: app.0001_name`,
`-- lint: allow RULE because REASON`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_FILE = re.compile(r"(?P<stem>\d\w*?)(?:\.(?P<dialect>[a-z]+))?\.(?P<way>up|down)\.sql")
_DIALECTS = ("postgresql", "mysql", "mariadb", "sqlite")
_ATOMIC = re.compile(r"^--\s*atomic:\s*(\w+)\s*$", re.MULTILINE | re.IGNORECASE)
_DEPENDS = re.compile(r"^--\s*depends on:\s*(\w+)\.(\w+)\s*$", re.MULTILINE | re.IGNORECASE)
LINT_ALLOW = re.compile(
    r"^\s*(?:--|#)\s*lint:\s*allow\s+(?P<rule>[\w-]+)(?:\s+because\s+(?P<reason>\S.*?))?\s*$",
    re.MULTILINE | re.IGNORECASE,
)


class BadFiles(ValueError):
    """The folder's files do not make migrations. The message names the file."""


@dataclass(frozen=True, slots=True)
class Script:
    """The files of one stem. up, down: a text by dialect, "" for all others."""

    stem: str
    up: dict[str, str]
    down: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return self.stem.partition("_")[0]

    @property
    def name(self) -> str:
        return self.stem.partition("_")[2] or self.stem

    @property
    def is_atomic(self) -> bool:
        said = [value.lower() for text in self.up.values() for value in _ATOMIC.findall(text)]
        if wrong := set(said) - {"true", "false"}:
            raise BadFiles(f"{self.stem}.up.sql: atomic is true or false, not {wrong.pop()}")
        return "false" not in said

    @property
    def depends_on(self) -> list[tuple[str, str]]:
        return sorted({found for text in self.up.values() for found in _DEPENDS.findall(text)})


def allowances(texts: Iterable[str]) -> dict[str, str]:
    """What comments of the form `lint: allow RULE because REASON` allow: rule → reason, "" when it gives none."""
    return {found["rule"]: found["reason"] or "" for text in texts for found in LINT_ALLOW.finditer(text)}


def scan(folder: Path) -> list[Script]:
    """All of the folder in the order of their numbers. Raises BadFiles."""
    stems: dict[str, dict[str, dict[str, str]]] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise BadFiles(
                f"{path.name}: name it 001_what_it_does.up.sql, or 001_what_it_does.postgresql.up.sql"
            )
        if match["dialect"] not in (None, *_DIALECTS):
            raise BadFiles(f"{path.name}: unknown dialect {match['dialect']}: use {', '.join(_DIALECTS)}")
        ways = stems.setdefault(match["stem"], {"up": {}, "down": {}})
        ways[match["way"]][match["dialect"] or ""] = path.read_text(encoding="utf-8-sig")
    scripts = [Script(stem, ways["up"], ways["down"]) for stem, ways in stems.items()]
    _refuse_ambiguous(scripts)
    return sorted(scripts, key=lambda script: (int(re.match(r"\d+", script.stem)[0]), script.stem))  # type: ignore[index]


def read(folder: Path, stem: str) -> Script:
    """Raises BadFiles when the stem has no up file."""
    found = next((script for script in scan(folder) if script.stem == stem), None)
    if found is None:
        raise BadFiles(f"{folder / stem}.up.sql does not exist: restore it")
    return found


def _refuse_ambiguous(scripts: list[Script]) -> None:
    versions: dict[str, str] = {}
    for script in scripts:
        if not script.up:
            raise BadFiles(f"{script.stem}.down.sql has no {script.stem}.up.sql")
        if extra := set(script.down) - set(script.up) - {""}:
            raise BadFiles(f"{script.stem}.{extra.pop()}.down.sql has no up file of its dialect")
        other = versions.setdefault(script.version, script.stem)
        if other != script.stem:
            raise BadFiles(f"{other} and {script.stem} have the same number")
