"""Django's cache on Redis or Valkey: django-redis' class, with what it lacks and without its defects.

method → BrainCache (values, tags, policy) or structures (sets, hashes …) → RedisStore → link to the servers
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from django_redis.cache import RedisCache
from django_redis.client import DefaultClient

from . import addresses, connections
from .backend import BrainCache
from .codec import Codec, Unreadable
from .entries import MISSING, Read, wall_s
from .last_known import LastKnown
from .options import Options, keys_of
from .redis_store import RedisStore
from .store import Payload, Store, StoreFailed
from .structures import METHODS
from .structures.counters import COUNT
from .structures.questions import Method
from .structures.sets import SSCAN, SSCAN_SIGNED

_MEMBER = "\0member"  # in the signature of what stands in sets, hashes and lists: no key is spelt like that
_OF_DJANGO_REDIS = ("SERIALIZER", "COMPRESSOR", "CLIENT_CLASS", "CONNECTION_FACTORY", "SENTINELS")
LEASE_S = 30.0  # of a lock that does not say


class BrainRedisCache(BrainCache, RedisCache):
    """The CACHES backend. LOCATION: a URL (addresses.py), or several: the first one is the primary."""

    is_remote = True

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        ours = {"CLIENT_CLASS": "cache_app.redis.BrainClient"}
        RedisCache.__init__(self, server, params | {"OPTIONS": params.get("OPTIONS", {}) | ours})
        self._params = params
        self._bind(server, params)

    def _make_store(self, alias: str, options: Options) -> Store:
        given = self._params.get("OPTIONS", {})
        known = LastKnown(options.STALE_MAX_BYTES, options.STALE_MAX_AGE_S)
        return RedisStore(
            self.url,
            failures=options.BREAKER_FAILURES,
            open_s=options.BREAKER_OPEN_S,
            options=addresses.dial_options(given),
            known=known if options.ON_DOWN == "stale" else None,
        )

    @functools.cached_property
    def url(self) -> str:
        """The servers, as connections.client and connections.link take them."""
        return addresses.of_alias(self.location, self._params.get("OPTIONS", {}))

    @property
    def servers(self) -> RedisStore:
        """What stands on Redis, in a tiered cache as well."""
        store: Any = self.store
        found: RedisStore = getattr(store, "l2", store)
        return found

    # --- what may be a set or a hash as well -------------------------------------------------------------------------
    def has_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        full = self.full_key(key, version)
        try:
            payload = self.store.get(full)
        except Unreadable:  # something else than a value is there
            return True
        except StoreFailed as failed:
            payload = self._last_known(failed, full)
        value, meta = self._open(full, payload)
        return self._is_there(value if meta is None else self._if_good(full, value, meta))

    async def ahas_key(self, key: Any, version: int | None = None, **_: Any) -> bool:
        full = self.full_key(key, version)
        try:
            payload = await self.store.aget(full)
        except Unreadable:
            return True
        except StoreFailed as failed:
            payload = self._last_known(failed, full)
        value, meta = self._open(full, payload)
        return self._is_there(value if meta is None else await self._aif_good(full, value, meta))

    def ttl_s(self, key: Any, version: int | None = None) -> float:
        try:
            return super().ttl_s(key, version)
        except Unreadable:
            return self._of_structure(self.store.ttl_s(self.full_key(key, version)))

    async def attl_s(self, key: Any, version: int | None = None) -> float:
        try:
            return await super().attl_s(key, version)
        except Unreadable:
            return self._of_structure(await self.store.attl_s(self.full_key(key, version)))

    def _touch(self, full: str, life_s: float | None) -> bool:
        try:
            return super()._touch(full, life_s)
        except Unreadable:
            return self.store.expire(full, life_s)

    async def _atouch(self, full: str, life_s: float | None) -> bool:
        try:
            return await super()._atouch(full, life_s)
        except Unreadable:
            return await self.store.aexpire(full, life_s)

    def _stored(self, full: str) -> Payload | None:
        return self.servers.get(full)

    async def _astored(self, full: str) -> Payload | None:
        return await self.servers.aget(full)

    def _replaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        return self.servers.replace(full, old, payload, life_s)

    async def _areplaced(self, full: str, old: Payload, payload: Payload, life_s: float | None) -> bool:
        return await self.servers.areplace(full, old, payload, life_s)

    def read(self, full: str, tags: Sequence[str] = ()) -> Read:
        try:
            return super().read(full, tags)
        except Unreadable as error:
            return self._unread(error)

    async def aread(self, full: str, tags: Sequence[str] = ()) -> Read:
        try:
            return await super().aread(full, tags)
        except Unreadable as error:
            return self._unread(error)

    def _unread(self, error: Unreadable) -> Read:
        self._unreadable(error)
        return Read(None, None, False, {}, self.tier)

    @staticmethod
    def _is_there(value: Any) -> bool:
        return value is not MISSING

    @staticmethod
    def _of_structure(left_s: float | None) -> float:
        return 0.0 if left_s is None else left_s

    # --- django-redis' other ways to say when ------------------------------------------------------------------------
    def pttl(self, key: Any, version: int | None = None, **_: Any) -> int | None:
        """Milliseconds left. None: for ever. 0: there is no such key."""
        return _in_ms(self.ttl_s(key, version))

    async def apttl(self, key: Any, version: int | None = None, **_: Any) -> int | None:
        return _in_ms(await self.attl_s(key, version))

    def pexpire(self, key: Any, timeout: Any, version: int | None = None, **_: Any) -> bool:
        """timeout: milliseconds from now, or a timedelta."""
        return self._lives(key, version, _from_ms(timeout))

    async def apexpire(self, key: Any, timeout: Any, version: int | None = None, **_: Any) -> bool:
        return await self._alives(key, version, _from_ms(timeout))

    def expire_at(self, key: Any, when: Any, version: int | None = None, **_: Any) -> bool:
        """when: a datetime, or seconds since the epoch."""
        return self._lives(key, version, _until(when, 1))

    async def aexpire_at(self, key: Any, when: Any, version: int | None = None, **_: Any) -> bool:
        return await self._alives(key, version, _until(when, 1))

    def pexpire_at(self, key: Any, when: Any, version: int | None = None, **_: Any) -> bool:
        """when: a datetime, or milliseconds since the epoch."""
        return self._lives(key, version, _until(when, 1000))

    async def apexpire_at(self, key: Any, when: Any, version: int | None = None, **_: Any) -> bool:
        return await self._alives(key, version, _until(when, 1000))

    def _lives(self, key: Any, version: int | None, life_s: float) -> bool:
        try:
            return self._touch(self.full_key(key, version), life_s)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    async def _alives(self, key: Any, version: int | None, life_s: float) -> bool:
        try:
            return await self._atouch(self.full_key(key, version), life_s)
        except StoreFailed as failed:
            return bool(self._failed(failed, neutral=False))

    # --- another version of a key ------------------------------------------------------------------------------------
    def incr_version(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        """Move the value to another version, with its tags and what is left of its life. Raises ValueError for none."""
        old = self.version if version is None else version
        full, new = self.full_key(key, old), self.full_key(key, old + delta)
        try:
            left_s = self.store.ttl_s(full)
            value, meta = self._open(full, self.store.get(full))
            is_good = meta is None or (not self._is_over(meta) and self._tags_hold(meta, {}))
            if value is MISSING or left_s is None or not is_good:
                raise ValueError(f"Key {key!r} not found")
            self.store.set(new, self._pack(new, value, meta), None if left_s == math.inf else left_s)
            self.store.delete_many([full])
        except StoreFailed as failed:
            return int(self._failed(failed, old))
        return old + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None, **_: Any) -> int:
        old = self.version if version is None else version
        full, new = self.full_key(key, old), self.full_key(key, old + delta)
        try:
            left_s = await self.store.attl_s(full)
            value, meta = self._open(full, await self.store.aget(full))
            is_good = meta is None or (not self._is_over(meta) and await self._atags_hold(meta, {}))
            if value is MISSING or left_s is None or not is_good:
                raise ValueError(f"Key {key!r} not found")
            await self.store.aset(new, self._pack(new, value, meta), None if left_s == math.inf else left_s)
            await self.store.adelete_many([full])
        except StoreFailed as failed:
            return int(self._failed(failed, old))
        return old + delta

    # --- counting without looking ------------------------------------------------------------------------------------
    def incr(
        self,
        key: Any,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
        **_: Any,
    ) -> int:
        """ignore_key_check: a missing key counts from 0, and lives for ever."""
        if not ignore_key_check:
            return super().incr(key, delta, version)
        return int(self._asked(COUNT, key, delta, version=version))

    async def aincr(
        self,
        key: Any,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
        **_: Any,
    ) -> int:
        if not ignore_key_check:
            return await super().aincr(key, delta, version)
        return int(await self._aasked(COUNT, key, delta, version=version))

    # --- sets, hashes, sorted sets, lists ----------------------------------------------------------------------------
    def pack_member(self, value: Any) -> bytes:
        return self._members.encode(_MEMBER, value)

    def unpack_members(self, members: Iterable[bytes]) -> list[Any]:
        found = []
        for member in members:
            try:
                found.append(self._members.decode(_MEMBER, member)[0])
            except Unreadable as error:
                self._unreadable(error)
        return found

    @functools.cached_property
    def _members(self) -> Codec:
        """Not compressed: another version of the compressor would spell the same member differently."""
        chosen = self.options
        return Codec(chosen.SERIALIZER, None, sign=chosen.SIGN, keys=keys_of(chosen))

    def sscan(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None, **_: Any
    ) -> set[Any]:
        """One page of the members, as in django-redis; sscan_iter has all. match: a glob of text members."""
        return next(self._scanned(key, match, count, version), set())

    async def asscan(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None, **_: Any
    ) -> set[Any]:
        async for page in self._ascanned(key, match, count, version):
            return page
        return set()

    def sscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None, **_: Any
    ) -> Iterator[Any]:
        for page in self._scanned(key, match, count, version):
            yield from page

    async def asscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None, **_: Any
    ) -> AsyncIterator[Any]:
        async for page in self._ascanned(key, match, count, version):
            for member in page:
                yield member

    def _scanned(
        self, key: Any, match: str | None, count: int | None, version: int | None
    ) -> Iterator[set[Any]]:
        cursor: bytes | None = b"0"
        while cursor is not None:
            cursor, page = self._asked(self._page, key, cursor, match, count, version)
            yield page

    async def _ascanned(
        self, key: Any, match: str | None, count: int | None, version: int | None
    ) -> AsyncIterator[set[Any]]:
        cursor: bytes | None = b"0"
        while cursor is not None:
            cursor, page = await self._aasked(self._page, key, cursor, match, count, version)
            yield page

    @property
    def _page(self) -> Method:
        return SSCAN_SIGNED if self._members.is_signing else SSCAN

    def _asked(self, method: Method, *arguments: Any, **options: Any) -> Any:
        question = method.ask(self, *arguments, **options)
        try:
            reply = self.servers.run(*question.command, is_read=question.is_read)
        except StoreFailed as failed:
            return self._failed(failed, method.neutral(*arguments, **options))
        return question.read(reply)

    async def _aasked(self, method: Method, *arguments: Any, **options: Any) -> Any:
        question = method.ask(self, *arguments, **options)
        try:
            reply = await self.servers.arun(*question.command, is_read=question.is_read)
        except StoreFailed as failed:
            return self._failed(failed, method.neutral(*arguments, **options))
        return question.read(reply)

    # --- locks, and what stands beside -------------------------------------------------------------------------------
    def lock(  # type: ignore[override]  # django-redis' places of the arguments
        self,
        key: Any,
        version: int | None = None,
        timeout: float | None = None,
        sleep: float | None = None,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        client: Any = None,
        thread_local: bool = True,
        **ours: Any,
    ) -> Any:
        """Our lock, asked for as in django-redis or as `cache_lock`. Does not talk to the server yet.

        timeout: its lease in seconds; None = 30 s, not for ever: its holder may die. blocking_timeout: None = wait for
        ever. sleep, client and thread_local say nothing here: a waiter is told, and the object is the owner.
        """
        from .locks import redis_lock  # it stands on the backends

        ours.setdefault("ttl_s", LEASE_S if timeout is None else timeout)
        ours.setdefault("wait_s", blocking_timeout)
        name = str(key) if version is None else f"{version}:{key}"
        return redis_lock(self, name, blocking=blocking, **ours)

    def close(self, **_: Any) -> None:
        """At the end of each request: connections are the process's, and stay."""


class BrainClient(DefaultClient):
    """What django-redis calls the client: `get_redis_connection(alias)`, and `cache.client` with its own methods.

    It encodes as the cache does, and raises what redis-py raises: the failure policy is the cache's.
    """

    def __init__(self, server: Any, params: dict[str, Any], backend: BrainRedisCache) -> None:
        options = {
            name: value for name, value in params.get("OPTIONS", {}).items() if name not in _OF_DJANGO_REDIS
        }
        super().__init__(
            [backend.url, *addresses.replicas_of(server)], params | {"OPTIONS": options}, backend
        )

    def connect(self, index: int = 0) -> Any:
        extra = addresses.dial_options(self._options)
        url = self._server[index]
        return connections.client(url, **extra)

    def encode(self, value: Any, *, allow_int: bool = True) -> bytes:
        return self._backend.pack_member(value)

    def decode(self, value: Any) -> Any:
        found = self._backend.unpack_members([value])
        return found[0] if found else None

    def do_close_clients(self) -> None:
        """CLOSE_CONNECTION of django-redis cuts the connections of other threads in the middle of a command."""


def _of_the_cache(name: str) -> Callable[..., Any]:
    """`cache.client.set(…)` is `cache.set(…)`; on another client (a pipeline) it is django-redis' own."""
    theirs = getattr(DefaultClient, name)

    @functools.wraps(theirs)
    def method(self: BrainClient, *arguments: Any, client: Any = None, **options: Any) -> Any:
        if client is None:
            return getattr(self._backend, name)(*arguments, **options)
        return theirs(self, *arguments, client=client, **options)

    return method


_OF_VALUES = (
    "set add get get_many set_many incr decr incr_version delete delete_many delete_pattern clear has_key keys iter_keys"
    " touch ttl pttl persist expire pexpire expire_at pexpire_at lock"
)
for _name in _OF_VALUES.split():
    setattr(BrainClient, _name, _of_the_cache(_name))


def _doors(name: str, method: Method) -> tuple[Any, Any]:
    """The method for threads and the one for event loops. client: another client of redis-py's, a pipeline perhaps."""

    def door(self: BrainRedisCache, *arguments: Any, client: Any = None, **options: Any) -> Any:
        if client is not None:
            return getattr(self.client, name)(*arguments, client=client, **options)
        return self._asked(method, *arguments, **options)

    async def adoor(self: BrainRedisCache, *arguments: Any, **options: Any) -> Any:
        return await self._aasked(method, *arguments, **options)

    return _named(door, name, method), _named(adoor, f"a{name}", method)


def _named(made: Any, name: str, method: Method) -> Any:
    made.__name__, made.__qualname__ = name, f"BrainRedisCache.{name}"
    made.__doc__, made.__signature__ = method.ask.__doc__, _signature(method.ask)
    return made


def _signature(recipe: Callable[..., Any]) -> inspect.Signature:
    first, *others = inspect.signature(recipe).parameters.values()
    return inspect.Signature([first.replace(name="self", annotation=inspect.Parameter.empty), *others])


for _name, _method in METHODS.items():
    _door, _adoor = _doors(_name, _method)
    setattr(BrainRedisCache, _name, _door)
    setattr(BrainRedisCache, f"a{_name}", _adoor)


def _in_ms(left_s: float) -> int | None:
    return None if left_s == math.inf else round(left_s * 1000)


def _from_ms(timeout: Any) -> float:
    return timeout.total_seconds() if hasattr(timeout, "total_seconds") else float(timeout) / 1000


def _until(when: Any, per_second: int) -> float:
    """Seconds from now; 0 or less: over."""
    if isinstance(when, datetime):
        moment = when.timestamp() if when.tzinfo else when.astimezone().timestamp()
        return moment - wall_s()
    return float(when) / per_second - wall_s()
