"""Lists: what each method sends, and what its reply means."""

from __future__ import annotations

from typing import Any

from .questions import (
    Method,
    Names,
    Question,
    empty_list,
    given,
    method,
    one_or_list,
    one_or_many,
    unpacked,
)

METHODS: dict[str, Method] = {}


@method(METHODS, neutral=0)
def lpush(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """The new length."""
    return Question(("LPUSH", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(METHODS, neutral=0)
def rpush(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """The new length."""
    return Question(("RPUSH", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(METHODS, neutral=one_or_list)
def lpop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one value or None, else a list."""
    command = ("LPOP", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: one_or_many(cache, reply, count, list))


@method(METHODS, neutral=one_or_list)
def rpop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one value or None, else a list."""
    command = ("RPOP", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: one_or_many(cache, reply, count, list))


@method(METHODS, neutral=0)
def llen(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("LLEN", cache.full_key(key, version)), int, is_read=True)


@method(METHODS, neutral=empty_list)
def lrange(cache: Names, key: Any, start: int, end: int, version: int | None = None) -> Question:
    command = ("LRANGE", cache.full_key(key, version), start, end)
    return Question(command, cache.unpack_members, is_read=True)


@method(METHODS, neutral=None)
def lindex(cache: Names, key: Any, index: int, version: int | None = None) -> Question:
    command = ("LINDEX", cache.full_key(key, version), index)
    return Question(command, lambda reply: unpacked(cache, reply), is_read=True)


@method(METHODS, neutral=0)
def lrem(cache: Names, key: Any, count: int, value: Any, version: int | None = None) -> Question:
    """How many were removed. count: how many at most, from the end where it is negative; 0 = all."""
    return Question(("LREM", cache.full_key(key, version), count, cache.pack_member(value)), int)


@method(METHODS, neutral=False)
def ltrim(cache: Names, key: Any, start: int, end: int, version: int | None = None) -> Question:
    return Question(("LTRIM", cache.full_key(key, version), start, end), bool)
