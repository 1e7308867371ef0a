"""Django's cache in two tiers: this process's memory in front of Redis or Valkey, told by the server what has changed.

    key → L1, while the tracker's lease runs → L2 → L1

A hit in memory needs no network, not for the numbers of its tags either. What another process writes is gone from
memory within milliseconds; while the server cannot tell, memory is not used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.core.cache.backends.base import default_key_func

from . import stats
from .addresses import CLUSTER, parse
from .codec import Meta
from .copies import copying
from .entries import MISSING, Read, number_of
from .l1 import L1, Changing
from .memory import store_of
from .options import Options
from .redis import BrainRedisCache
from .redis_store import RedisStore
from .store import Held, Payload, Store
from .tiered_store import TieredStore
from .tracking import Tracker
from .tracking_cluster import ClusterTracker, dialler, discovery
from .tracking_line import opener


class TieredCache(BrainRedisCache):
    """The CACHES backend. OPTIONS: L1_TTL_S, TRACKER_PING_S, and those of memory and of Redis."""

    is_timed = True  # memory has to know when an entry ends

    store: TieredStore

    def _make_store(self, alias: str, options: Options) -> Store:
        l2: Any = super()._make_store(alias, options)
        l1 = L1(lambda: store_of(alias, options), options.L1_TTL_S)
        # A KEY_FUNCTION of their own may spell keys that do not begin with the prefix: then all keys are listened for.
        prefix = f"{self.key_prefix}:" if self.key_func is default_key_func else ""
        tracker = _tracker(l2, prefix, l1, options, stats.counts(alias))
        copies = copying(options.SERIALIZER) if options.COPY else None
        return TieredStore(l1, l2, tracker, tag_stem=self.tag_key(""), copying=copies)

    def _bind(self, location: Any, params: Mapping[str, Any]) -> None:
        super()._bind(location, params)
        self.store.codec = self.codec
        self._l1, self._tracker = self.store.l1, self.store.tracker
        self._own = copying(self.options.SERIALIZER).loads if self.options.COPY else _itself

    # --- what memory can answer --------------------------------------------------------------------------------------
    def get(self, key: Any, default: Any = None, version: int | None = None, **_: Any) -> Any:
        full = f"{self._stem}{key}" if version is None and self._is_plain else self.full_key(key, version)
        value = self._near(full)
        if value is MISSING:
            return super().get(key, default, version)
        self.counts.add("hits_l1")
        return value

    async def aget(self, key: Any, default: Any = None, version: int | None = None, **_: Any) -> Any:
        full = f"{self._stem}{key}" if version is None and self._is_plain else self.full_key(key, version)
        value = self._near(full)
        if value is MISSING:
            return await super().aget(key, default, version)
        self.counts.add("hits_l1")
        return value

    def has_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        return self._near(self.full_key(key, version)) is not MISSING or super().has_key(key, version)

    async def ahas_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        is_near = self._near(self.full_key(key, version)) is not MISSING
        return is_near or await super().ahas_key(key, version)

    def get_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> dict[Any, Any]:
        found, far = self._nearest(keys, version)
        return found | super().get_many(far, version) if far else found

    async def aget_many(self, keys: Iterable[Any], version: int | None = None, **_: Any) -> dict[Any, Any]:
        found, far = self._nearest(keys, version)
        return found | await super().aget_many(far, version) if far else found

    def read(self, full: str, tags: Sequence[str] = ()) -> Read:
        found = self._near_read(full, tags)
        return super().read(full, tags) if found is None else found

    async def aread(self, full: str, tags: Sequence[str] = ()) -> Read:
        found = self._near_read(full, tags)
        return await super().aread(full, tags) if found is None else found

    # --- parts -------------------------------------------------------------------------------------------------------
    def _near(self, full: str) -> Any:
        """The value, or MISSING: then L2 knows."""
        now = time.monotonic()
        if now >= self._tracker.fresh_until and not self._tracker.look(now):
            return MISSING
        found = self._l1.memory.get(full)
        if type(found) is not Held:
            return MISSING
        meta: Any = found.meta  # memory keeps nothing without
        if meta.tags and not self._is_near_current(meta):
            return MISSING
        return self._own(found.value)

    def _is_near_current(self, meta: Meta) -> bool:
        """Whether memory can say that no tag has been raised."""
        memory = self._l1.memory
        return all(number_of(memory.get(self.tag_key(tag))) == version for tag, version in meta.tags.items())

    def _nearest(self, keys: Iterable[Any], version: int | None) -> tuple[dict[Any, Any], list[Any]]:
        """What memory has, and the keys to ask L2 for."""
        found, far = {}, []
        for key in keys:
            value = self._near(self.full_key(key, version))
            if value is MISSING:
                far.append(key)
            else:
                found[key] = value
        if found:
            self.counts.add("hits_l1", len(found))
        return found, far

    def _near_read(self, full: str, tags: Sequence[str]) -> Read | None:
        now = time.monotonic()
        if now >= self._tracker.fresh_until and not self._tracker.look(now):
            return None
        memory = self._l1.memory
        numbers: Any = {tag: number_of(memory.get(self.tag_key(tag))) for tag in tags}
        found = memory.get(full)
        if type(found) is not Held or None in numbers.values():
            return None
        meta: Any = found.meta
        if not self._is_near_current(meta):
            return None
        return Read(self._own(found.value), meta, True, numbers, "l1")

    def _replaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        with Changing(self._l1, (full,)):
            return super()._replaced(full, old, payload, life_s)

    async def _areplaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        with Changing(self._l1, (full,)):
            return await super()._areplaced(full, old, payload, life_s)

    def _slide(self, full: str, meta: Meta | None) -> None:
        if meta is not None and meta.sliding_s is not None and self.store.slides(full, meta.sliding_s):
            super()._slide(full, meta)

    async def _aslide(self, full: str, meta: Meta | None) -> None:
        if meta is not None and meta.sliding_s is not None and self.store.slides(full, meta.sliding_s):
            await super()._aslide(full, meta)


def _tracker(l2: RedisStore, prefix: str, l1: L1, options: Options, counts: stats.Counts) -> Tracker:
    servers = parse(l2.url)

    def lost() -> None:
        counts.add("tracker_losses")

    if servers.kind == CLUSTER:
        discover = discovery(servers.nodes, dialler(l2.pools))
        return ClusterTracker(discover, prefix, l1, ping_s=options.TRACKER_PING_S, on_loss=lost)
    connect = {name: opener(pool) for name, pool in l2.pools().items()}
    return Tracker(connect, prefix, l1, ping_s=options.TRACKER_PING_S, on_loss=lost)


def _itself(value: Any) -> Any:
    return value
