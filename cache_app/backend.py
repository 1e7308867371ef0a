"""Django's cache API over a store: the half for threads, and what both halves add to it (tags, namespaces, locks)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .backend_async import AsyncCalls
from .codec import Meta, Unreadable
from .entries import MISSING, Read, numbers_of
from .store import EXISTING, NEW, Payload, StoreFailed

if TYPE_CHECKING:
    from .namespaces import Namespace


class BrainCache(AsyncCalls):
    """All of Django's cache API. timeout: seconds, None = for ever, 0 or less = over at once.

    What the store cannot do raises, is ignored, or is answered by the last known value: OPTIONS["ON_DOWN"].
    """

    # --- one key -----------------------------------------------------------------------------------------------------
    def get(self, key: Any, default: Any = None, version: int | None = None, **_: Any) -> Any:
        value = self._get(self.full_key(key, version))
        if value is MISSING:
            self.counts.add("misses")
            return default
        self.counts.add(self._hits)
        return value

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Sequence[str] = (),
        sliding: bool = False,
        jitter: float | None = None,
        nx: bool = False,
        xx: bool = False,
        client: Any = None,
    ) -> bool:
        """False: there was one already (nx), there was none (xx), or the store is down and that is ignored.

        tags: invalidating any of them ends the entry. sliding: each read begins its life anew.
        jitter: share of the timeout that is taken off at random; default OPTIONS["JITTER"]. client: django-redis'; unused.
        """
        full, only = self.full_key(key, version), self._only(nx, xx)
        try:
            return self._set(full, value, self._life_s(timeout, jitter), tags, sliding, only)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> bool:
        return self.set(key, value, timeout, version, nx=True, **options)

    def delete(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return self._delete_many([self.full_key(key, version)]) > 0

    def has_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return self._get(self.full_key(key, version)) is not MISSING

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **_: Any) -> bool:
        """False: there is no such key."""
        try:
            return self._touch(self.full_key(key, version), self._life_s(timeout))
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    def expire(self, key: Any, timeout: Any, version: int | None = None, **_: Any) -> bool:
        return self.touch(key, timeout, version)

    def persist(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return self.touch(key, None, version)

    def ttl(self, key: Any, version: int | None = None, **_: Any) -> int | None:
        """Whole seconds left. None: for ever. 0: there is no such key."""
        left_s = self.ttl_s(key, version)
        return None if left_s == float("inf") else int(left_s + 0.999)

    def ttl_s(self, key: Any, version: int | None = None) -> float:
        """Seconds left; infinite: for ever; 0.0: there is no such key."""
        full = self.full_key(key, version)
        try:
            left_s = self.store.ttl_s(full)
            if left_s is None:
                return 0.0
            meta = self._open(full, self.store.get(full))[1]
            if meta is not None and self._is_dead(meta):
                return 0.0
        except StoreFailed as failed:
            return float(self._failed(failed, 0.0))
        return self._left_s(left_s, meta)

    def incr(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        """Atomic, and the key keeps its life. Raises ValueError for a missing key and for what is no integer."""
        try:
            value = self.store.incr(self.full_key(key, version), delta)
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        if value is None:
            raise ValueError(f"Key {key!r} not found")
        return value

    def decr(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        return self.incr(key, -delta, version)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        """Move the value to another version, with what is left of its life. Raises ValueError for a missing key."""
        old = self.version if version is None else version
        left_s = self.ttl_s(key, old)
        value = self._get(self.full_key(key, old))
        if value is MISSING or not left_s:
            raise ValueError(f"Key {key!r} not found")
        self.set(key, value, None if left_s == float("inf") else left_s, old + delta, jitter=0.0)
        self.delete(key, old)
        return old + delta

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """default: a value, or what makes one; of many callers in this process that miss, one calls it."""
        from .loading import get_or_set  # it stands on this module

        return get_or_set(self, key, default, timeout, version)

    # --- many keys ---------------------------------------------------------------------------------------------------
    def get_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> dict[Any, Any]:
        """The ones that are there, in one round trip."""
        asked = {self.full_key(key, version): key for key in keys}
        if not asked:
            return {}
        began = time.perf_counter()
        try:
            payloads = self.store.get_many(list(asked))
        except StoreFailed as failed:
            payloads = [self._last_known(failed, full) for full in asked]
        if self.is_remote:
            self._fetched("get_many", next(iter(asked)), began, payloads)
        opened = {full: self._open(full, payload) for full, payload in zip(asked, payloads, strict=True)}
        found = {asked[full]: value for full, value in self._still_good(opened).items()}
        self.counts.add(self._hits, len(found))
        self.counts.add("misses", len(asked) - len(found))
        return found

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Sequence[str] = (),
        sliding: bool = False,
        jitter: float | None = None,
        client: Any = None,
    ) -> list[Any]:
        """In one round trip, with tags in two. Returns the keys that could not be stored."""
        if not data:
            return []
        began = time.perf_counter()
        try:
            versions = self._versions(tags) if tags else None
            items = [
                self._item(
                    self.full_key(key, version), value, self._life_s(timeout, jitter), versions, sliding
                )
                for key, value in data.items()
            ]
            self._store_items(items)
        except StoreFailed as failed:
            return list(self._failed(failed, list(data)))
        if self.is_remote:
            self._took("set_many", items[0][0], began)
        return []

    def delete_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> int:
        """How many there were."""
        return self._delete_many([self.full_key(key, version) for key in keys])

    def clear(self, **_: Any) -> bool:
        """Remove what stands under KEY_PREFIX, in every version, and nothing else."""
        try:
            for pattern in self.everything():
                self.store.delete_matching(pattern)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))
        return True

    def delete_pattern(self, pattern: str, version: int | None = None, **_: Any) -> int:
        """pattern: a glob of keys, without prefix and version. How many were removed."""
        try:
            removed = self.store.delete_matching(self.pattern(pattern, version))
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        self.counts.add("deletes", removed)
        return removed

    def iter_keys(self, pattern: str = "*", version: int | None = None, **_: Any) -> Iterator[str]:
        try:
            for full in self.store.scan(self.pattern(pattern, version)):
                yield self.own_key(full, version)
        except StoreFailed as failed:
            self._failed(failed, None)

    def keys(self, pattern: str = "*", version: int | None = None, **_: Any) -> list[str]:
        return list(self.iter_keys(pattern, version))

    # --- tags, namespaces, locks -------------------------------------------------------------------------------------
    def invalidate_tags(self, *tags: str) -> bool:
        """End every entry under any of them, in one step each. False: the store is down and that is ignored."""
        if not tags:
            return True
        try:
            self.store.raise_versions([self.tag_key(tag) for tag in tags])
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))
        self.counts.add("invalidations", len(tags))
        return True

    def namespace(self, name: str) -> Namespace:
        """A view of this cache whose keys begin with `name:` and can be ended in one step."""
        from .namespaces import Namespace  # it stands on this module

        return Namespace(self, name)

    def lock(self, name: str, **options: Any) -> Any:
        """As `cache_lock`, kept where this cache keeps its values."""
        raise TypeError(f"{type(self).__name__} has no locks")

    # --- what loading asks -------------------------------------------------------------------------------------------
    def read(self, full: str, tags: Sequence[str] = ()) -> Read:
        """In one round trip; raises StoreFailed, whatever the policy. An entry whose tags have moved on is not there."""
        began = time.perf_counter()
        numbers: dict[str, int | None] = {}
        if tags:
            tag_keys = [self.tag_key(tag) for tag in tags]
            payload, *found = self.store.get_many([full, *tag_keys])
            numbers = self._completed(tag_keys, found)
        else:
            payload = self.store.get(full)
        if self.is_remote:
            self._fetched("get", full, began, (payload,))
        value, meta = self._open(full, payload)
        if value is not MISSING and not tags and (meta is None or not (meta.tags or meta.sliding_s)):
            return Read(value, meta, True, {}, self.tier)
        versions = {tag: numbers[self.tag_key(tag)] or 0 for tag in tags}
        if value is MISSING or (meta is not None and not self._tags_hold(meta, numbers)):
            return Read(None, None, False, versions, self.tier)
        self._slide(full, meta)
        return Read(value, meta, True, versions, self.tier)

    def write(
        self,
        full: str,
        value: Any,
        *,
        ttl_s: float | None,
        keep_s: float = 0.0,
        load_s: float = 0.0,
        versions: Mapping[str, int] | None = None,
        sliding: bool = False,
        jitter: float | None = None,
    ) -> Any:
        """Store what took load_s to make; returns it as a hit will give it. Raises StoreFailed and Uncacheable.

        ttl_s: its life. keep_s: for how much longer it may serve where making a new one fails.
        versions: of its tags, read before it was made.
        """
        payload, kept_s = self._to_write(full, value, ttl_s, keep_s, load_s, versions, sliding, jitter)
        began = time.perf_counter()
        self.store.set(full, payload, kept_s)
        if self.is_remote:
            self._took("set", full, began)
        self._wrote(payload)
        return self._open(full, payload)[0]

    # --- parts -------------------------------------------------------------------------------------------------------
    def _get(self, full: str) -> Any:
        began = time.perf_counter() if self.is_remote else 0.0
        try:
            payload = self.store.get(full)
        except StoreFailed as failed:
            payload = self._last_known(failed, full)
        except Unreadable as error:
            self._unreadable(error)
            return MISSING
        if self.is_remote:
            self._fetched("get", full, began, (payload,))
        value, meta = self._open(full, payload)
        if meta is None:
            return value
        return self._if_good(full, value, meta)

    def _if_good(self, full: str, value: Any, meta: Meta) -> Any:
        if self._is_over(meta):
            return MISSING
        try:
            if not self._tags_hold(meta, {}):
                return MISSING
            self._slide(full, meta)
        except StoreFailed as failed:  # the value came, what would confirm it did not
            return self._failed(failed, value if self.options.ON_DOWN == "stale" else MISSING)
        return value

    def _still_good(self, opened: Mapping[str, tuple[Any, Meta | None]]) -> dict[str, Any]:
        there = self._there(opened)
        tag_keys = self._foreign_tags(meta for _, meta in there.values())
        try:
            numbers = numbers_of(tag_keys, self.store.get_many(tag_keys)) if tag_keys else {}
            for full, (_, meta) in there.items():
                self._slide(full, meta)
        except StoreFailed as failed:
            return self._unconfirmed(failed, there)
        return self._confirmed(there, numbers)

    def _tags_hold(self, meta: Meta, known: Mapping[str, int | None]) -> bool:
        unknown = [key for key in self._foreign_tags([meta]) if key not in known]
        more = numbers_of(unknown, self.store.get_many(unknown)) if unknown else {}
        return self._is_current(meta, {**known, **more})

    def _completed(self, tag_keys: list[str], found: Sequence[Payload | None]) -> dict[str, int | None]:
        """The numbers, made where they are missing: an entry stored under none could come back after its tag's end."""
        numbers = numbers_of(tag_keys, found)
        missing = [key for key, number in numbers.items() if number is None]
        if missing:
            numbers.update(zip(missing, self.store.versions(missing), strict=True))
        return numbers

    def _slide(self, full: str, meta: Meta | None) -> None:
        if meta is not None and meta.sliding_s is not None:
            self.store.expire(full, meta.sliding_s)

    def _set(
        self, full: str, value: Any, life_s: float | None, tags: Sequence[str], sliding: bool, only: str
    ) -> bool:
        if life_s is not None and life_s <= 0:
            return self._over_at_once(full, only)
        began = time.perf_counter() if self.is_remote else 0.0
        versions = self._versions(tags) if tags else None
        payload = self._pack(full, value, self._meta(value, life_s, versions, sliding))
        done = self.store.set(full, payload, life_s, only=only)
        if not done and only == NEW:
            done = self._took_place(full, payload, life_s)
        if self.is_remote:
            self._took("set", full, began)
        if done:
            self._wrote(payload)
        return done

    def _over_at_once(self, full: str, only: str) -> bool:
        if only == NEW:
            return (self._vacant(full))[0]
        return self.store.delete_many([full]) > 0 or only != EXISTING

    def _took_place(self, full: str, payload: Payload, life_s: float | None) -> bool:
        """What answers nobody (its tag has moved on, it cannot be read) is no reason to refuse a new one."""
        is_vacant, left = self._vacant(full)
        if not is_vacant:
            return False
        if left is None:
            return self.store.set(full, payload, life_s, only=NEW)
        return self._replaced(full, left, payload, life_s)

    def _vacant(self, full: str) -> tuple[bool, Payload | None]:
        """Whether a reader finds nothing there, and what stands there all the same."""
        try:
            payload = self._stored(full)
        except Unreadable:  # a set or a hash: not ours to replace
            return False, None
        value, meta = self._open(full, payload)
        if value is MISSING or meta is None:
            return value is MISSING, payload
        return self._is_dead(meta), payload

    def _is_dead(self, meta: Meta) -> bool:
        """Its life is over, or a tag of it has moved on."""
        return self._is_over(meta) or not self._tags_hold(meta, {})

    def _stored(self, full: str) -> Payload | None:
        """As it is in the store that all processes share."""
        return self.store.get(full)

    def _replaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        """Put it in the place of `old`. False: something else stands there by now. Redis does it in one step."""
        if self._stored(full) != old:
            return False
        return self.store.set(full, payload, life_s, only=EXISTING)

    def _versions(self, tags: Sequence[str]) -> dict[str, int]:
        numbers = self.store.versions(self._tag_keys(tags))
        return dict(zip(tags, numbers, strict=True))

    def _touch(self, full: str, life_s: float | None) -> bool:
        if life_s is not None and life_s <= 0:
            return self.store.delete_many([full]) > 0
        old = self._stored(full)
        value, meta = self._open(full, old)
        if old is None or value is MISSING or (meta is not None and self._is_dead(meta)):
            return False
        if meta is None or meta.expires_at is None:
            return self.store.expire(full, life_s)
        payload = self._pack(full, value, self._relived(meta, life_s))
        self._replaced(full, old, payload, life_s)  # if not, another write came after this touch
        return True

    def _store_items(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        over, kept = self._sorted(items)
        if over:
            self.store.delete_many(over)
        self.store.set_many(kept)
        self._wrote_many(kept)

    def _delete_many(self, full: list[str]) -> int:
        if not full:
            return 0
        try:
            removed = self.store.delete_many(full)
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        self.counts.add("deletes", removed)
        return removed
