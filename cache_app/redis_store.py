"""A cache's entries on Redis or Valkey: one server, one behind Sentinels, or a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import redis

from . import connections
from .cluster import slot_of
from .codec import Unreadable
from .last_known import LastKnown
from .link import Command, all_good
from .steps import adrive, drive
from .store import EXISTING, NEW, StoreFailed

CHUNK = 1000  # keys per SCAN page, commands per pipeline: none of them keeps the server for more than about a millisecond
_LONGEST_MS = 2**62  # the server adds it to its clock, in 64 bits
_VERSION_LIFE_MS = (
    90 * 86_400_000
)  # of a tag's number that nobody asks for; the next one is higher all the same
_ONLY = {"": (), NEW: ("NX",), EXISTING: ("XX",)}
DOWN = (redis.RedisError, OSError)

Steps = Generator[Any, Any, Any]


class Script:
    """Sent by its hash; the text goes over the wire when the server does not know it (any more)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# An expired key is a missing key, and INCRBY alone would make it anew, without its life.
INCR = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('INCRBY', KEYS[1], ARGV[1])
""")
# By its digest: what is there is not sent back to the server.
REPLACE = Script("""
local there = redis.call('GET', KEYS[1])
if not there or redis.sha1hex(there) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
""")
# Microseconds since the epoch have 51 bits: a double holds them exactly.
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
VERSIONS = Script(f"""{_NOW}
local numbers = {{}}
for i, key in ipairs(KEYS) do
  numbers[i] = redis.call('GET', key)
  if not numbers[i] then
    numbers[i] = string.format('%.0f', now)
    redis.call('SET', key, numbers[i], 'PX', ARGV[1])
  elseif redis.call('PTTL', key) < ARGV[1] / 2 then
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
return numbers
""")
RAISE_VERSIONS = Script(f"""{_NOW}
for i, key in ipairs(KEYS) do
  local number = math.max((tonumber(redis.call('GET', key) or 0) or 0) + 1, now)
  redis.call('SET', key, string.format('%.0f', number), 'PX', ARGV[1])
end
""")


class RedisStore:
    """store.Store over the servers of `url`. For all threads and event loops of the process, and its children.

    failures, open_s: of the breaker. options: arguments of redis-py's connections beyond those of the URL.
    known: kept up to date with what goes through here, for ON_DOWN = "stale".
    """

    def __init__(
        self,
        url: str,
        *,
        failures: int = 3,
        open_s: float = 2.0,
        options: Mapping[str, Any] | None = None,
        known: LastKnown | None = None,
    ) -> None:
        self.url, self._known = url, known
        self._failures, self._open_s, self._options = failures, open_s, options
        self._of_the_loop: tuple[Any, Any] = (None, None)  # the last loop that asked, and its link
        self.last_known: Callable[[str], bytes | None] = known.get if known is not None else _nothing

    @cached_property
    def link(self) -> Any:
        return connections.link(self.url, failures=self._failures, open_s=self._open_s, options=self._options)

    def alink(self) -> Any:
        """The running loop's."""
        loop, link = self._of_the_loop
        if loop is not asyncio.get_running_loop():
            link = connections.alink(
                self.url, failures=self._failures, open_s=self._open_s, options=self._options
            )
            self._of_the_loop = (asyncio.get_running_loop(), link)
        return link

    def pools(self) -> dict[str, redis.ConnectionPool]:
        """{server: a pool that dials it}, one per primary, for a connection that is not the store's (a tracker's)."""
        return connections.pools_of(self.url, self._options)

    def close(self) -> None:
        if "link" in self.__dict__:
            self.link.close()

    # --- for threads -------------------------------------------------------------------------------------------------
    def get(self, key: str) -> bytes | None:
        """Raises Unreadable for what is no string."""
        try:
            found: bytes | None = self.link.read("GET", key)
        except DOWN as error:
            raise _of_a_read(error) from error
        if self._known is not None:
            self._known.saw([key], [found])
        return found

    def get_many(self, keys: Sequence[str]) -> list[Any]:
        if not keys:
            return []
        try:
            if self.link.is_cluster:
                found = _strings(self.link.pipeline([("GET", key) for key in keys]))
            else:
                found = self.link.read("MGET", *keys)
        except DOWN as error:
            raise _failed(error) from error
        if self._known is not None:
            self._known.saw(keys, found)
        return found

    def set(self, key: str, payload: Any, ttl_s: float | None, *, only: str = "") -> bool:
        try:
            done = self.link.call("SET", key, payload, *_life(ttl_s), *_ONLY[only]) is not None
        except DOWN as error:
            raise _failed(error) from error
        if self._known is not None and done:
            self._known.keep(key, payload)
        return done

    def replace(self, key: str, old: Any, payload: Any, ttl_s: float | None) -> bool:
        """In one step. False: something else than `old` stands there, or nothing."""
        return bool(self._do(self._replace(key, old, payload, ttl_s)))

    def set_many(self, items: Sequence[tuple[str, Any, float | None]]) -> None:
        self._do(self._set_many(items))

    def delete_many(self, keys: Sequence[str]) -> int:
        return int(self._do(self._delete_many(keys)))

    def incr(self, key: str, delta: int) -> int | None:
        value: int | None = self._do(self._incr(key, delta))
        return value

    def expire(self, key: str, ttl_s: float | None) -> bool:
        return bool(self._do(_expire(key, ttl_s)))

    def ttl_s(self, key: str) -> float | None:
        left_s: float | None = self._do(_ttl_s(key))
        return left_s

    def versions(self, keys: Sequence[str]) -> list[int]:
        numbers: list[int] = self._do(self._versions(keys))
        return numbers

    def raise_versions(self, keys: Sequence[str]) -> None:
        self._do(self._raise_versions(keys))

    def scan(self, pattern: str) -> Iterator[str]:
        for page in self._pages(pattern):
            yield from _texts(page)

    def delete_matching(self, pattern: str) -> int:
        if self._known is not None:
            self._known.forget_matching(pattern)
        return sum(int(self._do(self._unlink(page))) for page in self._pages(pattern))

    def run(self, *command: Any, is_read: bool = False) -> Any:
        """Any command whose first argument is its key. An error reply to a wrong use of it is a redis.ResponseError."""
        try:
            return self.link.read(*command) if is_read else self.link.call(*command)
        except DOWN as error:
            if is_misuse(error):
                raise
            raise _failed(error) from error

    # --- for event loops ---------------------------------------------------------------------------------------------
    async def aget(self, key: str) -> bytes | None:
        try:
            found: bytes | None = await self.alink().read("GET", key)
        except DOWN as error:
            raise _of_a_read(error) from error
        if self._known is not None:
            self._known.saw([key], [found])
        return found

    async def aget_many(self, keys: Sequence[str]) -> list[Any]:
        if not keys:
            return []
        link = self.alink()
        try:
            if link.is_cluster:
                found = _strings(await link.pipeline([("GET", key) for key in keys]))
            else:
                found = await link.read("MGET", *keys)
        except DOWN as error:
            raise _failed(error) from error
        if self._known is not None:
            self._known.saw(keys, found)
        return found

    async def aset(self, key: str, payload: Any, ttl_s: float | None, *, only: str = "") -> bool:
        try:
            reply = await self.alink().call("SET", key, payload, *_life(ttl_s), *_ONLY[only])
        except DOWN as error:
            raise _failed(error) from error
        if self._known is not None and reply is not None:
            self._known.keep(key, payload)
        return reply is not None

    async def areplace(self, key: str, old: Any, payload: Any, ttl_s: float | None) -> bool:
        return bool(await self._ado(self._replace(key, old, payload, ttl_s)))

    async def aset_many(self, items: Sequence[tuple[str, Any, float | None]]) -> None:
        await self._ado(self._set_many(items))

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return int(await self._ado(self._delete_many(keys)))

    async def aincr(self, key: str, delta: int) -> int | None:
        value: int | None = await self._ado(self._incr(key, delta))
        return value

    async def aexpire(self, key: str, ttl_s: float | None) -> bool:
        return bool(await self._ado(_expire(key, ttl_s)))

    async def attl_s(self, key: str) -> float | None:
        left_s: float | None = await self._ado(_ttl_s(key))
        return left_s

    async def aversions(self, keys: Sequence[str]) -> list[int]:
        numbers: list[int] = await self._ado(self._versions(keys))
        return numbers

    async def araise_versions(self, keys: Sequence[str]) -> None:
        await self._ado(self._raise_versions(keys))

    async def ascan(self, pattern: str) -> AsyncIterator[str]:
        async for page in self._apages(pattern):
            for key in _texts(page):
                yield key

    async def adelete_matching(self, pattern: str) -> int:
        if self._known is not None:
            self._known.forget_matching(pattern)
        removed = 0
        async for page in self._apages(pattern):
            removed += int(await self._ado(self._unlink(page)))
        return removed

    async def arun(self, *command: Any, is_read: bool = False) -> Any:
        link = self.alink()
        try:
            return await (link.read(*command) if is_read else link.call(*command))
        except DOWN as error:
            if is_misuse(error):
                raise
            raise _failed(error) from error

    # --- what both have in common --------------------------------------------------------------------------------------
    def _replace(self, key: str, old: bytes, payload: bytes, ttl_s: float | None) -> Steps:
        digest = hashlib.sha1(old, usedforsecurity=False).hexdigest()
        life_ms = "" if ttl_s is None else _milliseconds(ttl_s)
        is_done = (yield from self._scripted(REPLACE, [key], digest, payload, life_ms))[0]
        if self._known is not None and is_done:
            self._known.keep(key, payload)
        return is_done

    def _set_many(self, items: Sequence[tuple[str, Any, float | None]]) -> Steps:
        for some in _chunks(items):
            all_good((yield [("SET", key, payload, *_life(ttl_s)) for key, payload, ttl_s in some]))
        if self._known is not None:
            self._known.saw([item[0] for item in items], [item[1] for item in items])

    def _delete_many(self, keys: Sequence[str]) -> Steps:
        if self._known is not None:
            self._known.forget(keys)
        removed = 0
        for some in _chunks(keys):
            removed += yield from self._unlink(some)
        return removed

    def _unlink(self, keys: Sequence[Any]) -> Steps:
        if not keys:
            return 0
        if self.link.is_cluster:  # keys of one command have to be of one slot
            return sum(all_good((yield [("UNLINK", key) for key in keys])))
        return sum(all_good((yield [("UNLINK", *keys)])))

    def _incr(self, key: str, delta: int) -> Steps:
        try:
            value = (yield from self._scripted(INCR, [key], delta))[0]
        except redis.ResponseError as error:
            if any(sign in str(error) for sign in _NO_INTEGER):
                raise ValueError(f"{key!r} is no integer of 64 bits, or would be none") from error
            raise
        if self._known is not None and value is not None:
            self._known.keep(key, b"%d" % value)
        return value

    def _versions(self, keys: Sequence[str]) -> Steps:
        numbers: dict[str, int] = {}
        for some in self._of_one_slot(keys):
            replies = yield from self._scripted(VERSIONS, some, _VERSION_LIFE_MS)
            numbers.update(zip(some, map(int, replies[0]), strict=True))
        return [numbers[key] for key in keys]

    def _raise_versions(self, keys: Sequence[str]) -> Steps:
        if self._known is not None:
            self._known.forget(keys)
        for some in self._of_one_slot(keys):
            yield from self._scripted(RAISE_VERSIONS, some, _VERSION_LIFE_MS)

    def _scripted(self, script: Script, keys: Sequence[str], *arguments: Any) -> Steps:
        replies = yield [("EVALSHA", script.sha, len(keys), *keys, *arguments)]
        if isinstance(replies[0], redis.exceptions.NoScriptError):  # it did not run
            replies = yield [("EVAL", script.text, len(keys), *keys, *arguments)]
        return all_good(replies)

    def _of_one_slot(self, keys: Sequence[str]) -> list[list[str]]:
        """A script gets only keys of one slot in a cluster, and not too many of them anywhere."""
        if not self.link.is_cluster:
            return list(map(list, _chunks(keys)))
        slots: dict[int, list[str]] = {}
        for key in keys:
            slots.setdefault(slot_of(("GET", key)), []).append(key)
        return list(slots.values())

    def _pages(self, pattern: str) -> Iterator[list[bytes]]:
        try:
            for link in self.link.primaries():
                cursor = b"0"
                while True:
                    cursor, page = link.read("SCAN", cursor, "MATCH", pattern, "COUNT", CHUNK)
                    yield page
                    if cursor == b"0":
                        break
        except DOWN as error:
            raise _failed(error) from error

    async def _apages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        try:
            for link in await self.alink().primaries():
                cursor = b"0"
                while True:
                    cursor, page = await link.read("SCAN", cursor, "MATCH", pattern, "COUNT", CHUNK)
                    yield page
                    if cursor == b"0":
                        break
        except DOWN as error:
            raise _failed(error) from error

    def _do(self, steps: Steps) -> Any:
        """Each step is a list of commands, one round trip; its result the list of their replies."""
        try:
            return drive(steps, self.link.pipeline)
        except DOWN as error:
            raise _failed(error) from error

    async def _ado(self, steps: Steps) -> Any:
        try:
            return await adrive(steps, self.alink().pipeline)
        except DOWN as error:
            raise _failed(error) from error


def _expire(key: str, ttl_s: float | None) -> Steps:
    if ttl_s is None:  # PERSIST says 0 both for a missing key and for one that lives for ever already
        return all_good((yield [("PERSIST", key), ("EXISTS", key)]))[1]
    return all_good((yield [("PEXPIRE", key, _milliseconds(ttl_s))]))[0]


def _ttl_s(key: str) -> Steps:
    left_ms = all_good((yield [("PTTL", key)]))[0]
    if left_ms == -2:
        return None
    return math.inf if left_ms == -1 else left_ms / 1000


def _life(ttl_s: float | None) -> Command:
    return () if ttl_s is None else ("PX", _milliseconds(ttl_s))


def _milliseconds(ttl_s: float) -> int:
    """At least one: the server refuses 0."""
    return min(max(1, round(ttl_s * 1000)), _LONGEST_MS) if ttl_s < _LONGEST_MS else _LONGEST_MS


def _strings(replies: list[Any]) -> list[bytes | None]:
    """As MGET answers: what is no string is None."""
    return all_good([None if is_wrong_type(reply) else reply for reply in replies])


def _texts(page: list[bytes]) -> list[str]:
    return [key.decode(errors="backslashreplace") for key in page]


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _nothing(key: str) -> None:
    return None


# --- errors ----------------------------------------------------------------------------------------------------------------

_NO_INTEGER = ("not an integer", "overflow", "WRONGTYPE")


def is_misuse(reply: Any) -> bool:
    """An error reply that says something about the command, not about the server: WRONGTYPE, no integer, CROSSSLOT."""
    if isinstance(reply, redis.DataError | redis.exceptions.ClusterCrossSlotError):
        return True
    # redis-py takes the word ERR off the text.
    return is_wrong_type(reply) or (type(reply) is redis.ResponseError and reply.status_code == "ERR")


def is_wrong_type(reply: Any) -> bool:
    return type(reply) is redis.ResponseError and str(reply).startswith("WRONGTYPE")


def _failed(error: Exception) -> StoreFailed:
    return StoreFailed(str(error))


def _of_a_read(error: Exception) -> Exception:
    return Unreadable("foreign") if is_wrong_type(error) else _failed(error)
