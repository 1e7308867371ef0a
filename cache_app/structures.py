"""Sets, hashes, sorted sets and lists of Redis: what each method sends, and what its reply means. No I/O.

method and arguments → Question (a command, how to read the reply) → either door of redis.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis


class Names(Protocol):
    """How a cache spells its keys, and the values inside a structure."""

    def full_key(self, key: Any, version: int | None = None) -> str: ...
    def pack_member(self, value: Any) -> bytes:
        """The same bytes in every key: the server compares members by them."""

    def unpack_members(self, members: Iterable[bytes]) -> list[Any]:
        """Without those that cannot be read."""


@dataclass(frozen=True, slots=True)
class Question:
    command: tuple[Any, ...]
    read: Callable[[Any], Any]
    is_read: bool = False  # changes nothing: may be sent again on a new connection


@dataclass(frozen=True, slots=True)
class Method:
    """neutral: from the method's arguments, what it says while the server is down and that is ignored."""

    ask: Callable[..., Question]
    neutral: Callable[..., Any]


METHODS: dict[str, Method] = {}
Recipe = Callable[..., Question]


def method(neutral: Any) -> Callable[[Recipe], Recipe]:
    """neutral: a value, or what makes one of the arguments."""
    make = neutral if callable(neutral) else lambda *_, **__: neutral

    def register(recipe: Recipe) -> Recipe:
        METHODS[recipe.__name__] = Method(recipe, make)
        return recipe

    return register


def _empty_list(*_: Any, **__: Any) -> list[Any]:
    return []


def _empty_set(*_: Any, **__: Any) -> set[Any]:
    return set()


def _empty_dict(*_: Any, **__: Any) -> dict[Any, Any]:
    return {}


def _one_or_list(key: Any, count: int | None = None, **_: Any) -> list[Any] | None:
    return None if count is None else []


def _one_or_set(key: Any, count: int | None = None, **_: Any) -> set[Any] | None:
    return None if count is None else set()


# --- sets ----------------------------------------------------------------------------------------------------------------


@method(neutral=0)
def sadd(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """How many were new."""
    return Question(("SADD", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(neutral=0)
def scard(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("SCARD", cache.full_key(key, version)), int, is_read=True)


@method(neutral=_empty_set)
def sdiff(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SDIFF", keys, version)


@method(neutral=0)
def sdiffstore(
    cache: Names, dest: Any, *keys: Any, version_dest: int | None = None, version_keys: int | None = None
) -> Question:
    full = [cache.full_key(key, version_keys) for key in keys]
    return Question(("SDIFFSTORE", cache.full_key(dest, version_dest), *full), int)


@method(neutral=_empty_set)
def sinter(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SINTER", keys, version)


@method(neutral=0)
def sinterstore(cache: Names, dest: Any, *keys: Any, version: int | None = None) -> Question:
    return Question(("SINTERSTORE", *_full(cache, (dest, *keys), version)), int)


@method(neutral=False)
def sismember(cache: Names, key: Any, member: Any, version: int | None = None) -> Question:
    command = ("SISMEMBER", cache.full_key(key, version), cache.pack_member(member))
    return Question(command, bool, is_read=True)


@method(neutral=lambda key, *members, **_: [False] * len(members))
def smismember(cache: Names, key: Any, *members: Any, version: int | None = None) -> Question:
    command = ("SMISMEMBER", cache.full_key(key, version), *map(cache.pack_member, members))
    return Question(command, lambda reply: [bool(found) for found in reply], is_read=True)


@method(neutral=_empty_set)
def smembers(cache: Names, key: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SMEMBERS", (key,), version)


@method(neutral=False)
def smove(cache: Names, source: Any, destination: Any, member: Any, version: int | None = None) -> Question:
    """version: of the source; the destination has the cache's own, as in django-redis."""
    command = ("SMOVE", cache.full_key(source, version), cache.full_key(destination))
    return Question((*command, cache.pack_member(member)), bool)


@method(neutral=_one_or_set)
def spop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one member or None, else a set."""
    command = ("SPOP", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _some(cache, reply, count, set))


@method(neutral=_one_or_list)
def srandmember(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one member or None, else a list."""
    command = ("SRANDMEMBER", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _some(cache, reply, count, list), is_read=True)


@method(neutral=0)
def srem(cache: Names, key: Any, *members: Any, version: int | None = None) -> Question:
    return Question(("SREM", cache.full_key(key, version), *map(cache.pack_member, members)), int)


@method(neutral=_empty_set)
def sunion(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SUNION", keys, version)


@method(neutral=0)
def sunionstore(cache: Names, destination: Any, *keys: Any, version: int | None = None) -> Question:
    return Question(("SUNIONSTORE", *_full(cache, (destination, *keys), version)), int)


def _page(
    cache: Names, key: Any, cursor: bytes, match: str | None, count: int | None, version: int | None
) -> Question:
    """The next cursor (None at the end) and the members of this page."""
    asked = () if match is None else ("MATCH", cache.pack_member(match))
    command = ("SSCAN", cache.full_key(key, version), cursor, *asked, *(("COUNT", count) if count else ()))

    def read(reply: list[Any]) -> tuple[bytes | None, set[Any]]:
        return None if reply[0] == b"0" else reply[0], set(cache.unpack_members(reply[1]))

    return Question(command, read, is_read=True)


def _page_of_signed(
    cache: Names, key: Any, cursor: bytes, match: str | None, count: int | None, version: int | None
) -> Question:
    if match is not None:
        raise ValueError("match cannot look into members that are signed or pickled")
    return _page(cache, key, cursor, match, count, version)


def _last_page(*_: Any) -> tuple[None, set[Any]]:
    return None, set()


SSCAN, SSCAN_SIGNED = Method(_page, _last_page), Method(_page_of_signed, _last_page)


def _set_of(cache: Names, name: str, keys: Sequence[Any], version: int | None) -> Question:
    command = (name, *_full(cache, keys, version))
    return Question(command, lambda reply: set(cache.unpack_members(reply)), is_read=True)


def _some(cache: Names, reply: Any, count: int | None, kind: Callable[[Any], Any]) -> Any:
    if count is None:
        return _first(cache, reply)
    return kind(cache.unpack_members(reply or []))


def _first(cache: Names, member: bytes | None) -> Any:
    found = [] if member is None else cache.unpack_members([member])
    return found[0] if found else None


# --- hashes --------------------------------------------------------------------------------------------------------------


@method(neutral=0)
def hset(
    cache: Names,
    key: Any,
    field: Any = None,
    value: Any = None,
    mapping: Mapping[Any, Any] | None = None,
    version: int | None = None,
) -> Question:
    """One field, or those of a mapping, or both. How many were new."""
    pairs = ([] if field is None else [(field, value)]) + list((mapping or {}).items())
    if not pairs:
        raise redis.DataError("hset needs a field and a value, or a mapping that is not empty")
    packed = [part for name, one in pairs for part in (name, cache.pack_member(one))]
    return Question(("HSET", cache.full_key(key, version), *packed), int)


@method(neutral=0)
def hdel(cache: Names, key: Any, *fields: Any, version: int | None = None) -> Question:
    """How many there were."""
    return Question(("HDEL", cache.full_key(key, version), *fields), int)


@method(neutral=None)
def hget(cache: Names, key: Any, field: Any, version: int | None = None) -> Question:
    command = ("HGET", cache.full_key(key, version), field)
    return Question(command, lambda reply: _first(cache, reply), is_read=True)


@method(neutral=lambda key, fields, **_: [None] * len(list(fields)))
def hmget(cache: Names, key: Any, fields: Iterable[Any], version: int | None = None) -> Question:
    """In the order of the fields; None: it has none such."""
    command = ("HMGET", cache.full_key(key, version), *fields)
    return Question(command, lambda reply: [_first(cache, data) for data in reply], is_read=True)


@method(neutral=_empty_dict)
def hgetall(cache: Names, key: Any, version: int | None = None) -> Question:
    """{field as text: value}"""

    def read(reply: list[bytes]) -> dict[str, Any]:
        return {
            field.decode(): value for field, data in _pairs(reply) for value in cache.unpack_members([data])
        }

    return Question(("HGETALL", cache.full_key(key, version)), read, is_read=True)


@method(neutral=_empty_list)
def hvals(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("HVALS", cache.full_key(key, version)), cache.unpack_members, is_read=True)


@method(neutral=_empty_list)
def hkeys(cache: Names, key: Any, version: int | None = None) -> Question:
    command = ("HKEYS", cache.full_key(key, version))
    return Question(command, lambda reply: [field.decode() for field in reply], is_read=True)


@method(neutral=0)
def hlen(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("HLEN", cache.full_key(key, version)), int, is_read=True)


@method(neutral=False)
def hexists(cache: Names, key: Any, field: Any, version: int | None = None) -> Question:
    return Question(("HEXISTS", cache.full_key(key, version), field), bool, is_read=True)


@method(neutral=0)
def hincrby(cache: Names, key: Any, field: Any, amount: int = 1, version: int | None = None) -> Question:
    """The new value. A missing field counts from 0."""
    return Question(("HINCRBY", cache.full_key(key, version), field, amount), int)


# --- sorted sets ---------------------------------------------------------------------------------------------------------


@method(neutral=lambda *_, **options: None if options.get("incr") else 0)
def zadd(
    cache: Names,
    key: Any,
    mapping: Mapping[Any, float],
    nx: bool = False,
    xx: bool = False,
    ch: bool = False,
    incr: bool = False,
    gt: bool = False,
    lt: bool = False,
    version: int | None = None,
) -> Question:
    """mapping: {member: score}. How many were new (ch: or changed); incr: the new score, None where a flag forbade it."""
    if not mapping or (incr and len(mapping) != 1):
        raise redis.DataError("zadd needs one pair of member and score or more, with incr exactly one")
    if (nx and xx) or (gt and lt) or (nx and (gt or lt)):
        raise redis.DataError("of nx, gt and lt only one may be set, and nx not with xx")
    asked = {"NX": nx, "XX": xx, "GT": gt, "LT": lt, "CH": ch, "INCR": incr}
    flags = [flag for flag, is_set in asked.items() if is_set]
    pairs = [part for member, score in mapping.items() for part in (score, cache.pack_member(member))]
    return Question(("ZADD", cache.full_key(key, version), *flags, *pairs), _score if incr else int)


@method(neutral=0)
def zcard(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("ZCARD", cache.full_key(key, version)), int, is_read=True)


@method(neutral=0)
def zcount(cache: Names, key: Any, min: Any, max: Any, version: int | None = None) -> Question:
    return Question(("ZCOUNT", cache.full_key(key, version), min, max), int, is_read=True)


@method(neutral=None)
def zincrby(cache: Names, key: Any, amount: float, value: Any, version: int | None = None) -> Question:
    """The new score."""
    return Question(("ZINCRBY", cache.full_key(key, version), amount, cache.pack_member(value)), _score)


@method(neutral=_one_or_list)
def zpopmax(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count a pair (member, score) or None, else a list of them."""
    command = ("ZPOPMAX", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _popped(cache, reply, count))


@method(neutral=_one_or_list)
def zpopmin(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count a pair (member, score) or None, else a list of them."""
    command = ("ZPOPMIN", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _popped(cache, reply, count))


@method(neutral=_empty_list)
def zrange(
    cache: Names,
    key: Any,
    start: int,
    end: int,
    desc: bool = False,
    withscores: bool = False,
    score_cast_func: Callable[[float], Any] = float,
    version: int | None = None,
) -> Question:
    name = "ZREVRANGE" if desc else "ZRANGE"
    return _range(cache, (name, cache.full_key(key, version), start, end), withscores, score_cast_func)


@method(neutral=_empty_list)
def zrevrange(
    cache: Names,
    key: Any,
    start: int,
    end: int,
    withscores: bool = False,
    score_cast_func: Callable[[float], Any] = float,
    version: int | None = None,
) -> Question:
    return zrange(cache, key, start, end, True, withscores, score_cast_func, version)


@method(neutral=_empty_list)
def zrangebyscore(
    cache: Names,
    key: Any,
    min: Any,
    max: Any,
    start: int | None = None,
    num: int | None = None,
    withscores: bool = False,
    score_cast_func: Callable[[float], Any] = float,
    version: int | None = None,
) -> Question:
    command = ("ZRANGEBYSCORE", cache.full_key(key, version), min, max)
    return _range(cache, command, withscores, score_cast_func, _limit(start, num))


@method(neutral=_empty_list)
def zrevrangebyscore(
    cache: Names,
    key: Any,
    max: Any,
    min: Any,
    start: int | None = None,
    num: int | None = None,
    withscores: bool = False,
    score_cast_func: Callable[[float], Any] = float,
    version: int | None = None,
) -> Question:
    command = ("ZREVRANGEBYSCORE", cache.full_key(key, version), max, min)
    return _range(cache, command, withscores, score_cast_func, _limit(start, num))


@method(neutral=None)
def zrank(
    cache: Names, key: Any, value: Any, withscore: bool = False, version: int | None = None
) -> Question:
    """From 0 for the lowest; withscore: [rank, score]. None: no such member."""
    return _rank(cache, "ZRANK", key, value, withscore, version)


@method(neutral=None)
def zrevrank(
    cache: Names, key: Any, value: Any, withscore: bool = False, version: int | None = None
) -> Question:
    """From 0 for the highest; withscore: [rank, score]. None: no such member."""
    return _rank(cache, "ZREVRANK", key, value, withscore, version)


@method(neutral=0)
def zrem(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    return Question(("ZREM", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(neutral=0)
def zremrangebyscore(cache: Names, key: Any, min: Any, max: Any, version: int | None = None) -> Question:
    return Question(("ZREMRANGEBYSCORE", cache.full_key(key, version), min, max), int)


@method(neutral=None)
def zscore(cache: Names, key: Any, value: Any, version: int | None = None) -> Question:
    command = ("ZSCORE", cache.full_key(key, version), cache.pack_member(value))
    return Question(command, _score, is_read=True)


def _range(
    cache: Names,
    command: tuple[Any, ...],
    withscores: bool,
    cast: Callable[[float], Any],
    ending: tuple[Any, ...] = (),
) -> Question:
    if not withscores:
        return Question((*command, *ending), cache.unpack_members, is_read=True)
    return Question(
        (*command, "WITHSCORES", *ending), lambda reply: _scored(cache, reply, cast), is_read=True
    )


def _rank(cache: Names, name: str, key: Any, value: Any, withscore: bool, version: int | None) -> Question:
    command = (name, cache.full_key(key, version), cache.pack_member(value))
    if not withscore:
        return Question(command, lambda reply: reply, is_read=True)
    return Question(
        (*command, "WITHSCORE"), lambda reply: reply and [reply[0], float(reply[1])], is_read=True
    )


def _limit(start: int | None, num: int | None) -> tuple[Any, ...]:
    if (start is None) != (num is None):
        raise redis.DataError("start and num go together")
    return () if start is None else ("LIMIT", start, num)


def _popped(cache: Names, reply: list[bytes], count: int | None) -> Any:
    found = _scored(cache, reply, float)
    if count is None:
        return found[0] if found else None
    return found


def _scored(cache: Names, reply: list[bytes], cast: Callable[[float], Any]) -> list[tuple[Any, Any]]:
    found = []
    for member, score in _pairs(reply):
        found += [(value, cast(float(score))) for value in cache.unpack_members([member])]
    return found


def _score(reply: bytes | None) -> float | None:
    return None if reply is None else float(reply)


# --- lists ---------------------------------------------------------------------------------------------------------------


@method(neutral=0)
def lpush(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """The new length."""
    return Question(("LPUSH", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(neutral=0)
def rpush(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """The new length."""
    return Question(("RPUSH", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(neutral=_one_or_list)
def lpop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one value or None, else a list."""
    command = ("LPOP", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _some(cache, reply, count, list))


@method(neutral=_one_or_list)
def rpop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one value or None, else a list."""
    command = ("RPOP", cache.full_key(key, version), *_given(count))
    return Question(command, lambda reply: _some(cache, reply, count, list))


@method(neutral=0)
def llen(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("LLEN", cache.full_key(key, version)), int, is_read=True)


@method(neutral=_empty_list)
def lrange(cache: Names, key: Any, start: int, end: int, version: int | None = None) -> Question:
    command = ("LRANGE", cache.full_key(key, version), start, end)
    return Question(command, cache.unpack_members, is_read=True)


@method(neutral=None)
def lindex(cache: Names, key: Any, index: int, version: int | None = None) -> Question:
    command = ("LINDEX", cache.full_key(key, version), index)
    return Question(command, lambda reply: _first(cache, reply), is_read=True)


@method(neutral=0)
def lrem(cache: Names, key: Any, count: int, value: Any, version: int | None = None) -> Question:
    """How many were removed. count: how many at most, from the end where it is negative; 0 = all."""
    return Question(("LREM", cache.full_key(key, version), count, cache.pack_member(value)), int)


@method(neutral=False)
def ltrim(cache: Names, key: Any, start: int, end: int, version: int | None = None) -> Question:
    return Question(("LTRIM", cache.full_key(key, version), start, end), bool)


def _count(cache: Names, key: Any, delta: int, version: int | None = None) -> Question:
    return Question(("INCRBY", cache.full_key(key, version), delta), int)


COUNT = Method(_count, lambda *_, **__: 0)


def _full(cache: Names, keys: Iterable[Any], version: int | None) -> list[str]:
    return [cache.full_key(key, version) for key in keys]


def _given(count: int | None) -> tuple[int, ...]:
    return () if count is None else (count,)


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
