"""One claim: the command that asks for messages, and what its reply says."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .scripts import CLAIM


class Claimed(NamedTuple):
    """A message that this process holds: it is in `unacked` under its tag. list_key: where it lay, prefix included."""

    tag: str
    queue: str
    list_key: str
    raw: bytes

    def delivered(self) -> Claimed:
        """What is kept of it from then on: the message has its envelope."""
        return Claimed(self.tag, self.queue, self.list_key, b"")


@dataclass(frozen=True, slots=True)
class Claim:
    """want: messages at most. lists: keys of the queues' lists in the order of `queues`, the most urgent step first.

    held_keys: unacked_index, unacked, parked, parked_counts. shared: the queues of one step share what is wanted.
    """

    queues: tuple[str, ...]
    want: int
    shared: bool
    held_keys: tuple[str, ...]
    wake_keys: tuple[str, ...]
    lists: tuple[str, ...]

    def arguments(self) -> tuple[str | int, ...]:
        """What follows EVAL."""
        keys = (*self.held_keys, *self.wake_keys, *self.lists)
        return CLAIM, len(keys), *keys, self.want, len(self.queues), int(self.shared), *self.queues

    def left_nothing(self, reply: Sequence[int | bytes]) -> bool:
        """Whether it got less than it wanted, and so has left nothing behind."""
        return int(reply[0]) < self.want

    def messages(self, reply: Sequence[int | bytes]) -> deque[Claimed]:
        found = zip(reply[1::3], reply[2::3], reply[3::3], strict=True)
        return deque(self._claimed(int(at), bytes(tag), bytes(raw)) for at, tag, raw in found)

    def _claimed(self, at: int, tag: bytes, raw: bytes) -> Claimed:
        queue = self.queues[at % len(self.queues)]
        return Claimed(tag.decode(errors="surrogateescape"), queue, self.lists[at], raw)


_ENTRY = re.compile(rb'\A\[(.*), "(?:[^"\\]|\\.)*", ("(?:[^"\\]|\\.)*")\]\Z', re.DOTALL)


def unacked_entry(entry: bytes) -> tuple[str, bytes]:
    """Queue (or routing key) and envelope of an entry of `unacked` whose envelope is not JSON."""
    found = _ENTRY.match(entry)
    if found is None:
        return "", entry
    return str(json.loads(found[2])), found[1]
