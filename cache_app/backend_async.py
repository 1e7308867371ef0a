"""Django's cache API over a store: the half for the event loop. Nothing here waits for a thread.

The same rules stand in backend.py for threads; tests/cache_app/test_contract.py holds both to them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .codec import Meta, Unreadable
from .entries import MISSING, Entries, Read, numbers_of
from .store import EXISTING, NEW, Payload, StoreFailed


class AsyncCalls(Entries):
    # --- one key -----------------------------------------------------------------------------------------------------
    async def aget(self, key: Any, default: Any = None, version: int | None = None, **_: Any) -> Any:
        value = await self._aget(self.full_key(key, version))
        if value is MISSING:
            self.counts.add("misses")
            return default
        self.counts.add(self._hits)
        return value

    async def aset(
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
        full, only = self.full_key(key, version), self._only(nx, xx)
        try:
            return await self._aset(full, value, self._life_s(timeout, jitter), tags, sliding, only)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> bool:
        return await self.aset(key, value, timeout, version, nx=True, **options)

    async def adelete(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return await self._adelete_many([self.full_key(key, version)]) > 0

    async def ahas_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return await self._aget(self.full_key(key, version)) is not MISSING

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **_: Any
    ) -> bool:
        try:
            return await self._atouch(self.full_key(key, version), self._life_s(timeout))
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    async def aexpire(self, key: Any, timeout: Any, version: int | None = None, **_: Any) -> bool:
        return await self.atouch(key, timeout, version)

    async def apersist(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return await self.atouch(key, None, version)

    async def attl(self, key: Any, version: int | None = None, **_: Any) -> int | None:
        left_s = await self.attl_s(key, version)
        return None if left_s == float("inf") else int(left_s + 0.999)

    async def attl_s(self, key: Any, version: int | None = None) -> float:
        full = self.full_key(key, version)
        try:
            left_s = await self.store.attl_s(full)
            if left_s is None:
                return 0.0
            meta = self._open(full, await self.store.aget(full))[1]
            if meta is not None and await self._ais_dead(meta):
                return 0.0
        except StoreFailed as failed:
            return float(self._failed(failed, 0.0))
        return self._left_s(left_s, meta)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        try:
            value = await self.store.aincr(self.full_key(key, version), delta)
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        if value is None:
            raise ValueError(f"Key {key!r} not found")
        return value

    async def adecr(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        return await self.aincr(key, -delta, version)

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        old = self.version if version is None else version
        left_s = await self.attl_s(key, old)
        value = await self._aget(self.full_key(key, old))
        if value is MISSING or not left_s:
            raise ValueError(f"Key {key!r} not found")
        await self.aset(key, value, None if left_s == float("inf") else left_s, old + delta, jitter=0.0)
        await self.adelete(key, old)
        return int(old + delta)

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """default: a value, a callable, or a coroutine function."""
        from .loading import aget_or_set  # it stands on this module

        return await aget_or_set(self, key, default, timeout, version)

    # --- many keys ---------------------------------------------------------------------------------------------------
    async def aget_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> dict[Any, Any]:
        asked = {self.full_key(key, version): key for key in keys}
        if not asked:
            return {}
        began = time.perf_counter()
        try:
            payloads = await self.store.aget_many(list(asked))
        except StoreFailed as failed:
            payloads = [self._last_known(failed, full) for full in asked]
        if self.is_remote:
            self._fetched("get_many", next(iter(asked)), began, payloads)
        opened = {full: self._open(full, payload) for full, payload in zip(asked, payloads, strict=True)}
        found = {asked[full]: value for full, value in (await self._astill_good(opened)).items()}
        self.counts.add(self._hits, len(found))
        self.counts.add("misses", len(asked) - len(found))
        return found

    async def aset_many(
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
        if not data:
            return []
        began = time.perf_counter()
        try:
            versions = await self._aversions(tags) if tags else None
            items = [
                self._item(
                    self.full_key(key, version), value, self._life_s(timeout, jitter), versions, sliding
                )
                for key, value in data.items()
            ]
            await self._astore_items(items)
        except StoreFailed as failed:
            return list(self._failed(failed, list(data)))
        if self.is_remote:
            self._took("set_many", items[0][0], began)
        return []

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> int:
        return await self._adelete_many([self.full_key(key, version) for key in keys])

    async def aclear(self, **_: Any) -> bool:
        try:
            for pattern in self.everything():
                await self.store.adelete_matching(pattern)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))
        return True

    async def adelete_pattern(self, pattern: str, version: int | None = None, **_: Any) -> int:
        try:
            removed = await self.store.adelete_matching(self.pattern(pattern, version))
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        self.counts.add("deletes", removed)
        return removed

    async def aiter_keys(
        self, pattern: str = "*", version: int | None = None, **_: Any
    ) -> AsyncIterator[str]:
        try:
            async for full in self.store.ascan(self.pattern(pattern, version)):
                yield self.own_key(full, version)
        except StoreFailed as failed:
            self._failed(failed, None)

    async def akeys(self, pattern: str = "*", version: int | None = None, **_: Any) -> list[str]:
        return [key async for key in self.aiter_keys(pattern, version)]

    # --- tags --------------------------------------------------------------------------------------------------------
    async def ainvalidate_tags(self, *tags: str) -> bool:
        if not tags:
            return True
        try:
            await self.store.araise_versions([self.tag_key(tag) for tag in tags])
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))
        self.counts.add("invalidations", len(tags))
        return True

    # --- what loading asks -------------------------------------------------------------------------------------------
    async def aread(self, full: str, tags: Sequence[str] = ()) -> Read:
        began = time.perf_counter()
        numbers: dict[str, int | None] = {}
        if tags:
            tag_keys = [self.tag_key(tag) for tag in tags]
            payload, *found = await self.store.aget_many([full, *tag_keys])
            numbers = await self._acompleted(tag_keys, found)
        else:
            payload = await self.store.aget(full)
        if self.is_remote:
            self._fetched("get", full, began, (payload,))
        value, meta = self._open(full, payload)
        if value is not MISSING and not tags and (meta is None or not (meta.tags or meta.sliding_s)):
            return Read(value, meta, True, {}, self.tier)
        versions = {tag: numbers[self.tag_key(tag)] or 0 for tag in tags}
        if value is MISSING or (meta is not None and not await self._atags_hold(meta, numbers)):
            return Read(None, None, False, versions, self.tier)
        await self._aslide(full, meta)
        return Read(value, meta, True, versions, self.tier)

    async def awrite(
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
        payload, kept_s = self._to_write(full, value, ttl_s, keep_s, load_s, versions, sliding, jitter)
        began = time.perf_counter()
        await self.store.aset(full, payload, kept_s)
        if self.is_remote:
            self._took("set", full, began)
        self._wrote(payload)
        return self._open(full, payload)[0]

    # --- parts -------------------------------------------------------------------------------------------------------
    async def _aget(self, full: str) -> Any:
        began = time.perf_counter() if self.is_remote else 0.0
        try:
            payload = await self.store.aget(full)
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
        return await self._aif_good(full, value, meta)

    async def _aif_good(self, full: str, value: Any, meta: Meta) -> Any:
        if self._is_over(meta):
            return MISSING
        try:
            if not await self._atags_hold(meta, {}):
                return MISSING
            await self._aslide(full, meta)
        except StoreFailed as failed:
            return self._failed(failed, value if self.options.ON_DOWN == "stale" else MISSING)
        return value

    async def _astill_good(self, opened: Mapping[str, tuple[Any, Meta | None]]) -> dict[str, Any]:
        there = self._there(opened)
        tag_keys = self._foreign_tags(meta for _, meta in there.values())
        try:
            numbers = numbers_of(tag_keys, await self.store.aget_many(tag_keys)) if tag_keys else {}
            for full, (_, meta) in there.items():
                await self._aslide(full, meta)
        except StoreFailed as failed:
            return self._unconfirmed(failed, there)
        return self._confirmed(there, numbers)

    async def _atags_hold(self, meta: Meta, known: Mapping[str, int | None]) -> bool:
        unknown = [key for key in self._foreign_tags([meta]) if key not in known]
        more = numbers_of(unknown, await self.store.aget_many(unknown)) if unknown else {}
        return self._is_current(meta, {**known, **more})

    async def _acompleted(
        self, tag_keys: list[str], found: Sequence[Payload | None]
    ) -> dict[str, int | None]:
        numbers = numbers_of(tag_keys, found)
        missing = [key for key, number in numbers.items() if number is None]
        if missing:
            numbers.update(zip(missing, await self.store.aversions(missing), strict=True))
        return numbers

    async def _aslide(self, full: str, meta: Meta | None) -> None:
        if meta is not None and meta.sliding_s is not None:
            await self.store.aexpire(full, meta.sliding_s)

    async def _aset(
        self, full: str, value: Any, life_s: float | None, tags: Sequence[str], sliding: bool, only: str
    ) -> bool:
        if life_s is not None and life_s <= 0:
            return await self._aover_at_once(full, only)
        began = time.perf_counter() if self.is_remote else 0.0
        versions = await self._aversions(tags) if tags else None
        payload = self._pack(full, value, self._meta(value, life_s, versions, sliding))
        done = await self.store.aset(full, payload, life_s, only=only)
        if not done and only == NEW:
            done = await self._atook_place(full, payload, life_s)
        if self.is_remote:
            self._took("set", full, began)
        if done:
            self._wrote(payload)
        return done

    async def _aover_at_once(self, full: str, only: str) -> bool:
        if only == NEW:
            return (await self._avacant(full))[0]
        return await self.store.adelete_many([full]) > 0 or only != EXISTING

    async def _atook_place(self, full: str, payload: Payload, life_s: float | None) -> bool:
        """What answers nobody (its tag has moved on, it cannot be read) is no reason to refuse a new one."""
        is_vacant, left = await self._avacant(full)
        if not is_vacant:
            return False
        if left is None:
            return await self.store.aset(full, payload, life_s, only=NEW)
        return await self._areplaced(full, left, payload, life_s)

    async def _avacant(self, full: str) -> tuple[bool, Payload | None]:
        """Whether a reader finds nothing there, and what stands there all the same."""
        try:
            payload = await self._astored(full)
        except Unreadable:  # a set or a hash: not ours to replace
            return False, None
        value, meta = self._open(full, payload)
        if value is MISSING or meta is None:
            return value is MISSING, payload
        return await self._ais_dead(meta), payload

    async def _ais_dead(self, meta: Meta) -> bool:
        """Its life is over, or a tag of it has moved on."""
        return self._is_over(meta) or not await self._atags_hold(meta, {})

    async def _astored(self, full: str) -> Payload | None:
        """As it is in the store that all processes share."""
        return await self.store.aget(full)

    async def _areplaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        """Put it in the place of `old`. False: something else stands there by now. Redis does it in one step."""
        if await self._astored(full) != old:
            return False
        return await self.store.aset(full, payload, life_s, only=EXISTING)

    async def _aversions(self, tags: Sequence[str]) -> dict[str, int]:
        numbers = await self.store.aversions(self._tag_keys(tags))
        return dict(zip(tags, numbers, strict=True))

    async def _atouch(self, full: str, life_s: float | None) -> bool:
        if life_s is not None and life_s <= 0:
            return await self.store.adelete_many([full]) > 0
        old = await self._astored(full)
        value, meta = self._open(full, old)
        if old is None or value is MISSING or (meta is not None and await self._ais_dead(meta)):
            return False
        if meta is None or meta.expires_at is None:
            return await self.store.aexpire(full, life_s)
        payload = self._pack(full, value, self._relived(meta, life_s))
        await self._areplaced(full, old, payload, life_s)  # if not, another write came after this touch
        return True

    async def _astore_items(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        over, kept = self._sorted(items)
        if over:
            await self.store.adelete_many(over)
        await self.store.aset_many(kept)
        self._wrote_many(kept)

    async def _adelete_many(self, full: list[str]) -> int:
        if not full:
            return 0
        try:
            removed = await self.store.adelete_many(full)
        except StoreFailed as failed:
            return int(self._failed(failed, 0))
        self.counts.add("deletes", removed)
        return removed
