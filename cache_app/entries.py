"""From Django's keys and values to a store's and back, without any I/O: what the sync and the async half share."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import structlog
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.utils.module_loading import import_string

from . import seldom, shared, slow, stats
from .codec import Codec, Meta, Unreadable
from .connections import everything_of, glob_escape
from .options import Options
from .store import EXISTING, NEW, Held, Payload, Store, StoreFailed

log = structlog.get_logger(__name__)
MISSING: Any = object()


def _own_part(full: str) -> str:
    return full.split(":", 2)[-1]


def wall_s() -> float:
    """Seconds since the epoch. Entries carry it from host to host."""
    return time.time_ns() / 1e9


class Read(NamedTuple):
    """What `read` found. A value whose life is over is found: whoever asked decides whether it may still serve.

    versions: of the tags asked for, as they were before the value was read. tier: "l1" or "l2".
    """

    value: Any
    meta: Meta | None
    is_found: bool
    versions: Mapping[str, int]
    tier: str = "l2"


class Entries(BaseCache):
    """Keys, values, lives and the failure policy of one alias."""

    is_timed: ClassVar[bool] = False  # each value carries when it ends, not only the store
    is_remote: ClassVar[bool] = False  # worth the clock: its operations go into the histogram
    tier: ClassVar[str] = "l2"

    alias: str
    options: Options
    codec: Codec
    store: Store
    counts: stats.Counts

    def _bind(self, location: Any, params: Mapping[str, Any]) -> None:
        self.location = location
        found = shared.of(type(self), location, params, self._make_store)
        self.alias, self.options, self.codec = found.alias, found.options, found.codec
        self.store, self.counts = found.store, found.counts
        self._hits = f"hits_{self.tier}"
        self._is_plain = self.key_func is default_key_func
        reverse = (
            params.get("OPTIONS", {}).get("REVERSE_KEY_FUNCTION") or _own_part
        )  # django-redis' name for it
        self._reverse: Callable[[str], Any] = reverse if callable(reverse) else import_string(reverse)
        self._stem = f"{self.key_prefix}:{self.version}:"

    def _make_store(self, alias: str, options: Options) -> Store:
        """Called once per process and parameters."""
        raise TypeError(f"{type(self).__name__} has no store")

    # --- keys --------------------------------------------------------------------------------------------------------
    def full_key(self, key: Any, version: int | None = None) -> str:
        """prefix:version:key, unless KEY_FUNCTION says otherwise."""
        if self._is_plain:
            return f"{self._stem}{key}" if version is None else f"{self.key_prefix}:{version}:{key}"
        return str(self.key_func(key, self.key_prefix, self.version if version is None else version))

    def make_key(self, key: Any, version: int | None = None) -> str:
        return self.full_key(key, version)

    def tag_key(self, tag: str) -> str:
        """Where the tag's number is kept. Raising it ends every entry that was stored under a lower one."""
        return f"{self.key_prefix}:tag:{tag}"

    def _tag_keys(self, tags: Sequence[str]) -> list[str]:
        if isinstance(tags, str):
            raise TypeError("tags is a sequence of texts, not one text")
        return [self.tag_key(tag) for tag in tags]

    def own_key(self, full: str, version: int | None = None) -> str:
        """What `full_key` was made of."""
        if self._is_plain:
            return full.removeprefix(self.full_key("", version))
        return str(self._reverse(full))

    def pattern(self, pattern: str, version: int | None = None) -> str:
        """The glob of the full keys whose own part matches."""
        number, prefix = self.version if version is None else version, glob_escape(self.key_prefix)
        return (
            f"{prefix}:{number}:{pattern}" if self._is_plain else str(self.key_func(pattern, prefix, number))
        )

    def everything(self) -> list[str]:
        """The globs of all keys under KEY_PREFIX. Raises ValueError where KEY_FUNCTION leaves the prefix out."""
        globs, prefix = [everything_of(self.key_prefix)], glob_escape(self.key_prefix)
        if not self._is_plain:
            globs.append(str(self.key_func("*", prefix, "*")))
            if not prefix or prefix not in globs[-1]:
                raise ValueError("KEY_FUNCTION leaves KEY_PREFIX out: other aliases' keys may be spelt alike")
        return globs

    # --- lives -------------------------------------------------------------------------------------------------------
    def _life_s(self, timeout: Any, jitter: float | None = None) -> float | None:
        """timeout: seconds as Django takes them. None: for ever; 0 or less: over already."""
        life_s = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        if life_s is None:
            return None
        if life_s != life_s:  # else it would live for ever
            raise ValueError("a timeout that is not a number")
        share = self.options.JITTER if jitter is None else jitter
        if not 0 <= share <= 0.5:
            raise ValueError("jitter is a share of the timeout from 0 to 0.5")
        return float(life_s) if not share or life_s <= 0 else life_s * (1 - random.random() * share)  # noqa: S311

    @staticmethod
    def _only(nx: bool, xx: bool) -> str:
        if nx and xx:
            raise ValueError("nx and xx exclude each other")
        return NEW if nx else EXISTING if xx else ""

    def _meta(
        self, value: Any, life_s: float | None, versions: Mapping[str, int] | None, sliding: bool
    ) -> Meta | None:
        if not versions and not sliding and not self.is_timed:
            return None
        if not versions and not sliding and type(value) is int:
            return None  # a counter: the store counts it, and ends it
        now = wall_s()
        ends = None if life_s is None or sliding else now + life_s
        return Meta(now, ends, tags=versions or {}, sliding_s=life_s if sliding else None)

    # --- values ------------------------------------------------------------------------------------------------------
    def _pack(self, full: str, value: Any, meta: Meta | None) -> Payload:
        return self.codec.encode(full, value, meta)

    def _item(
        self,
        full: str,
        value: Any,
        life_s: float | None,
        versions: Mapping[str, int] | None,
        sliding: bool,
    ) -> tuple[str, Payload, float | None]:
        return full, self._pack(full, value, self._meta(value, life_s, versions, sliding)), life_s

    def _to_write(
        self,
        full: str,
        value: Any,
        ttl_s: float | None,
        keep_s: float,
        load_s: float,
        versions: Mapping[str, int] | None,
        sliding: bool,
        jitter: float | None,
    ) -> tuple[Payload, float | None]:
        """The entry, and for how long the store keeps it."""
        now, life_s = wall_s(), None if ttl_s is None else self._life_s(ttl_s, jitter)
        ends = None if life_s is None or sliding else now + life_s
        meta = Meta(now, ends, load_s, versions or {}, life_s if sliding else None)
        # What slides ends where the store lets go of it: kept for longer, it would be fresh for longer.
        kept_s = None if life_s is None else life_s + keep_s * (not sliding)
        return self._pack(full, value, meta), kept_s

    @staticmethod
    def _relived(meta: Meta, life_s: float | None) -> Meta:
        return replace(meta, expires_at=None if life_s is None else wall_s() + life_s)

    @staticmethod
    def _left_s(store_s: float, meta: Meta | None) -> float:
        """What is left of a value's life, which may end before the store lets go of it."""
        if meta is None or meta.expires_at is None:
            return store_s
        return max(min(store_s, meta.expires_at - wall_s()), 0.0)

    @staticmethod
    def _sorted(
        items: Sequence[tuple[str, Payload, float | None]],
    ) -> tuple[list[str], list[tuple[str, Payload, float | None]]]:
        """What is over at once, and what is kept."""
        over = [full for full, _, life_s in items if life_s is not None and life_s <= 0]
        return over, [item for item in items if item[2] is None or item[2] > 0]

    def _fetched(self, operation: str, full: str, began: float, payloads: Sequence[Payload | None]) -> None:
        """What came from a store that is worth the clock."""
        self._took(operation, full, began)
        self.counts.add("bytes_read", sum(len(one) for one in payloads if type(one) is bytes))

    def _wrote_many(self, items: Sequence[tuple[str, Payload, float | None]]) -> None:
        self.counts.add("sets", len(items))
        self.counts.add("bytes_written", sum(_size(payload) for _, payload, _ in items))

    def _wrote(self, payload: Payload) -> None:
        self.counts.add("sets")
        self.counts.add("bytes_written", _size(payload))

    def _open(self, full: str, payload: Payload | None) -> tuple[Any, Meta | None]:
        """(MISSING, None) for nothing and for what cannot be read, which is counted."""
        if payload is None:
            return MISSING, None
        if type(payload) is Held:
            return payload.value, payload.meta
        try:
            return self.codec.decode(full, payload)  # type: ignore[arg-type]
        except Unreadable as error:
            self._unreadable(error)
            return MISSING, None

    def _unreadable(self, error: Unreadable) -> None:
        self.counts.add("corrupt")
        seldom.warn(log, "cache_entry_unreadable", alias=self.alias, reason=error.reason)

    def _foreign_tags(self, found: Iterable[Meta | None]) -> list[str]:
        """The keys of the tags that decide whether what was found still counts."""
        names = {tag for meta in found if meta is not None for tag in meta.tags}
        return [self.tag_key(tag) for tag in sorted(names)]

    def _is_current(self, meta: Meta, numbers: Mapping[str, int | None]) -> bool:
        """Whether no tag has been raised since. numbers: by tag key; a number that is gone has been raised."""
        return all(numbers.get(self.tag_key(tag)) == version for tag, version in meta.tags.items())

    @staticmethod
    def _is_over(meta: Meta) -> bool:
        return meta.expires_at is not None and meta.expires_at <= wall_s()

    def _there(self, opened: Mapping[str, tuple[Any, Meta | None]]) -> dict[str, tuple[Any, Meta | None]]:
        return {
            full: (value, meta)
            for full, (value, meta) in opened.items()
            if value is not MISSING and (meta is None or not self._is_over(meta))
        }

    def _confirmed(
        self, there: Mapping[str, tuple[Any, Meta | None]], numbers: Mapping[str, int | None]
    ) -> dict[str, Any]:
        return {
            full: value
            for full, (value, meta) in there.items()
            if meta is None or self._is_current(meta, numbers)
        }

    def _unconfirmed(
        self, failed: StoreFailed, there: Mapping[str, tuple[Any, Meta | None]]
    ) -> dict[str, Any]:
        """The values came, the numbers of their tags did not."""
        is_stale_good = self._failed(failed, self.options.ON_DOWN == "stale")
        return {
            full: value
            for full, (value, meta) in there.items()
            if is_stale_good or meta is None or not meta.tags
        }

    # --- failures ----------------------------------------------------------------------------------------------------
    def _failed(self, failed: StoreFailed, neutral: Any) -> Any:
        """What the failure policy of the alias answers in the store's place."""
        self.counts.add("store_errors")
        if self.options.ON_DOWN == "raise":
            raise (failed.__cause__ or failed) from failed
        error = type(failed.__cause__ or failed).__name__
        seldom.warn(log, "cache_store_down", alias=self.alias, policy=self.options.ON_DOWN, error=error)
        return neutral

    def _last_known(self, failed: StoreFailed, full: str) -> Payload | None:
        """For a read: the value that this process saw last, where the policy says so."""
        self._failed(failed, None)
        known: Callable[[str], Payload | None] | None = getattr(self.store, "last_known", None)
        found = known(full) if known is not None and self.options.ON_DOWN == "stale" else None
        if found is not None:
            self.counts.add("stale")
        return found

    def _took(self, operation: str, full: str, began: float) -> None:
        seconds = time.perf_counter() - began
        self.counts.took(operation, seconds)
        slow.seen(self.alias, operation, full, seconds)


def numbers_of(keys: Sequence[str], payloads: Sequence[Payload | None]) -> dict[str, int | None]:
    """Tag numbers as they came from the store."""
    return {key: number_of(payload) for key, payload in zip(keys, payloads, strict=True)}


def number_of(payload: Payload | None) -> int | None:
    if type(payload) is bytes and payload.isdigit():
        return int(payload)
    return None


def _size(payload: Payload) -> int:
    return payload.size_bytes if isinstance(payload, Held) else len(payload)
