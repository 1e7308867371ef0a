"""Which names are one issuer's: what was taken back under one of them is refused under all.

A document or a rollback renames by letting one go and making another, so nothing but the key says that they are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

SECRET, KEY, SET = "secret", "key", "set"


@dataclass(frozen=True, slots=True)
class Known:
    """An issuer as it is or was once configured. name: ours. mark: `marked` of its key, "" where nobody can read that.
    issuer: the `iss` that it requires, "": none. is_ours: it signs our own tokens, or did."""

    name: str
    mark: str
    issuer: str = ""
    is_ours: bool = False


def marked(algorithm: str, kind: str, told: str) -> str:
    """kind: SECRET, KEY or SET. told: what is the same for the same key, and no secret."""
    return f"{algorithm} {kind} {told}"


def groups(known: Iterable[Known]) -> list[frozenset[str]]:
    """The names that are of one issuer, where it has more than one: those that a token of the same key could come from, and
    all that ever signed our own, as our users are the same under each of our keys. A key set may hold any key, so with one
    of them the same `iss` is enough."""
    joined = _Joined()
    by_mark = defaultdict[str, list[Known]](list)
    by_claim = defaultdict[tuple[str, str], list[Known]](list)
    for one in known:
        joined.join(one.name, "ours") if one.is_ours else joined.join(one.name)
        if one.mark:
            by_mark[one.mark].append(one)
            if one.issuer:
                by_claim[one.mark.partition(" ")[0], one.issuer].append(one)
    for mark, those in by_mark.items():
        takes_any = any(not one.issuer for one in those)
        for one in those:
            joined.join(one.name, ("mark", mark, "" if takes_any else one.issuer))
    for claim, those in by_claim.items():
        if any(one.mark.split(" ", 2)[1] == SET for one in those):
            for one in those:
                joined.join(one.name, ("claim", claim))
    return joined.names()


class _Joined:
    """Sets that grow together. Names, and what they have in common."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def join(self, name: str, common: Hashable = None) -> None:
        one, other = self._top(("name", name)), self._top(("common", common) if common else ("name", name))
        self._above[one] = other

    def names(self) -> list[frozenset[str]]:
        found = defaultdict[Hashable, set[str]](set)
        for node in list(self._above):
            if isinstance(node, tuple) and node[0] == "name":
                found[self._top(node)].add(node[1])
        return [frozenset(names) for names in found.values() if len(names) > 1]

    def _top(self, node: Hashable) -> Hashable:
        self._above.setdefault(node, node)
        while self._above[node] != node:
            node = self._above[node]
        return node
