"""Edits of lists of named values: headers and the parameters of a query.

In this order: remove, rename, replace (where it is present), set (whether or not), add (where it is absent),
append (one more). Of a name that is renamed to one that is there already, the renamed one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, quote_plus

from .heads import Headers, RequestHead, ResponseHead, form_decoded
from .templates import Template

Item = TypeVar("Item")  # of the list: a header, or a parameter as it was written
Pairs = list[tuple[bytes, Item]]  # the name that is compared, and the item
Values = tuple[
    tuple[bytes, bytes, Template], ...
]  # the name that is compared, the name that is written, the value

# Everything that a header can carry goes as it is (RFC 9110 section 5.5).
_HEADER_SAFE = bytes(range(0x20, 0x7F)).decode()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to one list. removed: names. renamed: old name → new one as compared and as written."""

    removed: frozenset[bytes] = frozenset()
    renamed: Mapping[bytes, tuple[bytes, bytes]] | None = None
    replaced: Values = ()
    set: Values = ()
    added: Values = ()
    appended: Values = ()


@dataclass(frozen=True, slots=True)
class PairEdit(Generic[Item]):
    """make: a new item of a name and a value. rename: the item under another name."""

    plan: Plan
    make: Callable[[bytes, str], Item]
    rename: Callable[[bytes, Item], Item]

    def edited(self, pairs: Pairs[Item], request: RequestHead, response: ResponseHead | None) -> list[Item]:
        plan = self.plan
        pairs = [pair for pair in pairs if pair[0] not in plan.removed]
        if plan.renamed:
            pairs = self._renamed(pairs, plan.renamed)
        for name, written, template in plan.replaced:
            if any(pair[0] == name for pair in pairs):
                pairs = [pair for pair in pairs if pair[0] != name]
                self._append(pairs, name, written, template.render(request, response))
        for name, written, template in plan.set:
            # Without a value too: what the client sent under this name is not to be taken for ours.
            pairs = [pair for pair in pairs if pair[0] != name]
            self._append(pairs, name, written, template.render(request, response))
        for name, written, template in plan.added:
            if not any(pair[0] == name for pair in pairs):
                self._append(pairs, name, written, template.render(request, response))
        for name, written, template in plan.appended:
            self._append(pairs, name, written, template.render(request, response))
        return [item for _, item in pairs]

    def _renamed(self, pairs: Pairs[Item], renamed: Mapping[bytes, tuple[bytes, bytes]]) -> Pairs[Item]:
        taken = {renamed[name][0] for name, _ in pairs if name in renamed}
        if not taken:
            return pairs
        made: Pairs[Item] = []
        for name, item in pairs:
            if name in renamed:
                new, written = renamed[name]
                made.append((new, self.rename(written, item)))
            elif name not in taken:
                made.append((name, item))
        return made

    def _append(self, pairs: Pairs[Item], name: bytes, written: bytes, value: str | None) -> None:
        if value is not None:
            pairs.append((name, self.make(written, value)))


def header_edit(plan: Plan) -> PairEdit[tuple[bytes, bytes]]:
    return PairEdit(plan, lambda name, value: (name, value.encode()), lambda name, header: (name, header[1]))


def header_pairs(headers: Headers) -> Pairs[tuple[bytes, bytes]]:
    return [(header[0].lower(), header) for header in headers]


def query_edit(plan: Plan) -> PairEdit[bytes]:
    return PairEdit(plan, _parameter, _renamed_parameter)


def query_pairs(query: bytes) -> Pairs[bytes]:
    """Parameters that no edit names keep their spelling."""
    return [(form_decoded(item.partition(b"=")[0]), item) for item in query.split(b"&")] if query else []


def header_value(source: str, value: str) -> str:
    """A placeholder's value as a part of a header: control characters, line ends above all, and what is not ASCII
    are percent-encoded."""
    if not (value.isascii() and value.isprintable()):
        value = quote(value, safe=_HEADER_SAFE, errors="replace")
    return value.strip(" ")


def _parameter(name: bytes, value: str) -> bytes:
    return quote_plus(name).encode() + b"=" + quote_plus(value, errors="replace").encode()


def _renamed_parameter(name: bytes, item: bytes) -> bytes:
    _, equals, value = item.partition(b"=")
    return quote_plus(name).encode() + equals + value
