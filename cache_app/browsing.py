"""Looking into a cache: its keys page by page, one entry with what it says about itself, and how big things are.

Changes nothing and uses nothing up: what is looked at keeps its place in the order of eviction where the store can tell.
"""

from __future__ import annotations

import heapq
import json
import math
from dataclasses import dataclass, replace
from typing import Any

from foundation import audit

from . import addresses
from .backend import BrainCache
from .codec import Description, Meta, Unreadable
from .connections import default_url
from .entries import number_of, wall_s
from .shelves import HEAD_BYTES, Keys, RedisShelf, Shelf, Slot, StoreShelf, all_pages, chunks, link_of
from .store import Held

PAGE = 50
LONGEST_PAGE = 500
LONGEST_PATTERN = 500  # characters
ANY_VERSION = "*"
_PREVIEW_BYTES = 256 * 1024  # stored; larger entries are not read for a preview
_PREVIEW_CHARACTERS = 20_000
_COUNTED = 200_000  # keys of the database that are looked at for a count; more are extrapolated
_GLANCED = 20_000  # the same for a figure that pages ask for every few seconds
_SAMPLED = 20  # keys that a preview of a deletion names
_WEIGHED = 2_000  # keys among which the biggest are looked for
_WHY = {
    "corrupt": "It is damaged: reading it is a miss.",
    "foreign": "It is not in a form of ours: reading it is a miss.",
    "signature": "It is not signed by one of the alias' keys: reading it is a miss.",
    "refused": "It is a pickle, which this alias does not read.",
}
_PICKLE = "It is a pickle. Reading one runs code, so it is not shown."


@dataclass(frozen=True, slots=True)
class Row:
    """An entry in a list. key, version: what the full key is made of. ttl_s: of the store, infinite = for ever.

    left_s: of its life, which may end before the store lets go of it. kind: "string", or another type of Redis'.
    """

    full: str
    key: str
    version: str
    ttl_s: float | None
    left_s: float | None
    size_bytes: int
    memory_bytes: int | None
    serializer: str
    compressor: str | None
    is_signed: bool
    is_timed: bool
    kind: str
    meta: Meta | None = None

    @property
    def is_over(self) -> bool:
        return self.left_s == 0.0

    @property
    def codec(self) -> str:
        """In a few words: "json, zstd, signed, timed"."""
        if self.kind != "string":
            return self.kind
        words = [self.serializer, self.compressor or ""]
        words += [name for name, holds in (("signed", self.is_signed), ("timed", self.is_timed)) if holds]
        return ", ".join(word for word in words if word)

    def document(self) -> dict[str, Any]:
        """As JSON; null for "for ever"."""
        return {
            "key": self.key,
            "version": self.version,
            "full_key": self.full,
            "ttl_s": _finite(self.ttl_s),
            "left_s": _finite(self.left_s),
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory_bytes,
            "serializer": self.serializer if self.kind == "string" else self.kind,
            "compressor": self.compressor,
            "is_signed": self.is_signed,
            "is_timed": self.is_timed,
        }


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[Row]
    cursor: str  # "" after the last page
    pattern: str  # of full keys, as it was looked for


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    version: int  # when the entry was stored
    holds: bool  # else it was invalidated since


@dataclass(frozen=True, slots=True)
class Preview:
    """text: as JSON, secrets masked; "" when there is none, and then `why`."""

    text: str = ""
    why: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    row: Row
    stored_at: float | None
    expires_at: float | None
    load_s: float | None
    sliding_s: float | None
    tags: list[Tag]
    preview: Preview

    @property
    def is_served(self) -> bool:
        """Whether a read would find it."""
        return not self.row.is_over and all(tag.holds for tag in self.tags)

    def document(self) -> dict[str, Any]:
        return {
            **self.row.document(),
            "stored_at": self.stored_at,
            "expires_at": self.expires_at,
            "load_s": self.load_s,
            "sliding_s": self.sliding_s,
            "tags": {tag.name: {"version": tag.version, "holds": tag.holds} for tag in self.tags},
            "is_served": self.is_served,
        }


@dataclass(frozen=True, slots=True)
class Matching:
    """What a pattern means. is_exact: all keys were looked at; else `count` is reckoned from a part of them."""

    pattern: str
    count: int
    is_exact: bool
    sample: list[str]  # own keys


def shelf_of(cache: BrainCache) -> Shelf:
    link = link_of(cache)
    return StoreShelf(cache.store) if link is None else RedisShelf(link)


def is_of_platform(cache: BrainCache) -> bool:
    """Whether it shares its servers with CACHES["default"], and so with locks, limits and the queue."""
    url = getattr(getattr(cache.store, "l2", cache.store), "url", None)
    return url is not None and addresses.parse(url).name == addresses.parse(default_url()).name


def pattern_of(cache: BrainCache, asked: str, version: str = "") -> str:
    """The glob of full keys. asked: a glob or a prefix of own keys. version: "" = the alias', "*" = all of them."""
    own = asked if any(sign in asked for sign in "*?[") else f"{asked}*"
    return cache.pattern(own, version or None)  # type: ignore[arg-type]


def page(cache: BrainCache, asked: str = "", version: str = "", cursor: str = "", size: int = PAGE) -> Page:
    """Raises ValueError for a cursor that is none; StoreFailed or redis.RedisError."""
    shelf, pattern = shelf_of(cache), pattern_of(cache, asked, version)
    keys = shelf.page(pattern, cursor, size)
    slots = shelf.slots(sorted(keys.found))
    return Page([row_of(cache, slot) for slot in slots if slot.head is not None], keys.cursor, pattern)


def look(cache: BrainCache, key: str, version: str = "", *, is_masked: bool = True) -> Entry | None:
    """One entry, None where there is none. is_masked: secrets in its value are not shown."""
    shelf, full = shelf_of(cache), full_of(cache, key, version)
    slot = shelf.slots([full])[0]
    if slot.head is None:
        return None
    if isinstance(slot.head, bytes) and len(slot.head) == HEAD_BYTES:
        slot = replace(slot, head=shelf.payload(full, _PREVIEW_BYTES) or slot.head)  # it may have many tags
    row = row_of(cache, slot)
    meta = row.meta
    return Entry(
        row=row,
        stored_at=meta.stored_at if meta else None,
        expires_at=meta.expires_at if meta else None,
        load_s=meta.load_s if meta and meta.load_s else None,
        sliding_s=meta.sliding_s if meta else None,
        tags=_tags(cache, meta),
        preview=_preview(cache, row, slot, is_masked),
    )


def full_of(cache: BrainCache, key: str, version: str = "") -> str:
    return cache.full_key(key, version or None)  # type: ignore[arg-type]


def matching(cache: BrainCache, asked: str, version: str = "") -> Matching:
    """How many keys a pattern means, and some of them."""
    pattern = cache.pattern(asked, version or None)  # type: ignore[arg-type]
    shelf = shelf_of(cache)
    count, is_exact, sample = _counted(shelf, pattern, _COUNTED)
    return Matching(pattern, count, is_exact, [_parts(cache, full)[1] for full in sample])


def count(cache: BrainCache) -> tuple[int, bool]:
    """Keys under the alias' prefix, and whether all keys were looked at."""
    return _counted(shelf_of(cache), cache.pattern("*", ANY_VERSION), _GLANCED)[:2]  # type: ignore[arg-type]


def biggest(cache: BrainCache, most: int = 10) -> tuple[list[Row], int]:
    """The biggest among the first keys of the alias, and among how many of them."""
    shelf, found = shelf_of(cache), list[str]()
    for some in all_pages(shelf, cache.pattern("*", ANY_VERSION), _COUNTED, 500):  # type: ignore[arg-type]
        found += some.found
        if len(found) >= _WEIGHED:
            break
    found = found[:_WEIGHED]
    slots = [slot for chunk in chunks(found, 200) for slot in shelf.slots(chunk) if slot.head is not None]
    top = heapq.nlargest(most, slots, key=lambda slot: slot.memory_bytes or slot.size_bytes)
    return [row_of(cache, slot) for slot in top], len(found)


def row_of(cache: BrainCache, slot: Slot) -> Row:
    version, key = _parts(cache, slot.full)
    if isinstance(slot.head, Held):
        found = Description("object", None, False, slot.head.meta is not None, 0, slot.head.meta)
    else:
        found = cache.codec.describe(slot.head or b"")
    return Row(
        full=slot.full,
        key=key,
        version=version,
        ttl_s=slot.ttl_s,
        left_s=_left_s(slot.ttl_s, found.meta),
        size_bytes=slot.size_bytes,
        memory_bytes=slot.memory_bytes,
        serializer=found.serializer,
        compressor=found.compressor,
        is_signed=found.is_signed,
        is_timed=found.is_timed,
        kind=slot.kind,
        meta=found.meta,
    )


def _parts(cache: BrainCache, full: str) -> tuple[str, str]:
    """Version and own key."""
    version, _, key = full.removeprefix(f"{cache.key_prefix}:").partition(":")
    return version, key


def _left_s(ttl_s: float | None, meta: Meta | None) -> float | None:
    if ttl_s is None or meta is None or meta.expires_at is None:
        return ttl_s
    return max(0.0, min(ttl_s, meta.expires_at - wall_s()))


def _tags(cache: BrainCache, meta: Meta | None) -> list[Tag]:
    if meta is None or not meta.tags:
        return []
    names = sorted(meta.tags)
    numbers = cache.store.get_many([cache.tag_key(name) for name in names])
    return [
        Tag(name, meta.tags[name], number_of(number) == meta.tags[name])
        for name, number in zip(names, numbers, strict=True)
    ]


def _preview(cache: BrainCache, row: Row, slot: Slot, is_masked: bool) -> Preview:
    if row.kind != "string":
        return Preview(why=f"It is a {row.kind} of Redis', which no cache reads.")
    if row.serializer == "pickle":
        return Preview(why=_PICKLE)
    if slot.size_bytes > _PREVIEW_BYTES:
        return Preview(why=f"It has {slot.size_bytes:,} bytes, too many to show.")
    if isinstance(slot.head, Held):
        value = slot.head.value
    else:
        try:
            value, _ = cache.codec.decode(row.full, slot.head or b"")
        except Unreadable as error:
            return Preview(why=_WHY.get(error.reason, error.reason))
    return _shown(row.key, value, is_masked)


def _shown(key: str, value: Any, is_masked: bool) -> Preview:
    # A bare string under "user:1:token" is a secret by its key's last part.
    name = key.rpartition(":")[2]
    try:
        safe = audit.mask({name: value})[name] if is_masked else value
        text = json.dumps(safe, indent=2, ensure_ascii=False, default=_told)
    except (RecursionError, ValueError, TypeError):
        return Preview(why="It is nested too deeply to show.")
    return Preview(text[:_PREVIEW_CHARACTERS], is_cut=len(text) > _PREVIEW_CHARACTERS)


def _told(value: Any) -> Any:
    """What JSON has no form for."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def in_words(count: int, is_exact: bool = True) -> str:
    """ "1 key", "about 1,234 keys" """
    return f"{'' if is_exact else 'about '}{count:,} key{'' if count == 1 else 's'}"


def _counted(shelf: Shelf, pattern: str, most: int) -> tuple[int, bool, list[str]]:
    found, examined, sample = 0, 0, list[str]()
    last = Keys([], "", 0)
    for last in all_pages(shelf, pattern, most):
        found, examined = found + len(last.found), examined + last.examined
        sample += last.found[: _SAMPLED - len(sample)]
    if not last.cursor:
        return found, True, sorted(sample)
    return round(found * max(1.0, shelf.total() / max(1, examined))), False, sorted(sample)


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds
