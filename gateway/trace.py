"""W3C Trace Context: the caller's `traceparent` goes on with a span of ours, or a new trace begins here."""

from __future__ import annotations

import re
from collections.abc import Callable

_VALID = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

_FLAGS = 0b11  # sampled; and random, of level 2

Random = Callable[[int], int]  # random.getrandbits


def carry_on(given: bytes | None, bits: Random) -> bytes:
    """The header for the target. What is not valid is not carried on (section 3.2.2.4 of the recommendation)."""
    match = _match(given)
    if match is None:
        return b"00-%016x%016x-%016x-01" % (bits(64) or 1, bits(64), bits(64) or 1)
    # The other flags mean nothing yet, and who passes them on must clear them (section 3.2.2.5).
    return b"00-%b-%016x-%02x" % (match[2], bits(64) or 1, int(match[4], 16) & _FLAGS)


def is_valid(given: bytes | None) -> bool:
    """Whether `carry_on` goes on with it. Only then does the caller's `tracestate` (section 3.3)."""
    return _match(given) is not None


def trace_id(header: bytes) -> str:
    return header[3:35].decode("latin-1")


def _match(given: bytes | None) -> re.Match[bytes] | None:
    match = _VALID.fullmatch(given) if given is not None else None
    return match if match is not None and _means_something(match) else None


def _means_something(match: re.Match[bytes]) -> bool:
    if match[1] == b"ff" or (match[1] == b"00" and match[5] is not None):
        return False
    return match[2] != b"0" * 32 and match[3] != b"0" * 16
