"""Memory (L1) in front of a shared store (L2), kept right by a tracker. Reads go to L2 and fill L1; writes go through.

What memory holds is asked first by TieredCache, on its short way; here it is asked for the numbers of tags only. A
value that is read in order to be written again must be the shared one.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from .codec import Codec, Meta, Uncacheable, Unreadable
from .copies import Copying
from .entries import wall_s
from .l1 import L1, Changing, Flushing, life_s
from .memory import estimate_bytes
from .store import Held, Payload, Store
from .tracking import Tracker

_l1s: weakref.WeakSet[L1] = weakref.WeakSet()
_SLIDING_MAX = 10_000  # keys whose last touch is known; when there are more, some are touched sooner


class TieredStore:
    """tag_stem: what the keys of tag numbers begin with. copying: None = memory holds the values that it hands out.

    codec: set by whoever made the store, before it is read from.
    """

    codec: Codec

    def __init__(
        self,
        l1: L1,
        l2: Store,
        tracker: Tracker,
        *,
        tag_stem: str,
        copying: Copying | None,
    ) -> None:
        self.l1, self.l2, self.tracker = l1, l2, tracker
        self._tag_stem, self._copying = tag_stem, copying
        self._touched: dict[str, float] = {}
        self.last_known: Callable[[str], Payload | None] | None = getattr(l2, "last_known", None)
        _l1s.add(l1)

    # --- reading -----------------------------------------------------------------------------------------------------
    def near(self, key: str) -> Payload | None:
        """What memory holds, while it is known to be right: the number of a tag, or an entry in memory's form."""
        now = time.monotonic()
        if now >= self.tracker.fresh_until and not self.tracker.look(now):
            return None
        return self.l1.memory.get(key)

    def get(self, key: str) -> Payload | None:
        token = self._token(key)
        return self._kept(key, self.l2.get(key), token)

    async def aget(self, key: str) -> Payload | None:
        token = self._token(key)
        return self._kept(key, await self.l2.aget(key), token)

    def get_many(self, keys: Sequence[str]) -> list[Payload | None]:
        found, asked = self._numbers(keys)
        tokens = [self._token(key) for key in asked]
        return self._joined(keys, found, asked, tokens, self.l2.get_many(asked) if asked else [])

    async def aget_many(self, keys: Sequence[str]) -> list[Payload | None]:
        found, asked = self._numbers(keys)
        tokens = [self._token(key) for key in asked]
        return self._joined(keys, found, asked, tokens, await self.l2.aget_many(asked) if asked else [])

    def versions(self, keys: Sequence[str]) -> list[int]:
        found, asked = self._numbers(keys)
        tokens = [self._token(key) for key in asked]
        return self._joined_numbers(keys, found, asked, tokens, self.l2.versions(asked) if asked else [])

    async def aversions(self, keys: Sequence[str]) -> list[int]:
        found, asked = self._numbers(keys)
        tokens = [self._token(key) for key in asked]
        numbers = await self.l2.aversions(asked) if asked else []
        return self._joined_numbers(keys, found, asked, tokens, numbers)

    def ttl_s(self, key: str) -> float | None:
        return self.l2.ttl_s(key)

    async def attl_s(self, key: str) -> float | None:
        return await self.l2.attl_s(key)

    def scan(self, pattern: str) -> Iterator[str]:
        return self.l2.scan(pattern)

    def ascan(self, pattern: str) -> AsyncIterator[str]:
        return self.l2.ascan(pattern)

    # --- writing -----------------------------------------------------------------------------------------------------
    # Nothing is put into memory: the tracker will tell of this write too, and take it out again.
    def set(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        with Changing(self.l1, (key,)):
            return self.l2.set(key, payload, ttl_s, only=only)

    async def aset(self, key: str, payload: Payload, ttl_s: float | None, *, only: str = "") -> bool:
        with Changing(self.l1, (key,)):
            return await self.l2.aset(key, payload, ttl_s, only=only)

    def set_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        with Changing(self.l1, [key for key, _, _ in items]):
            self.l2.set_many(items)

    async def aset_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        with Changing(self.l1, [key for key, _, _ in items]):
            await self.l2.aset_many(items)

    def delete_many(self, keys: Sequence[str]) -> int:
        with Changing(self.l1, keys):
            return self.l2.delete_many(keys)

    async def adelete_many(self, keys: Sequence[str]) -> int:
        with Changing(self.l1, keys):
            return await self.l2.adelete_many(keys)

    def incr(self, key: str, delta: int) -> int | None:
        with Changing(self.l1, (key,)):
            return self.l2.incr(key, delta)

    async def aincr(self, key: str, delta: int) -> int | None:
        with Changing(self.l1, (key,)):
            return await self.l2.aincr(key, delta)

    def expire(self, key: str, ttl_s: float | None) -> bool:
        with Changing(self.l1, (key,)):
            return self.l2.expire(key, ttl_s)

    async def aexpire(self, key: str, ttl_s: float | None) -> bool:
        with Changing(self.l1, (key,)):
            return await self.l2.aexpire(key, ttl_s)

    def raise_versions(self, keys: Sequence[str]) -> None:
        with Changing(self.l1, keys):
            self.l2.raise_versions(keys)

    async def araise_versions(self, keys: Sequence[str]) -> None:
        with Changing(self.l1, keys):
            await self.l2.araise_versions(keys)

    def delete_matching(self, pattern: str) -> int:
        with Flushing(self.l1):
            return self.l2.delete_matching(pattern)

    async def adelete_matching(self, pattern: str) -> int:
        with Flushing(self.l1):
            return await self.l2.adelete_matching(pattern)

    # --- sliding -----------------------------------------------------------------------------------------------------
    def slides(self, key: str, sliding_s: float) -> bool:
        """Whether its life has to begin anew with this read: every quarter of it.

        With each read would be in vain: the server tells of a new life as of any change, and memory would never hold it.
        """
        now = time.monotonic()
        if now - self._touched.get(key, -1e9) < sliding_s / 4:
            return False
        if len(self._touched) >= _SLIDING_MAX:
            self._touched.clear()
        self._touched[key] = now
        return True

    def close(self) -> None:
        self.tracker.close()
        close = getattr(self.l2, "close", None)
        if close is not None:
            close()

    # --- parts -------------------------------------------------------------------------------------------------------
    def _token(self, key: str) -> int | None:
        """None: memory may keep nothing."""
        if time.monotonic() < self.tracker.lease_until:
            return self.l1.token(key)
        self.tracker.start()
        return None

    def _kept(self, key: str, payload: Payload | None, token: int | None) -> Payload | None:
        """What L2 gave, decoded if memory may keep it."""
        if token is None or type(payload) is not bytes:
            return payload
        if payload.isdigit():  # a counter changes too often, and its life is the store's secret
            if key.startswith(self._tag_stem):
                self.l1.keep(key, payload, self.l1.ceiling_s, token)
            return payload
        try:
            value, meta = self.codec.decode(key, payload)
        except Unreadable:  # whoever decodes it next counts it
            return payload
        left_s = 0.0 if meta is None else life_s(meta, wall_s())
        if left_s > 0 and (near := self._near_form(payload, value, meta)) is not None:
            self.l1.keep(key, near, left_s, token)
        return Held(value, meta, len(payload))

    def _near_form(self, payload: bytes, value: Any, meta: Meta | None) -> Held | None:
        """None: memory would hand out something else than L2 does."""
        copying = self._copying
        if copying is None:
            return Held(value, meta, estimate_bytes(value))
        if self.codec.serializer == "json" and self.codec.describe(payload).serializer != "json":
            return None  # of an alias that keeps Python's types, which JSON does not
        try:
            body = copying.dumps(value)
        except Uncacheable:
            return None
        return Held(body, meta, len(body))

    def _numbers(self, keys: Sequence[str]) -> tuple[dict[str, Payload], list[str]]:
        """The numbers of tags that memory holds, and the keys to ask the shared store for."""
        found: dict[str, Payload] = {}
        for key in keys:
            if key.startswith(self._tag_stem) and (number := self.near(key)) is not None:
                found[key] = number
        return found, [key for key in keys if key not in found]

    def _joined(
        self,
        keys: Sequence[str],
        found: dict[str, Payload],
        asked: Sequence[str],
        tokens: Sequence[int | None],
        answers: Sequence[Payload | None],
    ) -> list[Payload | None]:
        kept = {
            key: self._kept(key, payload, token)
            for key, token, payload in zip(asked, tokens, answers, strict=True)
        }
        return [found[key] if key in found else kept[key] for key in keys]

    def _joined_numbers(
        self,
        keys: Sequence[str],
        found: dict[str, Payload],
        asked: Sequence[str],
        tokens: Sequence[int | None],
        numbers: Sequence[int],
    ) -> list[int]:
        joined = self._joined(keys, found, asked, tokens, [b"%d" % number for number in numbers])
        return [int(payload) for payload in joined]  # type: ignore[arg-type]


def _forked() -> None:
    for l1 in list(_l1s):
        l1.renew()


os.register_at_fork(after_in_child=_forked)
