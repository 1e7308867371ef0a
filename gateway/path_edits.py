"""Another path for the target: cut, prefixed, rewritten by a pattern or put together from a template.

Patterns are RE2's, which take linear time whatever is written and whatever comes in; Python's `re` can take
exponential time, on the loop that serves everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import re2

from . import templates
from .heads import RequestHead, text_of
from .routing import BadPath, normalise

MAX_PATTERN = 256
PathEdit = Callable[[RequestHead], bytes]

_SEGMENT = "!$&'()*+,=:@~"  # RFC 3986 section 3.3, without the `;` that begins a parameter
_SOURCES = templates.REQUEST


def check_prefix(text: str) -> bytes:
    """A literal beginning of paths. Raises ValueError."""
    if not text.startswith("/") or text.endswith("/") or set("?#{}") & set(text) or not _is_visible(text):
        raise ValueError("a prefix is /a/path without a slash at its end")
    normalise(text.encode())
    return text.encode()


def move(strip: bytes, add: bytes) -> PathEdit:
    """Takes `strip` off, on a segment boundary and however it is escaped, then puts `add` in front."""
    depth = strip.count(b"/")

    def edit(request: RequestHead) -> bytes:
        path = request.path
        if strip:
            if path.startswith(strip) and path[len(strip) : len(strip) + 1] in (b"", b"/"):
                path = path[len(strip) :]
            elif normalise(path).split(b"/")[: depth + 1] == strip.split(b"/"):
                path = b"".join(b"/" + segment for segment in path.split(b"/")[depth + 1 :])
            else:
                return path
        return add + path or b"/"

    return edit


def from_template(text: str) -> tuple[PathEdit, templates.Template]:
    """Raises ValueError. The edit leaves the path alone when a placeholder has no value, and raises BadPath for a
    value that would lead elsewhere: dot segments, slashes."""
    _check_start(text)
    template = _parsed(text, _SOURCES)

    def edit(request: RequestHead) -> bytes:
        made = template.render(request)
        return request.path if made is None else _checked(made.encode())

    return edit, template


def by_pattern(pattern: str, text: str) -> tuple[PathEdit, templates.Template]:
    """What the pattern matches, from the start of the path, is replaced by the template, in which {1} or {name} is a
    group. Raises ValueError; the edit raises BadPath."""
    matcher = compiled(pattern)
    _check_start(text, or_empty=True)
    if "\\" in text:
        raise ValueError("a backslash in a path; a group is written {1} or {name}")
    template = _parsed(text, _SOURCES | {"group"})
    groups = {str(i): i for i in range(1, matcher.groups + 1)}
    groups |= {name.decode(): i for name, i in matcher.groupindex.items()}
    for source, name in template.names:
        if source == "group" and name not in groups:
            raise ValueError(f"the pattern has no group {name!r}")
    used = {name: groups[name] for source, name in template.names if source == "group"}

    def edit(request: RequestHead) -> bytes:
        match = matcher.match(request.path)
        if match is None:
            return request.path
        found = {name: text_of(match.group(i) or b"") for name, i in used.items()}
        made = template.render(request, None, found)
        return request.path if made is None else _checked(made.encode() + request.path[match.end() :])

    return edit, template


def compiled(pattern: str) -> Any:
    """RE2's pattern of bytes. Raises ValueError."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        told = error.args[0] if error.args else error
        raise ValueError(
            f"no pattern for RE2: {told.decode() if isinstance(told, bytes) else told}"
        ) from error


def _parsed(text: str, sources: frozenset[str]) -> templates.Template:
    template = templates.parse(text, sources, _escape)
    # Broken escapes and dot segments in its own text would otherwise fail every request.
    normalise("".join(part if isinstance(part, str) else "x" for part in template.parts or ("/",)).encode())
    return template


def _check_start(text: str, *, or_empty: bool = False) -> None:
    if not text.startswith("/") and (text or not or_empty):
        raise ValueError("a path starts with '/'")
    if set("?#") & set(text) or not _is_visible(text):
        raise ValueError("a path has no '?', '#', spaces or characters that need escaping")


def _is_visible(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _checked(path: bytes) -> bytes:
    path = path if path[:1] == b"/" else b"/" + path
    try:
        normalise(path)
    except BadPath as error:
        raise BadPath(f"the rewritten path: {error}") from error
    return path


def _escape(source: str, value: str) -> str:
    # A group is a piece of the path, escaped as it came; `{rest...}` may hold slashes, no other value may.
    return value if source == "group" else quote(value, safe=_SEGMENT + "/" * (source == "path"))
