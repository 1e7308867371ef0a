"""Paths to routes: one normal form of a path, and a tree of nested dicts, one step a segment.

Which of several matching routes gets a request, in this order:

1. The longest path: most segments that the route names. A literal segment counts before a placeholder in its place,
   that before a regex (whose length is that of the whole segments it begins with), that before `{rest...}`, and a
   prefix comes last.
2. The most specific: a host before a wildcard, a longer wildcard before a shorter, that before none; then the one
   with more header conditions.
3. The oldest.

A route that does not take the method leaves the request to the next one of the same path and kind, and never to a shorter path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import re2

T = TypeVar("T")
C = TypeVar("C")

RESERVED = ("/admin", "/gateway", "/api/v1/gateway", "/api/v1/queue", "/api/v1/cache", "/api/v1/database")
KINDS = ("prefix", "exact", "template", "regex")
MAX_PATTERN = 200
ANY_METHOD = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")  # of a route

_ODD = re.compile(rb"[%;\\]|//|/\.")  # without any of these a path is its own normal form
_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})?")
_HIDDEN = frozenset(b"/\\") | frozenset(range(0x20)) | {0x7F}
_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(\.\.\.)?\}")
_PLAIN = re.compile(r"[A-Za-z0-9_~-]+")  # a segment of a pattern that stands for itself
_REMEMBERED, _SHORT_BYTES = 4096, 256  # paths, and how long each may be
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


def check_path(path: str, kind: str) -> str:
    """A route's path in its stored form. Raises ValueError with what is wrong with it."""
    if not path.startswith("/"):
        raise ValueError("a route path starts with '/'")
    if kind == "regex":
        _pattern(path)
        return path
    normal = path.rstrip("/") or "/"
    segments = _segments(normal)
    for i, segment in enumerate(segments):
        _check_segment(segment, kind, is_last=i + 1 == len(segments))
    if is_reserved(normal.encode()):
        raise ValueError(f"{normal} belongs to the platform; reserved are {', '.join(RESERVED)}")
    return normal


def parameters(template: str, path: bytes) -> dict[str, str]:
    """What a normal path has in the places of the template's placeholders."""
    found: dict[str, str] = {}
    given = path[1:].split(b"/")
    for i, segment in enumerate(_segments(template)):
        if segment.endswith("...}"):
            found[segment[1:-4]] = b"/".join(given[i:]).decode("utf-8", "replace")
        elif segment.startswith("{") and i < len(given):
            found[segment[1:-1]] = given[i].decode("utf-8", "replace")
    return found


def placeholders(path: str, kind: str) -> frozenset[str]:
    """The names that `parameters` finds values for."""
    if kind == "regex":
        return frozenset()
    marked = [segment for segment in _segments(path) if segment.startswith("{")]
    return frozenset(segment[1:-1].removesuffix("...") for segment in marked)


def _segments(path: str) -> list[str]:
    return path[1:].split("/") if path != "/" else []


def _check_segment(segment: str, kind: str, *, is_last: bool) -> None:
    if not segment or segment in (".", ".."):
        raise ValueError("a route path has no empty and no dot segments")
    if not set("{}") & set(segment):
        if set("%;?#\\") & set(segment) or not segment.isprintable() or " " in segment:
            raise ValueError(
                f"{segment!r}: write a route path decoded, without '%', ';', '?', '#', '\\' and spaces"
            )
    elif kind == "exact":
        raise ValueError(f"{segment!r}: an exact path has no placeholders; make its kind template")
    elif _PLACEHOLDER.fullmatch(segment) is None:
        raise ValueError(f"{segment!r}: a placeholder is a whole segment, {{name}} or {{name...}}")
    elif segment.endswith("...}") and not is_last:
        raise ValueError(f"{segment!r} must be the last segment")


def _pattern(text: str) -> Any:
    """RE2, as a pattern that an admin wrote must not be able to take exponential time."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        told = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"not a pattern that RE2 takes: {told}") from error


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """hosts, headers: empty for any; header names in lower case. age: the smaller, the older."""

    value: T
    path: str
    kind: str = "prefix"
    hosts: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked besides the path. host: in lower case, without its port. headers: as they came."""

    method: str
    host: str = ""
    headers: Sequence[tuple[bytes, bytes]] = ()

    def has(self, name: bytes, value: bytes) -> bool:
        return any(given == value and header.lower() == name for header, given in self.headers)


class Leaf(Generic[T]):
    """The routes of one path, the most specific first. only: the one that there is, if it has no conditions."""

    __slots__ = ("_rules", "only")

    def __init__(self) -> None:
        self._rules: list[tuple[str, Rule[T]]] = []
        self.only: T | None = None

    def add(self, rule: Rule[T]) -> None:
        self._rules += [(host, rule) for host in rule.hosts or ("",)]
        self._rules.sort(key=_specificity)
        self.only = rule.value if len(self._rules) == 1 and not rule.hosts and not rule.headers else None

    def choose(self, asked: Asked) -> T | None:
        """The first whose conditions hold; of those, one that takes the method if there is one."""
        fitting = self.fitting(asked)
        for rule in fitting:
            if allowed(rule.methods, asked.method):
                return rule.value
        return fitting[0].value if fitting else None

    def fitting(self, asked: Asked) -> list[Rule[T]]:
        return [
            rule
            for host, rule in self._rules
            if is_host(host, asked.host) and all(asked.has(*pair) for pair in rule.headers)
        ]


def _specificity(entry: tuple[str, Rule[Any]]) -> tuple[bool, bool, int, int, float]:
    host, rule = entry
    return not host, host.startswith("*"), -len(host), -len(rule.headers), rule.age


def is_host(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return not pattern or pattern == host


@dataclass(slots=True)
class _Node(Generic[T]):
    """here: for this path and below it. this: for this path alone. below: `{rest...}`, one more segment or more."""

    literal: dict[bytes, _Node[T]] = field(default_factory=dict)
    any: _Node[T] | None = None
    here: Leaf[T] | None = None
    this: Leaf[T] | None = None
    below: Leaf[T] | None = None
    patterns: list[tuple[str, Any, Leaf[T]]] = field(default_factory=list)


class Router(Generic[T]):
    """known: paths whose route depends on nothing else, and is one look-up: those without placeholders, and those that
    were asked for lately. Each is its own normal form, so a path as it came may be looked up here at once."""

    def __init__(self, rules: Iterable[Rule[T]]) -> None:
        """Raises ValueError for a bad path."""
        self._root: _Node[T] = _Node()
        for rule in sorted(rules, key=lambda rule: rule.age):
            self._leaf(check_path(rule.path, rule.kind), rule.kind).add(rule)
        self.known: dict[bytes, T] = {}
        self._gather(self._root, b"")
        self._most_known = len(self.known) + _REMEMBERED

    def _leaf(self, path: str, kind: str) -> Leaf[T]:
        if kind == "regex":
            return self._pattern_leaf(path)
        node = self._root
        for segment in _segments(path):
            if segment.endswith("...}"):
                node.below = node.below or Leaf()
                return node.below
            if segment.startswith("{"):
                node.any = node = node.any or _Node()
            else:
                node = node.literal.setdefault(segment.encode(), _Node())
        if kind == "prefix":
            node.here = node.here or Leaf()
            return node.here
        node.this = node.this or Leaf()
        return node.this

    def _pattern_leaf(self, path: str) -> Leaf[T]:
        node = self._root
        for segment in path[1:].split("/")[:-1]:
            if not _PLAIN.fullmatch(segment):
                break
            node = node.literal.setdefault(segment.encode(), _Node())
        for text, _, leaf in node.patterns:
            if text == path:
                return leaf
        leaf = Leaf[T]()
        node.patterns.append((path, _pattern(path), leaf))
        return leaf

    def _gather(self, node: _Node[T], path: bytes) -> None:
        leaf = node.this or node.here
        if leaf is not None and leaf.only is not None and not node.patterns:  # which may come before it
            self.known[path or b"/"] = leaf.only
        for segment, child in node.literal.items():
            self._gather(child, path + b"/" + segment)

    def match(self, path: bytes, asked: Asked) -> T | None:
        """The route for a path in its normal form, without its query. Look into `known` before."""
        if is_reserved(path):
            return None
        depends = False

        def choose(leaf: Leaf[T]) -> T | None:
            nonlocal depends
            if leaf.only is not None:
                return leaf.only
            depends = True
            return leaf.choose(asked)

        found = self._find(path, choose)
        if found is None:
            return None
        if not depends and len(path) <= _SHORT_BYTES and _ODD.search(path) is None:
            self._remember(path, found[1])
        return found[1]

    def _remember(self, path: bytes, route: T) -> None:
        if len(self.known) >= self._most_known:
            self.known.clear()
            self._gather(self._root, b"")
        self.known[path] = route

    def methods(self, path: bytes, asked: Asked) -> frozenset[str]:
        """What the routes take that a request with this path would meet."""
        found = self._find(path, lambda leaf: leaf.fitting(asked) or None)
        return frozenset().union(*(rule.methods or ANY_METHOD for rule in found[1])) if found else frozenset()

    def _find(self, path: bytes, choose: Callable[[Leaf[T]], C | None]) -> tuple[int, C] | None:
        return _search(self._root, path, path[1:].split(b"/"), 0, choose)


def _search(
    node: _Node[T], path: bytes, segments: list[bytes], depth: int, choose: Callable[[Leaf[T]], C | None]
) -> tuple[int, C] | None:
    """(segments matched, what the leaf chose) of the longest match below this node."""
    best: tuple[int, C] | None = None
    if depth < len(segments):
        segment = segments[depth]
        child = node.literal.get(segment)
        if child is not None:
            best = _search(child, path, segments, depth + 1, choose)
        if node.any is not None and segment and (best is None or best[0] < len(segments)):
            other = _search(node.any, path, segments, depth + 1, choose)
            if other is not None and (best is None or other[0] > best[0]):
                best = other
    if best is not None:
        return best
    chosen = _own(node, path, at_end=depth == len(segments), choose=choose)
    return None if chosen is None else (depth, chosen)


def _own(node: _Node[T], path: bytes, *, at_end: bool, choose: Callable[[Leaf[T]], C | None]) -> C | None:
    if at_end and node.this is not None and (chosen := choose(node.this)) is not None:
        return chosen
    for _, pattern, leaf in node.patterns:
        if pattern.fullmatch(path) and (chosen := choose(leaf)) is not None:
            return chosen
    if not at_end and node.below is not None and (chosen := choose(node.below)) is not None:
        return chosen
    return choose(node.here) if node.here is not None else None


def allowed(methods: frozenset[str], method: str) -> bool:
    """Whether a route with these methods (empty: every usual one) takes this one. HEAD goes wherever GET goes."""
    accepted = methods or ANY_METHOD
    return method in accepted or (method == "HEAD" and "GET" in accepted)
