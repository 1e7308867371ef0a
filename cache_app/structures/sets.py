"""Sets: what each method sends, and what its reply means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .questions import (
    Method,
    Names,
    Question,
    empty_set,
    full_keys,
    given,
    method,
    one_or_list,
    one_or_many,
    one_or_set,
)

METHODS: dict[str, Method] = {}


@method(METHODS, neutral=0)
def sadd(cache: Names, key: Any, *values: Any, version: int | None = None) -> Question:
    """How many were new."""
    return Question(("SADD", cache.full_key(key, version), *map(cache.pack_member, values)), int)


@method(METHODS, neutral=0)
def scard(cache: Names, key: Any, version: int | None = None) -> Question:
    return Question(("SCARD", cache.full_key(key, version)), int, is_read=True)


@method(METHODS, neutral=empty_set)
def sdiff(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SDIFF", keys, version)


@method(METHODS, neutral=0)
def sdiffstore(
    cache: Names, dest: Any, *keys: Any, version_dest: int | None = None, version_keys: int | None = None
) -> Question:
    full = [cache.full_key(key, version_keys) for key in keys]
    return Question(("SDIFFSTORE", cache.full_key(dest, version_dest), *full), int)


@method(METHODS, neutral=empty_set)
def sinter(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SINTER", keys, version)


@method(METHODS, neutral=0)
def sinterstore(cache: Names, dest: Any, *keys: Any, version: int | None = None) -> Question:
    return Question(("SINTERSTORE", *full_keys(cache, (dest, *keys), version)), int)


@method(METHODS, neutral=False)
def sismember(cache: Names, key: Any, member: Any, version: int | None = None) -> Question:
    command = ("SISMEMBER", cache.full_key(key, version), cache.pack_member(member))
    return Question(command, bool, is_read=True)


@method(METHODS, neutral=lambda key, *members, **_: [False] * len(members))
def smismember(cache: Names, key: Any, *members: Any, version: int | None = None) -> Question:
    command = ("SMISMEMBER", cache.full_key(key, version), *map(cache.pack_member, members))
    return Question(command, lambda reply: [bool(found) for found in reply], is_read=True)


@method(METHODS, neutral=empty_set)
def smembers(cache: Names, key: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SMEMBERS", (key,), version)


@method(METHODS, neutral=False)
def smove(cache: Names, source: Any, destination: Any, member: Any, version: int | None = None) -> Question:
    """version: of the source; the destination has the cache's own, as in django-redis."""
    command = ("SMOVE", cache.full_key(source, version), cache.full_key(destination))
    return Question((*command, cache.pack_member(member)), bool)


@method(METHODS, neutral=one_or_set)
def spop(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one member or None, else a set."""
    command = ("SPOP", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: one_or_many(cache, reply, count, set))


@method(METHODS, neutral=one_or_list)
def srandmember(cache: Names, key: Any, count: int | None = None, version: int | None = None) -> Question:
    """Without count one member or None, else a list."""
    command = ("SRANDMEMBER", cache.full_key(key, version), *given(count))
    return Question(command, lambda reply: one_or_many(cache, reply, count, list), is_read=True)


@method(METHODS, neutral=0)
def srem(cache: Names, key: Any, *members: Any, version: int | None = None) -> Question:
    return Question(("SREM", cache.full_key(key, version), *map(cache.pack_member, members)), int)


@method(METHODS, neutral=empty_set)
def sunion(cache: Names, *keys: Any, version: int | None = None) -> Question:
    return _set_of(cache, "SUNION", keys, version)


@method(METHODS, neutral=0)
def sunionstore(cache: Names, destination: Any, *keys: Any, version: int | None = None) -> Question:
    return Question(("SUNIONSTORE", *full_keys(cache, (destination, *keys), version)), int)


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
    command = (name, *full_keys(cache, keys, version))
    return Question(command, lambda reply: set(cache.unpack_members(reply)), is_read=True)
