"""Paths to routes: one normal form of a path, and a router of nested dicts, one step a segment.

A route's path matches itself and everything below it, on a segment boundary: `/api/v1/tasks` also serves
`/api/v1/tasks/17`. `{id}` stands for one segment, `{rest...}` (last) for one or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

RESERVED = ("/admin", "/gateway", "/api/v1/gateway", "/api/v1/queue", "/api/v1/cache", "/api/v1/database")
ANY_METHOD = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_ODD = re.compile(rb"[%;\\]|//|/\.")  # without any of these a path is its own normal form
_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})?")
_HIDDEN = frozenset(b"/\\") | frozenset(range(0x20)) | {0x7F}
_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(\.\.\.)?\}")
_RESERVED = tuple(path.encode() for path in RESERVED)
_BELOW_RESERVED = tuple(path + b"/" for path in _RESERVED)


class BadPath(ValueError):
    """The path could mean two things to two programs, so nobody is asked what it means."""


def normalise(path: bytes) -> bytes:
    """The path that routes are matched against: percent-decoded once, parameters (`;x=1`) cut off.

    Refused, for each could slip past a more specific route: dot segments, empty segments, encoded slashes and
    control characters, backslashes, broken percent triplets. Raises BadPath. RFC 3986 section 6.2.2.
    """
    if path[:1] != b"/":
        raise BadPath("a path starts with '/'")
    if _ODD.search(path) is None:
        return path
    if b"\\" in path:
        raise BadPath("a backslash in the path")
    segments = [_TRIPLET.sub(_decode, segment.partition(b";")[0]) for segment in path[1:].split(b"/")]
    if any(segment in (b".", b"..") for segment in segments):
        raise BadPath("a dot segment in the path")
    if b"" in segments[:-1] or (segments[-1] == b"" and not path.endswith(b"/")):
        raise BadPath("an empty segment in the path")
    return b"/" + b"/".join(segments)


def _decode(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise BadPath("a broken percent escape in the path")
    byte = int(match[1], 16)
    if byte in _HIDDEN:
        raise BadPath("an encoded slash or control character in the path")
    return bytes((byte,))


def is_reserved(path: bytes) -> bool:
    """Whether a normal path belongs to the platform itself."""
    return path in _RESERVED or path.startswith(_BELOW_RESERVED)


def check_template(template: str) -> str:
    """The route path in its stored form. Raises ValueError with what is wrong with it."""
    if not template.startswith("/"):
        raise ValueError("a route path starts with '/'")
    path = template.rstrip("/") or "/"
    segments = path[1:].split("/") if path != "/" else []
    for i, segment in enumerate(segments):
        if not segment or segment in (".", ".."):
            raise ValueError("a route path has no empty and no dot segments")
        if not set("{}") & set(segment):
            if set("%;?#\\") & set(segment) or not segment.isprintable() or " " in segment:
                raise ValueError(
                    f"{segment!r}: write a route path decoded, without '%', ';', '?', '#', '\\' and spaces"
                )
        elif _PLACEHOLDER.fullmatch(segment) is None:
            raise ValueError(f"{segment!r}: a placeholder is a whole segment, {{name}} or {{name...}}")
        elif segment.endswith("...}") and i + 1 < len(segments):
            raise ValueError(f"{segment!r} must be the last segment")
    if is_reserved(path.encode()):
        raise ValueError(f"{path} belongs to the platform; reserved are {', '.join(RESERVED)}")
    return path


@dataclass(slots=True)
class _Node(Generic[T]):
    literal: dict[bytes, _Node[T]] = field(default_factory=dict)
    any: _Node[T] | None = None
    here: T | None = None
    below: T | None = None  # {rest...}: at least one more segment


class Router(Generic[T]):
    """The longest match wins: most segments; of two equally long ones, the one with the earlier literal
    segment."""

    def __init__(self, routes: Iterable[tuple[str, T]]) -> None:
        """Raises ValueError for a bad template and for two that match the same paths."""
        self._root: _Node[T] = _Node()
        self._exact: dict[bytes, T] = {}  # templates without a placeholder: one look-up
        for template, route in routes:
            self._add(check_template(template), route)

    def _add(self, path: str, route: T) -> None:
        node, plain = self._root, True
        for segment in path[1:].split("/") if path != "/" else []:
            if segment.endswith("...}"):
                if node.below is not None:
                    raise ValueError(f"{path} matches the same paths as another route")
                node.below = route
                return
            if segment.startswith("{"):
                plain = False
                node.any = node = node.any or _Node()
            else:
                node = node.literal.setdefault(segment.encode(), _Node())
        if node.here is not None:
            raise ValueError(f"{path} matches the same paths as another route")
        node.here = route
        if plain:
            self._exact[path.encode()] = route

    def match(self, path: bytes) -> T | None:
        """The route for a path in its normal form, without its query."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        if is_reserved(path):
            return None
        found = self._search(self._root, path[1:].split(b"/"), 0)
        return found[1] if found else None

    def _search(self, node: _Node[T], segments: list[bytes], depth: int) -> tuple[int, T] | None:
        best: tuple[int, T] | None = None
        if depth < len(segments):
            segment = segments[depth]
            child = node.literal.get(segment)
            if child is not None:
                best = self._search(child, segments, depth + 1)
            if node.any is not None and segment and (best is None or best[0] < len(segments)):
                other = self._search(node.any, segments, depth + 1)
                if other is not None and (best is None or other[0] > best[0]):
                    best = other
            if best is None and node.below is not None:
                best = (depth, node.below)
        if best is None and node.here is not None:
            best = (depth, node.here)
        return best


def allowed(methods: frozenset[str], method: str) -> bool:
    """Whether a route with these methods (empty: every usual one) takes this one. HEAD goes wherever GET
    goes."""
    accepted = methods or ANY_METHOD
    return method in accepted or (method == "HEAD" and "GET" in accepted)
