"""Good answers kept for the time when no target is left (RFC 5861 section 4, stale-if-error), bounded by bytes.

One process's, and one caller's: what was answered to somebody is never given to somebody else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from .headers import Headers

MAX_BYTES = 33_554_432  # of all answers together
MAX_BODY_BYTES = 262_144
_VARIES_BY = frozenset(
    (b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cookie", b"origin")
)
# The last three forbid what this is for (RFC 9111 section 4.2.4).
_NOT_OURS = frozenset((b"no-store", b"private", b"no-cache", b"must-revalidate", b"proxy-revalidate"))

Key = tuple[str, str, bytes, bytes, tuple[bytes, ...]]
"""Route, caller, host, request target, and the headers that an answer may vary by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """kept_at: monotonic seconds."""

    headers: Headers
    body: bytes
    kept_at: float


def key(route: str, caller: str, host: bytes, uri: bytes, fields: Headers) -> Key:
    """host: that the client asked for. Of a header that comes twice both values count."""
    given: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        given.setdefault(name.lower(), []).append(value)
    varied = tuple(b"\n".join(given.get(name, ())) for name in sorted(_VARIES_BY))
    return route, caller, host, uri, varied


def may_be_kept(status: int, fields: Headers) -> bool:
    """Whether the answer's own headers leave it to us."""
    if status != 200:
        return False
    for name, value in fields:
        lower = name.lower()
        if lower == b"set-cookie":
            return False
        if lower == b"cache-control" and not _NOT_OURS.isdisjoint(_directives(value)):
            return False
        if lower == b"vary" and not _listed(value) <= _VARIES_BY:
            return False
    return True


def _listed(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


def _directives(value: bytes) -> frozenset[bytes]:
    """Without their arguments: private="x" keeps a header back that we would give."""
    return frozenset(word.partition(b"=")[0].strip() for word in _listed(value))


def _size(name: Key, answer: Answer) -> int:
    """Bytes, about: what a key and a header weigh beside their text is a constant."""
    fields = sum(len(field) + len(value) + 100 for field, value in answer.headers)
    return len(answer.body) + fields + sum(map(len, name[4])) + len(name[2]) + len(name[3]) + 500


class Answers:
    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._most_bytes, self._bytes = most_bytes, 0

    def keep(self, name: Key, answer: Answer) -> None:
        if len(answer.body) > MAX_BODY_BYTES:
            return
        known = self._answers.pop(name, None)
        self._bytes += _size(name, answer) - (_size(name, known) if known is not None else 0)
        self._answers[name] = answer
        while self._bytes > self._most_bytes:
            self._bytes -= _size(*self._answers.popitem(last=False))

    def find(self, name: Key, oldest_s: float, now: float) -> Answer | None:
        """One that is no older than oldest_s."""
        answer = self._answers.get(name)
        return answer if answer is not None and now - answer.kept_at <= oldest_s else None
