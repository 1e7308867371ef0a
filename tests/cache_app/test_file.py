from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_app import file_threads
from cache_app.file import FileStore
from cache_app.file_rows import IN_ROW_BYTES, OVERHEAD_BYTES
from cache_app.store import StoreFailed

from .file_stores import BIG, START, Clock, Make, check, contents, files, making, rows, the_file


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(location: Path, clock: Clock) -> Iterator[Make]:
    with making(location, clock) as make:
        yield make


@pytest.fixture
def store(make: Make) -> FileStore:
    return make()


def value(size: int, fill: bytes = b"x") -> bytes:
    return fill * size


SIZES = [0, 1, IN_ROW_BYTES, IN_ROW_BYTES + 1, 300_000]


# --- values ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_get__what_was_set__comes_back__from_another_process_s_store_too(make: Make, size: int) -> None:
    one, other = make(), make()
    assert one.set("k", os.urandom(size), None) is True
    found = one.get("k")
    assert found is not None
    assert len(found) == size
    assert other.get("k") == found
    assert other.get("nothing") is None


def test_set__small_over_big_and_big_over_small__leaves_one_value_and_no_file(
    store: FileStore, location: Path
) -> None:
    store.set("k", value(BIG), None)
    assert len(files(location)) == 1
    store.set("k", value(BIG, b"y"), None)
    assert (store.get("k"), len(files(location))) == (value(BIG, b"y"), 1)
    store.set("k", b"small", None)
    assert (store.get("k"), len(files(location))) == (b"small", 0)
    store.set("k", value(BIG), None)
    assert store.delete_many(["k", "k"]) == 1
    assert (store.get("k"), files(location)) == (None, set())
    check(location)


def test_set__only__is_a_condition_on_what_lives(store: FileStore, clock: Clock, location: Path) -> None:
    for payload in (b"a", value(BIG)):
        assert store.set("k", payload, None, only="existing") is False
        assert store.set("k", payload, 10, only="new") is True
        assert store.set("k", b"b", 10, only="new") is False
        assert store.get("k") == payload
        assert store.set("k", payload + b"c", 10, only="existing") is True
        clock.now += 11
        assert store.set("k", payload, 10, only="existing") is False
        assert store.set("k", payload, 10, only="new") is True
        store.delete_many(["k"])
    check(location)


def test_set__a_held_value__is_refused(store: FileStore) -> None:
    with pytest.raises(TypeError, match="bytes"):
        store.set("k", "text", None)  # type: ignore[arg-type]


def test_many__hundreds_of_all_sizes__in_their_order(store: FileStore, location: Path) -> None:
    values = {f"k{number}": os.urandom(number * 7) for number in range(700)} | {"big": value(BIG)}
    store.set_many([(key, payload, None) for key, payload in values.items()])
    asked = ["none", *reversed(values)]
    assert store.get_many(asked) == [None, *reversed(values.values())]
    assert store.get_many(["k5", "k5"]) == [values["k5"]] * 2
    assert store.delete_many(list(values)) == 701
    assert store.get_many(asked) == [None] * 702
    check(location)


def test_many__the_same_key_twice__the_last_one_counts(store: FileStore, location: Path) -> None:
    store.set_many([("k", b"1", None), ("k", value(BIG), None), ("k", value(BIG, b"y"), None)])
    assert store.get("k") == value(BIG, b"y")
    check(location)


# --- lives -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [3, BIG])
def test_ttl__over__is_a_miss_everywhere(store: FileStore, clock: Clock, size: int) -> None:
    store.set("k", value(size), 10)
    assert store.ttl_s("k") == 10
    clock.now += 9.9
    assert store.get("k") == value(size)
    clock.now += 0.1
    assert (store.get("k"), store.get_many(["k"]), store.ttl_s("k")) == (None, [None], None)
    assert (list(store.scan("*")), store.expire("k", 5), store.delete_many(["k"])) == ([], False, 0)


@pytest.mark.parametrize("size", [3, BIG])
def test_expire__changes_the_life_alone(store: FileStore, clock: Clock, size: int) -> None:
    store.set("k", value(size), 10)
    assert store.expire("k", None) is True
    assert store.ttl_s("k") == math.inf
    assert store.expire("k", 50) is True
    clock.now += 20
    assert (store.ttl_s("k"), store.get("k")) == (30, value(size))
    assert store.expire("k", 0) is True
    assert (store.get("k"), store.expire("k", 5)) == (None, False)


def test_sweep__entries_that_are_over__go_with_later_writes(
    make: Make, clock: Clock, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_app.file_index._SWEEP_S", 0.0)
    counted: list[tuple[str, int]] = []
    store = make(count=lambda event, n: counted.append((event, n)))
    store.set_many([(f"k{number}", value(BIG) if number < 3 else b"x", 10) for number in range(150)])
    clock.now += 11
    store.set("a", b"1", None)
    assert rows(location, "SELECT count(*) FROM entries") == [(51,)]
    store.set("b", b"1", None)
    assert (rows(location, "SELECT count(*) FROM entries"), files(location)) == ([(2,)], set())
    assert counted == [("expired", 100), ("expired", 50)]


# --- numbers ---------------------------------------------------------------------------------------------------------
def test_incr__keeps_the_life__and_refuses_what_is_no_integer(store: FileStore, clock: Clock) -> None:
    assert store.incr("n", 1) is None
    store.set("n", b"5", 10)
    clock.now += 4
    assert (store.incr("n", 3), store.incr("n", -10), store.get("n")) == (8, -2, b"-2")
    assert store.ttl_s("n") == 6
    for payload in (b"1.5", b"", b"\xc0[]", b" 7", b"+7", b"1_0", value(BIG, b"1")):
        store.set("text", payload, None)
        with pytest.raises(ValueError):
            store.incr("text", 1)
        assert store.get("text") == payload
    store.set("n", b"%d" % (2**63 - 1), None)
    with pytest.raises(ValueError, match="64"):
        store.incr("n", 1)
    clock.now += 100
    assert store.incr("n", -1) == 2**63 - 2


def test_incr__eight_threads_at_once__loses_none(store: FileStore) -> None:
    store.set("n", b"0", None)

    def count() -> None:
        for _ in range(50):
            store.incr("n", 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n") == b"400"


def test_versions__missing_raised_evicted__never_a_number_again(store: FileStore, clock: Clock) -> None:
    first = store.versions(["a", "b"])
    assert store.versions(["a", "b"]) == first
    assert first[0] == START * 1e6
    store.raise_versions(["a", "a"])
    a, b = store.versions(["a", "b"])
    assert a > first[0]
    assert b == first[1]
    store.delete_many(["a"])
    clock.now -= 3600  # somebody sets the clock back, after the number was evicted
    again = store.versions(["a"])[0]
    assert again > a
    clock.now += 7200
    store.raise_versions(["a"])
    assert store.versions(["a"]) == [clock.now * 1e6]


# --- patterns --------------------------------------------------------------------------------------------------------
def test_scan__glob__finds_what_redis_would(store: FileStore) -> None:
    keys = ["p:1:a", "p:1:b", "p:12:a", "p*1", "q:1:a", "p:1:é", "p:1:\U0010ffff"]
    store.set_many([(key, b"1", None) for key in keys])
    assert sorted(store.scan("*")) == sorted(keys)
    assert sorted(store.scan("p:1:*")) == sorted(["p:1:a", "p:1:b", "p:1:é", "p:1:\U0010ffff"])
    assert sorted(store.scan("?:1:[ab]")) == ["p:1:a", "p:1:b", "q:1:a"]
    assert list(store.scan("p\\*1")) == ["p*1"]
    assert store.delete_matching("p:*") == 5
    assert sorted(store.scan("*")) == ["p*1", "q:1:a"]


async def test_scan__more_than_a_chunk__each_once_while_others_write(store: FileStore) -> None:
    keys = {f"k{number:04}" for number in range(1300)}
    store.set_many([(key, b"1", None) for key in keys])
    found = []
    for key in store.scan("k*"):
        if len(found) == 10:
            store.set("k0000x", b"1", None)
            store.delete_many(["zzz"])
        found.append(key)
    assert set(found) - {"k0000x"} == keys
    assert len(found) == len(set(found))
    assert {key async for key in store.ascan("k1*")} == {key for key in keys if key.startswith("k1")}
    assert await store.adelete_matching("k*") == 1301


# --- a model ---------------------------------------------------------------------------------------------------------
keys = st.sampled_from(["a", "b", "c"])
lives = st.sampled_from([None, 1.0, 5.0, -1.0])
payloads = st.sampled_from([b"1", b"x", b"y" * (IN_ROW_BYTES + 1)])
steps = st.one_of(
    st.tuples(st.just("set"), keys, payloads, lives, st.sampled_from(["", "new", "existing"])),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("incr"), keys),
    st.tuples(st.just("expire"), keys, lives),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 6.0])),
)


class Model:
    """The same in a dict."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.kept = clock, dict[str, tuple[bytes, float]]()

    def get(self, key: str) -> bytes | None:
        payload, ends = self.kept.get(key, (None, math.inf))
        return payload if ends > self.clock.now else None

    def set(self, key: str, payload: bytes, ttl_s: float | None, only: str) -> bool:
        if (only == "new" and self.get(key) is not None) or (only == "existing" and self.get(key) is None):
            return False
        self.kept[key] = payload, math.inf if ttl_s is None else self.clock.now + ttl_s
        return True

    def delete(self, key: str) -> int:
        was_there = self.get(key) is not None
        self.kept.pop(key, None)
        return int(was_there)

    def incr(self, key: str) -> Any:
        found = self.get(key)
        if found is None:
            return None
        if not found.isdigit():
            return ValueError
        self.kept[key] = b"%d" % (int(found) + 1), self.kept[key][1]
        return int(found) + 1

    def expire(self, key: str, ttl_s: float | None) -> bool:
        found = self.get(key)
        return found is not None and self.set(key, found, ttl_s, "")


def _incr(store: FileStore, key: str) -> Any:
    try:
        return store.incr(key, 1)
    except ValueError:
        return ValueError


@settings(max_examples=20, deadline=None)
@given(st.lists(steps, max_size=25))
def test_store__any_steps__as_a_dict_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    clock, location = Clock(), tmp_path_factory.mktemp("model") / "cache"
    store, model = FileStore(str(location), wall=clock), Model(clock)
    for verb, *given_ in steps:
        if verb == "wait":
            clock.now += given_[0]
        elif verb == "set":
            assert store.set(*given_[:3], only=given_[3]) == model.set(*given_)
        elif verb == "delete":
            assert store.delete_many(given_) == model.delete(*given_)
        elif verb == "incr":
            assert _incr(store, *given_) == model.incr(*given_)
        else:
            assert getattr(store, verb)(*given_) == getattr(model, verb)(*given_)
    assert contents(store) == {key: model.get(key) for key in model.kept if model.get(key) is not None}
    check(location)
    store.close()


# --- limits ----------------------------------------------------------------------------------------------------------
def test_limit_bytes__passed__oldest_go_and_it_is_never_exceeded(
    make: Make, clock: Clock, location: Path
) -> None:
    counted: dict[str, int] = {}
    limit = 300_000
    store = make(max_bytes=limit, count=lambda event, n: counted.update({event: counted.get(event, 0) + n}))
    for number in range(40):
        clock.now += 2
        store.set(f"k{number:02}", value(30_000 if number % 2 else BIG), None)
        assert store.usage().size_bytes <= limit
    left = sorted(contents(store))
    assert left == [f"k{number:02}" for number in range(40 - len(left), 40)]
    assert len(left) >= 6
    assert counted == {"evictions": 40 - len(left)}
    assert sum(path.stat().st_size for path in location.rglob("*.value")) <= limit
    check(location)


def test_limit_entries__passed__makes_room_for_a_tenth(make: Make, clock: Clock, location: Path) -> None:
    store = make(max_entries=20)
    for number in range(21):
        clock.now += 2
        store.set(f"k{number:02}", b"x", None)
    assert sorted(store.scan("*")) == [f"k{number:02}" for number in range(3, 21)]
    check(location)


def test_limit__what_is_read__stays(make: Make, clock: Clock) -> None:
    store, other = make(max_entries=10), make(max_entries=10)
    for number in range(10):
        clock.now += 2
        store.set(f"k{number}", b"x", None)
    clock.now += 2
    assert store.get("k0") == b"x"
    assert store.get_many(["k1"]) == [b"x"]
    assert store.ttl_s("k2") == math.inf
    other.get("k3")  # of another process, which has not written it yet
    clock.now += 2
    store.set("new", b"x", None)
    assert sorted(store.scan("*")) == ["k0", "k1", "k2", "k5", "k6", "k7", "k8", "k9", "new"]


def test_limit__what_is_over__goes_before_what_lives(make: Make, clock: Clock) -> None:
    store = make(max_entries=10)
    store.set("old", b"x", None)
    for number in range(9):
        clock.now += 2
        store.set(f"k{number}", b"x", 1)
    clock.now += 2
    store.set("new", b"x", None)
    assert sorted(store.scan("*")) == ["new", "old"]


def test_limit__greater_than_everything__is_not_kept_and_neither_is_the_old_one(
    make: Make, location: Path
) -> None:
    store = make(max_bytes=100_000)
    store.set("other", b"x", None)
    store.set("k", b"old", None)
    assert store.set("k", value(100_001), None) is False
    assert (store.get("k"), store.get("other"), files(location)) == (None, b"x", set())
    fits = 100_000 - OVERHEAD_BYTES - 1
    assert store.set("k", value(fits), None) is True
    assert contents(store) == {"k": value(fits)}
    check(location)


def test_limit__more_at_once_than_fits__keeps_to_it(make: Make, location: Path) -> None:
    store = make(max_bytes=100_000)
    store.set_many([(f"k{number}", value(30_000), None) for number in range(10)])
    assert 0 < store.usage().entries <= 3
    assert store.usage().size_bytes <= 100_000
    check(location)


# --- damage ----------------------------------------------------------------------------------------------------------
def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))  # what a file system may show after a power failure


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    "damage", [_cut, _zero, _flip, _lengthen, Path.unlink, lambda path: os.truncate(path, 0)]
)
def test_damaged_file__is_a_miss__counted_and_gone(make: Make, location: Path, damage: Any) -> None:
    counted: list[tuple[str, int]] = []
    store = make(count=lambda event, n: counted.append((event, n)))
    for read in (lambda: store.get("k"), lambda: store.get_many(["k"])[0]):
        store.set("k", value(BIG), None)
        damage(the_file(location))
        assert read() is None
        assert counted.pop() == ("corrupt", 1)
        assert (rows(location, "SELECT * FROM entries"), files(location)) == ([], set())
    assert store.set("k", value(BIG), None) is True
    assert store.get("k") == value(BIG)
    check(location)


def test_moved_file__another_key_s__is_a_miss(store: FileStore, location: Path) -> None:
    store.set("a", value(BIG, b"a"), None)
    of_a = the_file(location).read_bytes()
    store.delete_many(["a"])
    store.set("b", value(BIG, b"b"), None)
    the_file(location).write_bytes(of_a)
    assert store.get("b") is None


@pytest.mark.parametrize(
    "change", ["payload = x'7879'", "payload = NULL", "payload = 5", "checksum = 1", "key = x'61'"]
)
def test_damaged_row__is_a_miss(store: FileStore, location: Path, change: str) -> None:
    store.set("k", b"value", None)
    rows(location, f"UPDATE entries SET {change}")
    assert store.get("k") is None
    assert store.set("k", b"again", None) is True
    assert store.get("k") == b"again"


def test_digest__of_two_keys_is_the_same__they_displace_each_other(
    store: FileStore, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("file", "file_index", "file_change", "file_numbers"):
        monkeypatch.setattr(f"cache_app.{module}.digest", lambda key: 7)
    store.set("a", b"of a", None)
    assert store.get("b") is None
    assert store.delete_many(["b"]) == 0
    store.set("b", b"of b", None)
    assert (store.get("a"), store.get("b"), list(store.scan("*"))) == (None, b"of b", ["b"])
    check(location)


# --- the directory ---------------------------------------------------------------------------------------------------
def test_directory__made_by_us__is_ours_alone(store: FileStore, location: Path) -> None:
    store.set_many([("a", b"x", None), ("b", value(BIG), None)])
    found = {path: path.lstat().st_mode & 0o777 for path in location.rglob("*") if not path.is_symlink()}
    assert location.stat().st_mode & 0o777 == 0o700
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}
    assert len(found) > 5


def test_directory__open_to_others__is_tightened_where_it_holds_nothing_else(
    make: Make, location: Path
) -> None:
    location.mkdir(mode=0o755)
    make().set("k", b"x", None)
    assert location.stat().st_mode & 0o777 == 0o700
    location.chmod(0o750)
    assert make().get("k") == b"x"
    assert location.stat().st_mode & 0o777 == 0o700


def test_directory__open_and_full_of_something_else__is_left_alone(make: Make, location: Path) -> None:
    location.mkdir(mode=0o755)
    (location / "letter").write_text("mine")
    with pytest.raises(ImproperlyConfigured, match="0755.*Hint"):
        make()
    assert location.stat().st_mode & 0o777 == 0o755


def test_directory__somebody_else_s__is_refused(
    make: Make, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: location.stat().st_uid + 1)
    with pytest.raises(ImproperlyConfigured, match="belongs to user.*Hint"):
        make()


def test_directory__cannot_be__says_so(location: Path) -> None:
    location.write_text("a file")
    for wrong in (str(location), str(location / "below"), ""):
        with pytest.raises(ImproperlyConfigured, match="Hint"):
            FileStore(wrong)


# --- a full disk -----------------------------------------------------------------------------------------------------
FULL = textwrap.dedent("""
    import os, resource, sys
    from cache_app.file import FileStore
    from cache_app.store import StoreFailed

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def refused(write):
        try:
            write()
        except StoreFailed as failed:
            return type(failed.__cause__).__name__
        return "written"

    store = FileStore(sys.argv[1])
    store.set_many([("small", b"old", None), ("big", b"o" * 40_000, None), ("n", b"1", None)])
    limit(30_000)
    print(refused(lambda: store.set("big", b"n" * 100_000, None)))
    print(refused(lambda: [store.set(f"k{n}", b"n" * 3000, None) for n in range(50)]))
    print(refused(lambda: store.incr("n", 1)))
    print(store.get("small"), store.get("big") == b"o" * 40_000, store.get("n"))
    limit(resource.RLIM_INFINITY)
    print(store.set("big", b"n" * 100_000, None), store.set("small", b"new", None), store.incr("n", 1))
    print(store.get("small"), store.get("big") == b"n" * 100_000)
""")


def test_disk_full__nothing_can_be_written__old_values_stay_and_later_writes_work(location: Path) -> None:
    """RLIMIT_FSIZE: the kernel refuses what the disk would."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(location)], capture_output=True, text=True, check=True
    )
    file, row, number, *rest = done.stdout.splitlines()
    assert (file, row, number) == ("OSError", "OperationalError", "OperationalError")
    assert rest == ["b'old' True b'1'", "True True 2", "b'new' True"]
    assert not list(location.rglob("*.tmp"))
    check(location)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root makes a disk of one megabyte")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_disk_full__really__old_values_stay_and_later_writes_work(tiny_disk: Path) -> None:
    location = tiny_disk / "cache"
    store = FileStore(str(location))
    store.set_many([("small", b"old", None), ("big", value(BIG), None)])
    ballast = tiny_disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    for key, payload in (("big", value(BIG, b"n")), ("other", value(30_000)), ("big", value(BIG, b"m"))):
        with pytest.raises(StoreFailed) as caught:
            store.set(key, payload, None)
        assert caught.value.__cause__ is not None
    assert (store.get("small"), store.get("big")) == (b"old", value(BIG))
    assert not list(location.rglob("*.tmp"))
    ballast.unlink()
    assert store.set("big", value(BIG, b"n"), None) is True
    assert store.get("big") == value(BIG, b"n")
    check(location)
    store.close()


# --- async -----------------------------------------------------------------------------------------------------------
async def test_async__every_method__says_what_the_sync_one_does(store: FileStore, clock: Clock) -> None:
    assert await store.aset("k", b"v", 10) is True
    assert await store.aset("k", b"v", 10, only="new") is False
    await store.aset_many([("n", b"1", None), ("m", value(BIG), None)])
    assert (await store.aget("k"), await store.aget_many(["m", "x"])) == (b"v", [value(BIG), None])
    assert (await store.aincr("n", 2), await store.attl_s("k")) == (3, 10)
    assert await store.aexpire("k", None) is True
    assert await store.aversions(["t"]) == [START * 1e6]
    await store.araise_versions(["t"])
    assert await store.aversions(["t"]) == [START * 1e6 + 1]
    assert sorted([key async for key in store.ascan("*")]) == ["k", "m", "n", "t"]
    assert await store.adelete_many(["k", "x"]) == 1
    assert await store.adelete_matching("*") == 3


async def test_async__disk_waits__the_loop_does_not(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = threading.Event()
    on_loop = threading.get_ident()
    seen = []

    def slow(key: str) -> bytes:
        seen.append(threading.get_ident())
        allowed.wait(60)
        return b"v"

    monkeypatch.setattr(store, "get", slow)
    reading = [asyncio.ensure_future(store.aget("k")) for _ in range(3)]
    await asyncio.sleep(0.02)
    allowed.set()
    assert await asyncio.gather(*reading) == [b"v"] * 3
    assert on_loop not in seen


async def test_async__caller_is_cancelled__the_write_is_whole_and_the_store_goes_on(
    store: FileStore, location: Path
) -> None:
    writing = [asyncio.ensure_future(store.aset(f"k{number}", value(BIG), None)) for number in range(20)]
    await asyncio.sleep(0)
    time.sleep(0.005)  # the threads write, and nobody has been told yet of what is done
    for task in writing:
        task.cancel()
    results = await asyncio.gather(*writing, return_exceptions=True)
    assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await store.aset("last", b"x", None)
    assert file_threads._threads is not None
    while await store.aget("last") is None or file_threads._threads._work_queue.qsize():
        await asyncio.sleep(0.01)
    assert all(payload in (b"x", value(BIG)) for payload in contents(store).values())


async def test_async__fifty_tasks_at_once__all_answered(store: FileStore) -> None:
    store.set("n", b"0", None)
    await asyncio.gather(*(store.aincr("n", 1) for _ in range(50)), *(store.aget("n") for _ in range(50)))
    assert await store.aget("n") == b"50"
