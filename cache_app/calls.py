"""One call of a cached function, what its load can come to, and what it answers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import structlog

from . import rules as rulebook
from . import seldom, stats
from .backend import BrainCache
from .codec import Meta, Uncacheable
from .conf import conf
from .entries import MISSING, Read, wall_s
from .rules import Rules

log = structlog.get_logger(__name__)
_SCALARS = frozenset((str, int, float, bool, bytes, type(None)))

HITS = {"l1": "hits_l1", "l2": "hits_l2"}  # tier → event

# What a call answers: value, what is known about its entry, whether it came from the cache, whether past its life.
Answer = tuple[Any, Meta | None, bool, bool]


class LoadTimeout(TimeoutError):
    """The value was not there within hard_timeout_s. Its load goes on, and stores what it finds."""


@dataclass(frozen=True, slots=True)
class Cached:
    """value, and where it came from: hit is False for the caller whose call had to wait for a loader.

    stale: past its life, answered because making a new one failed or took too long.
    """

    value: Any
    hit: bool
    age_s: float  # since it was stored
    ttl_s: float | None  # left to live; None = for ever; 0.0 = it could not be stored, or is past its life
    stale: bool = False


class Call:
    """One call of a cached function. load: the function with its arguments applied; for an async call, awaitable or not."""

    __slots__ = ("cache", "counts", "key", "load", "name", "rules", "tags")

    def __init__(
        self,
        cache: BrainCache,
        key: str,
        load: Callable[[], Any],
        rules: Rules,
        counts: stats.Counts,
        name: str,
        tags: Sequence[str] = (),
    ) -> None:
        self.cache, self.key, self.load, self.rules = cache, key, load, rules
        self.counts, self.name, self.tags = counts, name, tags

    @property
    def seat(self) -> tuple[str, str]:
        """What it is in this process: keys are the same in every alias with the same prefix."""
        return self.cache.alias, self.key

    def read(self) -> Read:
        return self.cache.read(self.key, self.tags)

    async def aread(self) -> Read:
        return await self.cache.aread(self.key, self.tags)

    def usable(self, read: Read) -> Read:
        """Nothing found, where it is an exception that cannot be made anew."""
        kinds = self.rules.cache_errors
        if not kinds or not read.is_found or rulebook.unwrapped(read.value, kinds)[0]:
            return read
        return read._replace(value=None, meta=None, is_found=False)

    def write(self, value: Any, **lives: Any) -> Any:
        return self.cache.write(self.key, value, **lives)

    async def awrite(self, value: Any, **lives: Any) -> Any:
        return await self.cache.awrite(self.key, value, **lives)

    def last_known(self) -> Read | None:
        """What this process has seen last, for an alias that answers with it while its store is down."""
        find = getattr(self.cache.store, "last_known", None)
        if find is None or self.cache.options.ON_DOWN != "stale":
            return None
        value, meta = self.cache._open(self.key, find(self.key))
        return None if value is MISSING else Read(value, meta, True, {}, self.cache.tier)

    def store_failed(self, error: BaseException) -> None:
        """Count it; raise the store's own error where the settings say so."""
        self.counts.add("store_errors")
        cause = error.__cause__ or error
        if conf().ON_STORE_DOWN == "raise":
            raise cause
        seldom.warn(log, "cache_store_down", function=self.name, error=type(cause).__name__)


# --- what a load can come to -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The loader raised: an entry past its life may serve."""

    error: Exception
    traceback: TracebackType | None  # as it was: each of those who raise it would add to it


@dataclass(frozen=True, slots=True)
class Refused:
    """What came of the load cannot be answered: the store is down and the policy says raise, or it cannot be kept."""

    error: Exception
    traceback: TracebackType | None


class Landing:
    """What a flight found. Everybody gets a value of their own, as each of them would get one from a hit."""

    __slots__ = ("_first", "_guard", "_payload", "_value", "meta")

    def __init__(self, value: Any, meta: Meta | None, *, first: Any = MISSING, payload: Any = None) -> None:
        """first: a copy that has been made already, for the first who asks."""
        self.meta = meta
        self._value, self._first, self._payload = value, first, payload
        self._guard = threading.Lock()

    def own(self, call: Call) -> Any:
        with self._guard:
            first, self._first = self._first, MISSING
            if first is not MISSING:
                return first
            if type(self._value) in _SCALARS or not call.cache.options.COPY:
                return self._value
            try:
                self._payload = self._payload or call.cache.codec.encode(call.key, self._value)
            except Uncacheable:  # `unless` let it through
                return self._value
        return call.cache.codec.decode(call.key, self._payload)[0]


# --- what it answers -------------------------------------------------------------------------------------------------


def described(answer: Answer) -> Cached:
    value, meta, hit, stale = answer
    if meta is None:  # written by hand, without a word about itself
        return Cached(value, hit, 0.0, None, stale)
    now = wall_s()
    ttl_s = meta.sliding_s if meta.expires_at is None else max(meta.expires_at - now, 0.0)
    return Cached(value, hit, max(now - meta.stored_at, 0.0), ttl_s, stale)


def settled(call: Call, answer: Answer) -> Answer:
    """Without the wrapping of functions that keep exceptions, which are raised here."""
    if not call.rules.cache_errors:
        return answer
    _, value = rulebook.unwrapped(answer[0], call.rules.cache_errors)
    if isinstance(value, rulebook.Kept):
        raise value.error
    return value, *answer[1:]


def left_s(read: Read) -> float:
    meta = read.meta
    return math.inf if meta is None or meta.expires_at is None else meta.expires_at - wall_s()
