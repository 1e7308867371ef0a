from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from cache_app.codec import Codec, Meta
from cache_app.copies import copying
from cache_app.entries import wall_s
from cache_app.l1 import L1, life_s
from cache_app.store import Held, Payload, StoreFailed
from cache_app.tiered_store import TieredStore

TAGS = "p:tag:"


class Memory:
    """Keeps everything, and says for how long it was asked to."""

    def __init__(self) -> None:
        self.kept: dict[str, Payload] = {}
        self.lives: dict[str, float | None] = {}

    def get(self, key: str) -> Payload | None:
        return self.kept.get(key)

    def set(self, key: str, payload: Payload, ttl_s: float | None) -> bool:
        self.kept[key], self.lives[key] = payload, ttl_s
        return True

    def delete_many(self, keys: Sequence[str]) -> int:
        return sum(self.kept.pop(key, None) is not None for key in keys)


class Shared:
    """The store behind: counts what it is asked, and does something between its look and its answer."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.is_down = False

    def _look(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += keys
        found = [self.data.get(key) for key in keys]
        self.during()
        if self.is_down:
            raise StoreFailed
        return found

    def get(self, key: str) -> Payload | None:
        return self._look([key])[0]

    def get_many(self, keys: Sequence[str]) -> list[Payload | None]:
        return list(self._look(keys))

    def versions(self, keys: Sequence[str]) -> list[int]:
        for key in keys:
            self.data.setdefault(key, b"7")
        return [int(found or 0) for found in self._look(keys)]

    def _write(self, keys: Sequence[str], *_: Any, **__: Any) -> Any:
        self._look(keys if isinstance(keys, list | tuple) else [keys])

    def set_many(self, items: Sequence[tuple[str, Any, Any]]) -> None:
        self._look([item[0] for item in items])

    set = delete_many = incr = expire = raise_versions = delete_matching = _write

    def __getattr__(self, name: str) -> Any:
        sync = getattr(type(self), name.removeprefix("a"), None)
        if not name.startswith("a") or sync is None:
            raise AttributeError(name)

        async def twin(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return sync(self, *args, **options)

        return twin


class Lease:
    """A tracker that is live for as long as the test says."""

    def __init__(self) -> None:
        self.lease_until = math.inf
        self.starts = 0

    @property
    def fresh_until(self) -> float:
        return self.lease_until

    def look(self, now: float) -> bool:
        return now < self.lease_until

    def start(self) -> None:
        self.starts += 1

    def close(self) -> None:
        self.lease_until = -math.inf


class Tiers:
    def __init__(self, *, copies: bool = True, serializer: str = "json") -> None:
        self.l1, self.l2, self.lease = L1(Memory, 60.0), Shared(), Lease()
        self.store = TieredStore(
            self.l1,
            self.l2,  # type: ignore[arg-type]
            self.lease,  # type: ignore[arg-type]
            tag_stem=TAGS,
            copying=copying(serializer) if copies else None,
        )
        self.store.codec = Codec(serializer, keys=[b"k" * 32])

    def put(self, key: str, value: Any, **meta: Any) -> bytes:
        made = replace(Meta(wall_s(), wall_s() + 30), **meta) if meta.pop("timed", True) else None
        self.l2.data[key] = self.store.codec.encode(key, value, made)
        return self.l2.data[key]

    @property
    def kept(self) -> dict[str, Payload]:
        return self.l1.memory.kept  # type: ignore[attr-defined]

    @property
    def lives(self) -> dict[str, float]:
        return self.l1.memory.lives  # type: ignore[attr-defined]


@pytest.fixture
def tiers() -> Tiers:
    return Tiers()


def value_of(payload: Payload | None) -> Any:
    assert isinstance(payload, Held)
    return payload.value


Read = Callable[[Tiers, str], Payload | None]


def _aget(tiers: Tiers, key: str) -> Payload | None:
    return asyncio.run(tiers.store.aget(key))


WAYS: dict[str, Read] = {
    "get": lambda tiers, key: tiers.store.get(key),
    "get_many": lambda tiers, key: tiers.store.get_many([key])[0],
    "aget": _aget,
    "aget_many": lambda tiers, key: asyncio.run(tiers.store.aget_many([key]))[0],
}


@pytest.fixture(params=list(WAYS))
def read(request: pytest.FixtureRequest) -> Read:
    return WAYS[request.param]


# --- what is kept, and for how long --------------------------------------------------------------------------------------
def test_read__entry_with_an_end__is_kept_until_then_and_at_most_for_the_ceiling(
    tiers: Tiers, read: Read
) -> None:
    tiers.put("p:1:a", [1])
    tiers.put("p:1:b", [2], expires_at=wall_s() + 1000)
    tiers.put("p:1:c", [3], expires_at=None)
    assert [value_of(read(tiers, key)) for key in ("p:1:a", "p:1:b", "p:1:c")] == [[1], [2], [3]]
    assert {key: value_of(kept) for key, kept in tiers.kept.items()} == {
        "p:1:a": b"[1]",
        "p:1:b": b"[2]",
        "p:1:c": b"[3]",
    }
    assert tiers.lives == {"p:1:a": pytest.approx(30, abs=25), "p:1:b": 60.0, "p:1:c": 60.0}
    assert tiers.store.near("p:1:a") is tiers.kept["p:1:a"]


def test_read__number_or_entry_without_an_end_or_nothing__is_not_kept(tiers: Tiers, read: Read) -> None:
    tiers.l2.data |= {
        "p:1:count": b"41",
        "p:1:debt": b"-4",
        "p:1:foreign": b'{"a":1}',
        "p:1:bad": b"\xc1\x00",
    }
    for key in [*tiers.l2.data, "p:1:none"]:
        if key != "p:1:foreign":
            assert read(tiers, key) in (tiers.l2.data.get(key), Held(-4, None, 2))
    tiers.put("p:1:bare", [1], timed=False)
    tiers.put("p:1:over", [1], expires_at=wall_s() - 1)
    assert [value_of(read(tiers, f"p:1:{key}")) for key in ("foreign", "bare", "over")] == [
        {"a": 1},
        [1],
        [1],
    ]
    assert tiers.kept == {}


def test_read__sliding_entry__is_kept_for_a_quarter_of_it(tiers: Tiers, read: Read) -> None:
    tiers.put("p:1:a", [1], expires_at=None, sliding_s=20.0)
    read(tiers, "p:1:a")
    assert tiers.lives == {"p:1:a": 5.0}


def test_read__references__keeps_what_the_bytes_decode_to(read: Read) -> None:
    tiers = Tiers(copies=False)
    tiers.put("p:1:a", {"x": [1]})
    tiers.l2.data["p:1:bad"] = b"\xc1\x00"
    found = read(tiers, "p:1:a")
    assert isinstance(found, Held)
    assert found.value == {"x": [1]}
    near = tiers.store.near("p:1:a")
    assert isinstance(near, Held)
    assert near.value is found.value
    assert 200 < near.size_bytes < 2000
    assert read(tiers, "p:1:bad") == b"\xc1\x00"
    assert list(tiers.kept) == ["p:1:a"]


VALUES = [[1, {"a": None}], {"$t": [1]}, "text", 1.5, 2**70 * 1.0]


@pytest.mark.parametrize("serializer", ["json", "typed", "pickle"])
def test_read__copies__memory_has_a_value_for_each_reader_that_equals_redis(serializer: str) -> None:
    tiers = Tiers(serializer=serializer)
    values = VALUES if serializer == "json" else [*VALUES, (1, {2, 3}), Decimal("1.10"), b"\x00"]
    loads = copying(serializer).loads
    for number, value in enumerate(values):
        tiers.put(f"p:1:{number}", value)
        found = value_of(tiers.store.get(f"p:1:{number}"))
        near = value_of(tiers.store.near(f"p:1:{number}"))
        assert found == loads(near) == value
        assert type(found) is type(loads(near))
        assert loads(near) is not loads(near) or isinstance(value, str | float | bytes)


def test_read__entry_of_an_alias_that_keeps_types__json_does_not_keep_it(tiers: Tiers) -> None:
    tiers.l2.data["p:1:a"] = Codec("typed").encode("p:1:a", (1, 2), Meta(wall_s(), None))
    assert value_of(tiers.store.get("p:1:a")) == (1, 2)
    assert tiers.kept == {}


def test_life_s__of_each_kind() -> None:
    assert life_s(Meta(0.0, 10.0), 4.0) == 6.0
    assert life_s(Meta(0.0, None), 4.0) == math.inf
    assert life_s(Meta(0.0, None, sliding_s=8.0), 4.0) == 2.0
    assert life_s(Meta(0.0, 5.0, sliding_s=8.0), 4.0) == 1.0


# --- the race of a read with a change ------------------------------------------------------------------------------------
def test_read__key_changes_while_it_is_read__old_value_is_not_kept(tiers: Tiers, read: Read) -> None:
    tiers.put("p:1:a", ["old"])

    def elsewhere() -> None:
        tiers.l2.during = lambda: None
        tiers.put("p:1:a", ["new"])
        tiers.l1.drop(["p:1:a"])  # as the tracker does

    tiers.l2.during = elsewhere
    assert value_of(read(tiers, "p:1:a")) == ["old"]
    assert tiers.kept == {}
    assert value_of(read(tiers, "p:1:a")) == ["new"]
    assert list(tiers.kept) == ["p:1:a"]


def test_read__tracker_is_lost_and_found_meanwhile__old_value_is_not_kept(tiers: Tiers, read: Read) -> None:
    tiers.put("p:1:a", ["old"])
    tiers.l2.during = tiers.l1.flush
    read(tiers, "p:1:a")
    assert tiers.kept == {}


def test_read__began_while_the_tracker_was_down__is_not_kept(tiers: Tiers, read: Read) -> None:
    tiers.lease.lease_until = -math.inf
    tiers.put("p:1:a", ["old"])

    def comes_up() -> None:
        tiers.lease.lease_until = math.inf

    tiers.l2.during = comes_up
    read(tiers, "p:1:a")
    assert tiers.kept == {}
    assert tiers.lease.starts == 1


def test_read__own_write_meanwhile__old_value_is_not_kept(tiers: Tiers, read: Read) -> None:
    tiers.put("p:1:a", ["old"])

    def own_write() -> None:
        tiers.l2.during = lambda: None
        tiers.store.set("p:1:a", b"new", 30.0)

    tiers.l2.during = own_write
    read(tiers, "p:1:a")
    assert tiers.kept == {}


async def test_aget__is_cancelled__leaves_nothing_behind(tiers: Tiers) -> None:
    tiers.put("p:1:a", [1])
    task = asyncio.ensure_future(tiers.store.aget("p:1:a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tiers.kept == {}
    assert await tiers.store.aget("p:1:a") is not None
    assert list(tiers.kept) == ["p:1:a"]


# --- while the tracker is down -------------------------------------------------------------------------------------------
def test_near__lease_is_over__is_nothing_though_memory_holds_it(tiers: Tiers) -> None:
    tiers.put("p:1:a", [1])
    tiers.store.get("p:1:a")
    tiers.lease.lease_until = time.monotonic() - 0.001
    assert tiers.store.near("p:1:a") is None
    tiers.store.get("p:1:a")
    assert tiers.l2.asked == ["p:1:a", "p:1:a"]


# --- writes --------------------------------------------------------------------------------------------------------------
WRITES: dict[str, Callable[[TieredStore], Any]] = {
    "set": lambda store: store.set("p:1:a", b"x", None),
    "set_many": lambda store: store.set_many([("p:1:a", b"x", None)]),
    "delete_many": lambda store: store.delete_many(["p:1:a"]),
    "incr": lambda store: store.incr("p:1:a", 1),
    "expire": lambda store: store.expire("p:1:a", 1.0),
    "raise_versions": lambda store: store.raise_versions(["p:1:a"]),
    "delete_matching": lambda store: store.delete_matching("p:1:*"),
    "aset": lambda store: asyncio.run(store.aset("p:1:a", b"x", None)),
    "aset_many": lambda store: asyncio.run(store.aset_many([("p:1:a", b"x", None)])),
    "adelete_many": lambda store: asyncio.run(store.adelete_many(["p:1:a"])),
    "aincr": lambda store: asyncio.run(store.aincr("p:1:a", 1)),
    "aexpire": lambda store: asyncio.run(store.aexpire("p:1:a", 1.0)),
    "araise_versions": lambda store: asyncio.run(store.araise_versions(["p:1:a"])),
    "adelete_matching": lambda store: asyncio.run(store.adelete_matching("p:1:*")),
}


@pytest.mark.parametrize("is_down", [False, True])
@pytest.mark.parametrize("write", list(WRITES))
def test_write__of_any_kind_and_end__leaves_nothing_old_in_memory(
    tiers: Tiers, write: str, is_down: bool
) -> None:
    """Not what was there before, and not what a reader brings that was quicker than the write."""
    tiers.put("p:1:a", ["old"])
    tiers.store.get("p:1:a")
    seen: list[Payload | None] = []

    def reader_comes_between() -> None:
        seen.append(tiers.store.near("p:1:a"))
        tiers.l2.during = lambda: None
        tiers.store.get("p:1:a")

    tiers.l2.during, tiers.l2.is_down = reader_comes_between, False
    if is_down:
        between = tiers.l2.during

        def and_fail() -> None:
            between()
            tiers.l2.is_down = True

        tiers.l2.during = and_fail
        with pytest.raises(StoreFailed):
            WRITES[write](tiers.store)
    else:
        WRITES[write](tiers.store)
    assert seen == [None]
    assert tiers.kept == {}


# --- numbers of tags -----------------------------------------------------------------------------------------------------
def test_numbers__known_to_memory__are_not_asked_for(tiers: Tiers) -> None:
    tiers.l2.data |= {f"{TAGS}red": b"7", f"{TAGS}blue": b"9"}
    assert tiers.store.get_many([f"{TAGS}red"]) == [b"7"]
    tiers.put("p:1:a", [1])
    assert tiers.store.get_many(["p:1:a", f"{TAGS}red", f"{TAGS}blue"])[1:] == [b"7", b"9"]
    assert tiers.store.versions([f"{TAGS}blue", f"{TAGS}red"]) == [9, 7]
    assert asyncio.run(tiers.store.aversions([f"{TAGS}blue", f"{TAGS}new"])) == [9, 7]
    assert tiers.l2.asked == [f"{TAGS}red", "p:1:a", f"{TAGS}blue", f"{TAGS}new"]
    tiers.store.raise_versions([f"{TAGS}red"])
    tiers.l2.asked.clear()
    tiers.store.versions([f"{TAGS}blue", f"{TAGS}red"])
    assert tiers.l2.asked == [f"{TAGS}red"]


def test_get_many__key_asked_twice__answers_twice(tiers: Tiers) -> None:
    tiers.put("p:1:a", [1])
    assert [value_of(found) for found in tiers.store.get_many(["p:1:a", "p:1:a"])] == [[1], [1]]


# --- sliding, forks, the end ---------------------------------------------------------------------------------------------
def test_slides__read_again_and_again__says_so_once_per_quarter(tiers: Tiers) -> None:
    assert [tiers.store.slides("p:1:a", 200) for _ in range(3)] == [True, False, False]
    assert tiers.store.slides("p:1:b", 200)
    time.sleep(0.06)
    assert not tiers.store.slides("p:1:a", 200)
    assert tiers.store.slides("p:1:a", 0.2)


def test_fork__child__begins_with_an_empty_memory_and_free_locks(tiers: Tiers) -> None:
    tiers.put("p:1:a", [1])
    tiers.store.get("p:1:a")
    reading, writing = os.pipe()
    with tiers.l1._lock:  # as another thread of the parent may at this moment
        child = os.fork()
        if child == 0:
            os.write(writing, b"empty" if tiers.store.near("p:1:a") is None else b"full")
            tiers.l1.drop(["p:1:a"])
            os.write(writing, b", free")
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "empty, free"
    os.waitpid(child, 0)
    assert tiers.store.near("p:1:a") is not None


def test_close__memory_is_not_used_any_more(tiers: Tiers) -> None:
    tiers.put("p:1:a", [1])
    tiers.store.get("p:1:a")
    tiers.store.close()
    assert tiers.store.near("p:1:a") is None
