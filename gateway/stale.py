"""Good answers kept for the time when no target is left (RFC 5861 section 4, stale-if-error), bounded by bytes.

One process's, and one caller's: what was answered to somebody is never given to somebody else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from .headers import Headers

MAX_BYTES = 33_554_432  # of all bodies together
MAX_BODY_BYTES = 262_144
_VARIES_BY = frozenset((b"accept", b"accept-encoding", b"accept-language", b"authorization", b"origin"))

Key = tuple[str, str, bytes, bytes, tuple[bytes, ...]]
"""Route, caller, host, request target, and the headers that an answer may vary by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """kept_at: monotonic seconds."""

    headers: Headers
    body: bytes
    kept_at: float


def key(route: str, caller: str, host: bytes, uri: bytes, fields: Headers) -> Key:
    given = {name.lower(): value for name, value in fields}
    return route, caller, host, uri, tuple(given.get(name, b"") for name in sorted(_VARIES_BY))


def may_be_kept(status: int, fields: Headers) -> bool:
    """Whether the answer's own headers leave it to us."""
    if status != 200:
        return False
    for name, value in fields:
        lower = name.lower()
        if lower == b"set-cookie" or (lower == b"cache-control" and b"no-store" in value.lower()):
            return False
        if lower == b"vary" and not _listed(value) <= _VARIES_BY:
            return False
    return True


def _listed(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


class Answers:
    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._most_bytes, self._bytes = most_bytes, 0

    def keep(self, name: Key, answer: Answer) -> None:
        if len(answer.body) > MAX_BODY_BYTES:
            return
        known = self._answers.pop(name, None)
        self._bytes += len(answer.body) - (len(known.body) if known is not None else 0)
        self._answers[name] = answer
        while self._bytes > self._most_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.body)

    def find(self, name: Key, oldest_s: float, now: float) -> Answer | None:
        """One that is no older than oldest_s."""
        answer = self._answers.get(name)
        return answer if answer is not None and now - answer.kept_at <= oldest_s else None
