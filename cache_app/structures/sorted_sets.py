"""Sorted sets: what each method sends, and what its reply means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis

from .questions import Method, Names, Question, empty_list, given, in_pairs, method, one_or_list

METHODS: dict[str, Method] = {}


@method(METHODS, neutral=lambda *_, **options: None if options.get("incr") else 0)
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


@method(METHODS, neutral=0)
def zcard(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("ZCARD", cache.full_key(key, version)), int, is_read=True)


@method(METHODS, neutral=0)
def zcount(cache: Names, key: Any, min: Any, max: Any, version: int | None = None) -> Question:
    return Question(("ZCOUNT", cache.full_key(key, version), min, max), int, is_read=True)


@method(METHODS, neutral=None)
def zincrby(cache: Names, key: Any, amount: float, value: Any, version: int | None = None) -> Question:
    """The new score."""
    return Question(("ZINCRBY", cache.full_key(key, version), amount, cache.pack_member(value)), _score)


@method(METHODS, neutral=one_or_list)
def zpopmax(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count a pair (member, score) or None, else a list of them."""
    command = ("ZPOPMAX", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: _popped(cache, reply, count))


@method(METHODS, neutral=one_or_list)
def zpopmin(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count a pair (member, score) or None, else a list of them."""
    command = ("ZPOPMIN", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: _popped(cache, reply, count))


@method(METHODS, neutral=empty_list)
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


@method(METHODS, neutral=empty_list)
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


@method(METHODS, neutral=empty_list)
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


@method(METHODS, neutral=empty_list)
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


@method(METHODS, neutral=None)
def zrank(
    cache: Names, key: Any, value: Any, withscore: bool = False, version: int | None = None
) -> Question:
    """From 0 for the lowest; withscore: [rank, score]. None: no such member."""
    return _rank(cache, "ZRANK", key, value, withscore, version)


@method(METHODS, neutral=None)
def zrevrank(
    cache: Names, key: Any, value: Any, withscore: bool = False, version: int | None = None
) -> Question:
    """From 0 for the highest; withscore: [rank, score]. None: no such member."""
    return _rank(cache, "ZREVRANK", key, value, withscore, version)


@method(METHODS, neutral=0)
def zrem(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    return Question(("ZREM", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(METHODS, neutral=0)
def zremrangebyscore(cache: Names, key: Any, min: Any, max: Any, version: int | None = None) -> Question:
    return Question(("ZREMRANGEBYSCORE", cache.full_key(key, version), min, max), int)


@method(METHODS, neutral=None)
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
    for member, score in in_pairs(reply):
        found += [(value, cast(float(score))) for value in cache.unpack_members([member])]
    return found


def _score(reply: bytes | None) -> float | None:
    return None if reply is None else float(reply)
