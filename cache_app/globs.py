"""Redis' glob rules in Python, byte for byte: what SCAN MATCH finds in Valkey, memory and file caches find as well."""

from __future__ import annotations

import re
from collections.abc import Callable

_ANYTHING, _NOTHING = b".", b"(?!)"


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A test of whole keys: `*`, `?`, `[abc]`, `[^a]`, `[a-z]` and `\\x` as in Redis' stringmatchlen.

    `?` and a class stand for one byte of the key's UTF-8, as in Redis. Takes time linear in the key for every pattern:
    after a `*` the leftmost place of the next piece is the only one that is tried (an atomic group), so that a page
    on which people type patterns cannot be stalled by `*a*a*a*b` (CVE-2022-36021 was this in Redis).
    """
    found = re.compile(_expression(_pieces(_encoded(pattern))), re.DOTALL).fullmatch
    return lambda key: found(_encoded(key)) is not None


def literal_prefix(pattern: str) -> str:
    """What every matching key begins with: the text before the first `*`, `?` or `[`, unescaped."""
    text, position = [], 0
    while position < len(pattern) and pattern[position] not in "*?[":
        if pattern[position] == "\\" and position + 1 < len(pattern):
            position += 1
        text.append(pattern[position])
        position += 1
    return "".join(text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _expression(pieces: list[bytes]) -> bytes:
    if len(pieces) == 1:
        return pieces[0]
    first, *between, last = pieces
    return first + b"".join(b"(?>.*?%b)" % piece for piece in between if piece) + b".*" + last


def _pieces(pattern: bytes) -> list[bytes]:
    """The expressions between the stars, each for a fixed number of bytes."""
    pieces, position = [b""], 0
    while position < len(pattern):
        sign = pattern[position : position + 1]
        if sign == b"*":
            pieces.append(b"")
        elif sign == b"?":
            pieces[-1] += _ANYTHING
        elif sign == b"[":
            expression, position = _one_of(pattern, position + 1)
            pieces[-1] += expression
            continue
        else:
            if sign == b"\\" and position + 1 < len(pattern):
                position += 1
            pieces[-1] += re.escape(pattern[position : position + 1])
        position += 1
    return pieces


def _one_of(pattern: bytes, position: int) -> tuple[bytes, int]:
    """The class that begins at `position`, and where the pattern goes on. An unclosed one reaches to the end, and `]`
    may end a range (`[a-]`): Redis' rules, which no regular expression has."""
    is_negated = pattern[position : position + 1] == b"^"
    position += is_negated
    members: set[int] = set()
    while position < len(pattern):
        sign, left = pattern[position], len(pattern) - position
        if sign == ord("\\") and left >= 2:
            members.add(pattern[position + 1])
            position += 2
        elif sign == ord("]"):
            position += 1
            break
        elif left >= 3 and pattern[position + 1] == ord("-"):
            low, high = sorted((_signed(sign), _signed(pattern[position + 2])))
            members.update(byte & 0xFF for byte in range(low, high + 1))
            position += 3
        else:
            members.add(sign)
            position += 1
    return _class(members, is_negated), position


def _signed(byte: int) -> int:
    """Ranges compare C's plain chars, which are signed where Redis is usually built (x86)."""
    return byte - 256 if byte > 127 else byte


def _class(members: set[int], is_negated: bool) -> bytes:
    if not members:
        return _ANYTHING if is_negated else _NOTHING
    listed = b"".join(re.escape(bytes([member])) for member in sorted(members))
    return b"[%b%b]" % (b"^" if is_negated else b"", listed)
