"""Hashes: what each method sends, and what its reply means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import redis

from .questions import Method, Names, Question, empty_dict, empty_list, in_pairs, method, unpacked

METHODS: dict[str, Method] = {}


@method(METHODS, neutral=0)
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


@method(METHODS, neutral=0)
def hdel(cache: Names, key: Any, *fields: Any, version: int | None = None) -> Question:
    """How many there were."""
    return Question(("HDEL", cache.full_key(key, version), *fields), int)


@method(METHODS, neutral=None)
def hget(cache: Names, key: Any, field: Any, version: int | None = None) -> Question:
    command = ("HGET", cache.full_key(key, version), field)
    return Question(command, lambda reply: unpacked(cache, reply), is_read=True)


@method(METHODS, neutral=lambda key, fields, **_: [None] * len(list(fields)))
def hmget(cache: Names, key: Any, fields: Iterable[Any], version: int | None = None) -> Question:
    """In the order of the fields; None: it has none such."""
    command = ("HMGET", cache.full_key(key, version), *fields)
    return Question(command, lambda reply: [unpacked(cache, data) for data in reply], is_read=True)


@method(METHODS, neutral=empty_dict)
def hgetall(cache: Names, key: Any, version: int | None = None) -> Question:
    """{field as text: value}"""

    def read(reply: list[bytes]) -> dict[str, Any]:
        return {
            field.decode(): value for field, data in in_pairs(reply) for value in cache.unpack_members([data])
        }

    return Question(("HGETALL", cache.full_key(key, version)), read, is_read=True)


@method(METHODS, neutral=empty_list)
def hvals(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("HVALS", cache.full_key(key, version)), cache.unpack_members, is_read=True)


@method(METHODS, neutral=empty_list)
def hkeys(cache: Names, key: Any, version: int | None = None) -> Question:
    command = ("HKEYS", cache.full_key(key, version))
    return Question(command, lambda reply: [field.decode() for field in reply], is_read=True)


@method(METHODS, neutral=0)
def hlen(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("HLEN", cache.full_key(key, version)), int, is_read=True)


@method(METHODS, neutral=False)
def hexists(cache: Names, key: Any, field: Any, version: int | None = None) -> Question:
    return Question(("HEXISTS", cache.full_key(key, version), field), bool, is_read=True)


@method(METHODS, neutral=0)
def hincrby(cache: Names, key: Any, field: Any, amount: int = 1, version: int | None = None) -> Question:
    """The new value. A missing field counts from 0."""
    return Question(("HINCRBY", cache.full_key(key, version), field, amount), int)
