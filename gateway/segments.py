"""A part of a token: canonical base64url (RFC 7515 section 2) of a JSON object that every parser reads alike.

Refused are padding, white space, bits that decoding throws away, duplicate members, numbers that are not
finite, lone surrogates and bytes that are not UTF-8.
"""

from __future__ import annotations

import json
import math
from binascii import a2b_base64, b2a_base64
from typing import Any

import orjson

# base64url → base64; what only plain base64 has becomes invalid
_TO_PLAIN = bytes(0 if c in b"+/=" else {45: 43, 95: 47}.get(c, c) for c in range(256))
_TO_URL = bytes({43: 45, 47: 95}.get(c, c) for c in range(256))
_PADDING = (b"", None, b"==", b"=")
# The characters that a last group of 2 or 3 may end with: the others differ in bits that are thrown away.
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


class Malformed(ValueError):
    """The message says what is wrong, without a byte of the input."""


def encode64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode64(segment: bytes) -> bytes:
    """Raises Malformed."""
    left = len(segment) & 3
    padding = _PADDING[left]
    if padding is None or (left and segment[-1] not in _LAST[left]):
        raise Malformed("not canonical base64url")
    try:
        return a2b_base64(segment.translate(_TO_PLAIN) + padding, strict_mode=True)
    except ValueError as error:
        raise Malformed("not base64url") from error


def members(text: bytes) -> dict[str, Any]:
    """The members of a JSON object, as `members_strictly` reads them but eight times as fast. Raises Malformed.

    orjson refuses all that is to be refused except a duplicate member, of which it keeps the last. What it
    writes holds each member once: where that is the text again, byte for byte, the text does too. Any other
    spelling (white space, escapes, 1.0e3) is left to the slow parser.
    """
    try:
        found = orjson.loads(text)
        if type(found) is dict and orjson.dumps(found) == text:
            return found
    except (ValueError, TypeError) as error:  # TypeError: deeper than it writes
        raise Malformed("not JSON") from error
    return members_strictly(text)


def members_strictly(text: bytes) -> dict[str, Any]:
    """Raises Malformed. Integers beyond 64 bits become floats, as other readers make of them."""
    try:
        found = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
        orjson.dumps(found)  # refuses a lone surrogate, and more than 254 levels
    except Malformed:
        raise
    except (ValueError, TypeError, RecursionError) as error:  # UnicodeError and JSONDecodeError: ValueErrors
        raise Malformed("not JSON") from error
    if type(found) is not dict:
        raise Malformed("not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # two parsers may disagree on which one counts
        raise Malformed("a member is there twice")
    return found


def _refuse(constant: str) -> None:
    raise Malformed(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed("not a finite number")
    return number


def _integer(text: str) -> int | float:
    if len(text) > 20:
        return _finite(text)
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else float(text)
