"""What a structure's method is: from its arguments the command to send and how to read the reply. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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


Recipe = Callable[..., Question]


def method(methods: dict[str, Method], neutral: Any) -> Callable[[Recipe], Recipe]:
    """Puts the recipe into this table by its name. neutral: a value, or what makes one of the arguments."""
    make = neutral if callable(neutral) else lambda *_, **__: neutral

    def register(recipe: Recipe) -> Recipe:
        methods[recipe.__name__] = Method(recipe, make)
        return recipe

    return register


def empty_list(*_: Any, **__: Any) -> list[Any]:
    return []


def empty_set(*_: Any, **__: Any) -> set[Any]:
    return set()


def empty_dict(*_: Any, **__: Any) -> dict[Any, Any]:
    return {}


def one_or_list(key: Any, count: int | None = None, **_: Any) -> list[Any] | None:
    return None if count is None else []


def one_or_set(key: Any, count: int | None = None, **_: Any) -> set[Any] | None:
    return None if count is None else set()


def full_keys(cache: Names, keys: Iterable[Any], version: int | None) -> list[str]:
    return [cache.full_key(key, version) for key in keys]


def given(count: int | None) -> tuple[int, ...]:
    return () if count is None else (count,)


def in_pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def one_or_many(cache: Names, reply: Any, count: int | None, kind: Callable[[Any], Any]) -> Any:
    """Without count one member or None, else all of them as this kind of collection."""
    if count is None:
        return unpacked(cache, reply)
    return kind(cache.unpack_members(reply or []))


def unpacked(cache: Names, member: bytes | None) -> Any:
    """None: there is none, or it cannot be read."""
    found = [] if member is None else cache.unpack_members([member])
    return found[0] if found else None
