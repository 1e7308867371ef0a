"""Paths of a route of Kong's → path and path_kind of ours, and what is done to the path on the way."""

from __future__ import annotations

import re
from typing import Any

from . import edits, path_edits, routing
from .imported import Findings

_PLAIN_2X = re.compile(r"[A-Za-z0-9.\-_~/%]*")  # before 3.0 any other character made a path a pattern
_PIECE = re.compile(r"\\.|.", re.DOTALL)  # a character of a pattern, or an escaped one


class Paths:
    def __init__(self, found: Findings, *, is_old: bool) -> None:
        """is_old: before 3.0, when patterns were not marked."""
        self.found = found
        self.is_old = is_old

    def of(self, at: str, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Alternatives of a pattern are paths of their own: a path of ours begins with its slash."""
        return [
            (place, one)
            for place, path in self.found.items(values.get("paths"), f"{at}.paths") or [(at, "/")]
            for one in (_alternatives(str(path)) if self._is_pattern(str(path)) else [str(path)])
        ]

    def fill_in(self, at: str, path: str, values: dict[str, Any], route: dict[str, Any], base: str) -> bool:
        """Fills in path, path_kind and what is done to the path on the way."""
        strips = values.get("strip_path", True)
        if self._is_pattern(path):
            return self._pattern(at, path.removeprefix("~").removeprefix("^"), route, base, strips=strips)
        plain = path.rstrip("/") or "/"
        if not self._is_good(at, plain, "prefix"):
            return False
        route |= {"path": plain, "path_kind": "prefix"}
        if strips and plain != "/" and not base:
            route["strip_prefix"] = True
        elif base:
            edit = {"strip_prefix": plain} if strips and plain != "/" else {}
            self._edit_path(at, route, edit | {"add_prefix": base})
        return True

    def _is_pattern(self, path: str) -> bool:
        return _PLAIN_2X.fullmatch(path) is None if self.is_old else path.startswith("~")

    def _pattern(self, at: str, pattern: str, route: dict[str, Any], base: str, *, strips: bool) -> bool:
        pattern = pattern.replace("(?<", "(?P<")  # RE2's spelling of a named group
        whole = pattern.removesuffix("$") if pattern.endswith("$") else f"{pattern}.*"
        try:
            path_edits.compiled(whole)
        except ValueError as error:
            self.found.note(at, f"{pattern} is not carried over: {error}")
            return False
        if not self._is_good(at, whole, "regex"):
            return False
        route |= {"path": whole, "path_kind": "regex"}
        if strips:
            self._edit_path(at, route, {"replace": {"pattern": pattern, "with": base}})
        elif base:
            self._edit_path(at, route, {"add_prefix": base})
        return True

    def _is_good(self, at: str, path: str, kind: str) -> bool:
        try:
            routing.check_path(path, kind)
        except ValueError as error:
            self.found.note(at, f"{path} is not carried over: {error}")
            return False
        return True

    def _edit_path(self, at: str, route: dict[str, Any], edit: dict[str, Any]) -> None:
        wrong = edits.problems({"path": edit}, "request")
        if wrong:
            self.found.note(at, f"the path that the service puts in front is not carried over: {wrong[0]}")
            return
        route["transforms"] = [{"name": "", "request": {"path": edit}}]


def _alternatives(pattern: str) -> list[str]:
    """Split at each `|` that is in no group and no class; each keeps the mark of a pattern."""
    mark, depth, is_class, parts = pattern[: pattern.startswith("~")], 0, False, [""]
    for piece in _PIECE.findall(pattern.removeprefix("~")):
        if piece == "|" and not depth and not is_class:
            parts.append("")
            continue
        is_class = piece == "[" or (is_class and piece != "]")
        depth += 0 if is_class else {"(": 1, ")": -1}.get(piece, 0)
        parts[-1] += piece
    return [f"{mark}{part}" for part in parts]
