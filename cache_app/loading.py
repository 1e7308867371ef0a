"""Get or load: key → store → single flight → lease → loader → store. One flow for sync and async callers.

fresh hit                 answered; when its end is near (early.py) one caller starts a load in the background
miss, past its life       one caller of this process leads, the others wait for what it finds (flights.py)
                          one process loads, under a lease in the store, and the others read again when it is free
the loader raises         an entry within `stale_s` after its life answers, else the exception goes to all who wait
the load takes too long   soft_timeout_s: such an entry answers; hard_timeout_s: LoadTimeout; the load goes on
the store is down         ON_STORE_DOWN="load": load, nothing is stored; "raise": the caller gets its error

The value is stored under the versions that its tags had before the load began: an invalidation while it loads has
ended the entry before it is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import early, stats
from . import rules as rulebook
from .backend import BrainCache
from .calls import Answer, Call
from .entries import MISSING, Read, wall_s
from .load_flow import alone, answering
from .load_steps import Awaited, Direct
from .rules import Rules
from .steps import adrive, drive
from .store import NEW, StoreFailed


def fetch(call: Call) -> Answer:
    found: Read | StoreFailed
    try:
        found = call.read()
    except StoreFailed as failed:
        found = failed
    return answer(call, found)


def answer(call: Call, found: Read | StoreFailed) -> Answer:
    """found: what asking the store came to."""
    answered: Answer = drive(answering(call, found), Direct(call).perform)
    return answered


async def afetch(call: Call) -> Answer:
    found: Read | StoreFailed
    try:
        found = await call.aread()
    except StoreFailed as failed:
        found = failed
    return await aanswer(call, found)


async def aanswer(call: Call, found: Read | StoreFailed) -> Answer:
    answered: Answer = await adrive(answering(call, found), Awaited(call).perform)
    return answered


def is_plainly_fresh(read: Read, rules: Rules) -> bool:
    """Nearly every hit: nothing but its value is of interest. False: look closer."""
    if not read.is_found or rules.cache_errors:
        return False
    meta = read.meta
    return (
        meta is None
        or meta.expires_at is None
        or meta.expires_at - wall_s() > meta.load_s * rules.early * early.REACH
    )


def load_alone(call: Call) -> Answer:
    """Nothing is read, shared or stored."""
    answered: Answer = drive(alone(call), Direct(call).perform)
    return answered


# --- without a decorator ---------------------------------------------------------------------------------------------


def get_or_load(
    cache: BrainCache,
    key: Any,
    loader: Callable[[], Any],
    *,
    version: int | None = None,
    tags: Sequence[str] = (),
    name: str = "",
    **options: Any,
) -> Any:
    """The value under the key, or what the loader returns, stored. options: those of `cached` (ttl_s, stale_s, …).

    name: what it is counted under.
    """
    return fetch(_functional(cache, key, loader, version, tags, name, options))[0]


async def aget_or_load(
    cache: BrainCache,
    key: Any,
    loader: Callable[[], Any],
    *,
    version: int | None = None,
    tags: Sequence[str] = (),
    name: str = "",
    **options: Any,
) -> Any:
    """As `get_or_load`; the loader may be a coroutine function."""
    return (await afetch(_functional(cache, key, loader, version, tags, name, options)))[0]


def _functional(
    cache: BrainCache,
    key: Any,
    loader: Callable[[], Any],
    version: int | None,
    tags: Sequence[str],
    name: str,
    options: Mapping[str, Any],
) -> Call:
    rules = rulebook.of(options)
    full = cache.full_key(key, version)
    return Call(cache, full, loader, rules, stats.counts(cache.alias, name), name or full, tuple(tags))


class _DefaultCall(Call):
    """Django's get_or_set: an entry like `cache.set` makes it, so that integers can be counted; the alias' own policy."""

    __slots__ = ("timeout",)

    def read(self) -> Read:
        return self._read(self.cache._get(self.key))

    async def aread(self) -> Read:
        return self._read(await self.cache._aget(self.key))

    def _read(self, value: Any) -> Read:
        return Read(value, None, value is not MISSING, {}, self.cache.tier)

    def write(self, value: Any, **lives: Any) -> Any:
        life_s = self.cache._life_s(self.rules.ttl_s)
        self.cache._set(self.key, value, life_s, (), sliding=False, only=NEW)
        stored = self.cache._get(self.key)
        return value if stored is MISSING else stored

    async def awrite(self, value: Any, **lives: Any) -> Any:
        life_s = self.cache._life_s(self.rules.ttl_s)
        await self.cache._aset(self.key, value, life_s, (), sliding=False, only=NEW)
        stored = await self.cache._aget(self.key)
        return value if stored is MISSING else stored

    def store_failed(self, error: BaseException) -> None:
        self.cache._failed(error if isinstance(error, StoreFailed) else StoreFailed(error), None)


def get_or_set(cache: BrainCache, key: Any, default: Any, timeout: Any, version: int | None) -> Any:
    """Django's. default: a value, or a callable that one of the callers of this process calls."""
    load = default if callable(default) else lambda: default
    call = _default_call(cache, key, load, timeout, version)
    return load() if call is None else fetch(call)[0]


async def aget_or_set(cache: BrainCache, key: Any, default: Any, timeout: Any, version: int | None) -> Any:
    """default: a value, a callable or a coroutine function."""
    load = default if callable(default) else lambda: default
    call = _default_call(cache, key, load, timeout, version)
    if call is not None:
        return (await afetch(call))[0]
    loaded = load()
    return await loaded if inspect.isawaitable(loaded) else loaded


def _default_call(
    cache: BrainCache, key: Any, load: Callable[[], Any], timeout: Any, version: int | None
) -> _DefaultCall | None:
    """None: it would be over at once."""
    life_s = cache.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
    if life_s is not None and life_s <= 0:
        return None
    rules = Rules(ttl_s=life_s, lock=False, early=0.0)
    return _DefaultCall(cache, cache.full_key(key, version), load, rules, cache.counts, "get_or_set")
