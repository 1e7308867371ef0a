from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from redis.sentinel import MasterNotFoundError, Sentinel

from cache_app import (
    backends,
    browsing,
    keyspace,
    measuring,
    operations,
    shelves,
    standing,
    stats_store,
    warming,
)
from cache_app.backend import BrainCache
from cache_app.connections import client
from cache_app.decorators import cached
from foundation.models import AuditEntry

BY = {"actor": "ann", "source": "cli"}
KINDS = ("default", "files", "memory", "tiered")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def caches(settings: LazySettings, own_prefix: str, tmp_path: Path) -> None:
    """One alias of each kind."""
    redis = settings.CACHES["default"]
    own = {"KEY_PREFIX": own_prefix, "TIMEOUT": 300}
    settings.CACHES = {
        "default": redis,
        "files": {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(tmp_path / "cache"), **own},
        "memory": {"BACKEND": "cache_app.memory.MemoryCache", "LOCATION": own_prefix, **own},
        "tiered": {**redis, "BACKEND": "cache_app.tiered.TieredCache", "KEY_PREFIX": f"{own_prefix}t"},
        "others": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }


@pytest.fixture(params=KINDS)
def cache(request: pytest.FixtureRequest) -> BrainCache:
    return backends.backend(request.param)


@pytest.fixture
def redis() -> BrainCache:
    return backends.backend("default")


def audited() -> tuple[str, str, Any]:
    entry = AuditEntry.objects.order_by("-id")[0]
    return entry.action, entry.target, entry.after


def all_keys(cache: BrainCache, asked: str, size: int) -> list[str]:
    found, cursor, pages = list[str](), "", 0
    while pages == 0 or cursor:
        page = browsing.page(cache, asked, "", cursor, size)
        found, cursor, pages = found + [row.key for row in page.rows], page.cursor, pages + 1
    return found


# --- keys ------------------------------------------------------------------------------------------------------------


def test_page__more_keys_than_one_page__every_key_comes(cache: BrainCache) -> None:
    cache.set_many({f"user:{number}": number for number in range(120)})
    cache.set("other", 1)
    found = all_keys(cache, "user:", 25)
    assert set(found) == {f"user:{number}" for number in range(120)}
    assert set(all_keys(cache, "*ther", 10)) == {"other"}
    assert set(all_keys(cache, "user:1[01]", 10)) == {"user:10", "user:11"}
    assert all_keys(cache, "nothing", 10) == []


def test_page__cursor_that_is_none__is_refused(redis: BrainCache) -> None:
    for cursor in ("x", "0", "7-0", "0-x", "0-99999999999999999999999"):
        with pytest.raises(ValueError, match="no cursor"):
            browsing.page(redis, "", "", cursor)


def test_page__rare_keys_in_a_big_database__costs_a_bounded_number_of_steps(
    redis: BrainCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelves, "_MOST_SCANNED", 50)
    redis.set_many({f"k{number}": 1 for number in range(400)})
    page = browsing.page(redis, "absent", "", "", 10)
    assert page.rows == []
    assert page.cursor


def test_row__entries_of_several_forms__say_what_they_are(cache: BrainCache) -> None:
    cache.set("plain", {"a": 1}, None)
    cache.set("number", 7, 100)
    cache.set("tagged", "x", 100, tags=("t",))
    rows = {row.key: row for row in browsing.page(cache).rows}
    assert set(rows) == {"plain", "number", "tagged"}
    assert rows["plain"].left_s == math.inf
    assert 60 < (rows["number"].left_s or 0) <= 100
    assert "timed" in rows["tagged"].codec
    assert rows["tagged"].size_bytes > 0
    assert json.dumps(rows["plain"].document())
    assert rows["plain"].document()["ttl_s"] is None


def test_page__all_versions__tells_versions_and_tags_apart(redis: BrainCache) -> None:
    redis.set("a", 1, version=2)
    redis.set("b", 1, tags=("t:1",))
    found = {(row.version, row.key) for row in browsing.page(redis, "", browsing.ANY_VERSION).rows}
    assert found == {("2", "a"), ("1", "b"), ("tag", "t:1")}
    assert [row.key for row in browsing.page(redis, "", "2").rows] == ["a"]
    assert browsing.look(redis, "t:1", "tag") is not None


def test_page__what_is_no_string__is_told_and_not_read(redis: BrainCache) -> None:
    client().rpush(redis.full_key("list"), "x")
    client().set(redis.full_key("foreign"), b"\x01\x02 not ours")
    client().set(b"%s:1:\xff\xfe" % redis.key_prefix.encode(), b"1")
    rows = {row.key: row for row in browsing.page(redis).rows}
    assert rows["list"].codec == "list"
    assert rows["foreign"].codec == "foreign"
    assert len(rows) == 3
    for key, words in (("list", "no cache reads"), ("foreign", "not in a form of ours")):
        found = browsing.look(redis, key)
        assert found is not None
        assert words in found.preview.why


def test_look__value_with_secrets__masked_unless_asked_for(cache: BrainCache) -> None:
    cache.set("user:1", {"name": "ann", "password": "pw", "url": "redis://u:pw@h/0"}, 60)
    cache.set("session:token", "abc", 60)
    found = browsing.look(cache, "user:1")
    assert found is not None
    assert json.loads(found.preview.text) == {"name": "ann", "password": "***", "url": "redis://u:***@h/0"}
    token = browsing.look(cache, "session:token")
    assert token is not None
    assert token.preview.text == '"***"'
    raw = browsing.look(cache, "user:1", is_masked=False)
    assert raw is not None
    assert json.loads(raw.preview.text)["password"] == "pw"
    assert browsing.look(cache, "missing") is None


def test_look__tags_and_life__what_a_read_would_find(cache: BrainCache) -> None:
    full = cache.full_key("report")
    versions = cache.read(full, ("users", "orders")).versions
    cache.write(full, [1], ttl_s=100, keep_s=50, load_s=0.25, versions=versions)
    found = browsing.look(cache, "report")
    assert found is not None
    assert found.is_served
    assert found.load_s == pytest.approx(0.25)
    assert [tag.name for tag in found.tags] == ["orders", "users"]
    assert 60 < (found.row.left_s or 0) <= 100 < (found.row.ttl_s or 0)
    cache.invalidate_tags("users")
    found = browsing.look(cache, "report")
    assert found is not None
    assert {tag.name: tag.holds for tag in found.tags} == {"orders": True, "users": False}
    assert not found.is_served
    assert json.dumps(found.document())


def test_look__past_its_life__is_over(redis: BrainCache) -> None:
    redis.write(redis.full_key("old"), 1, ttl_s=0.001, keep_s=60)
    found = browsing.look(redis, "old")
    while found is not None and not found.row.is_over:
        found = browsing.look(redis, "old")
    assert found is not None
    assert not found.is_served
    assert (found.row.ttl_s or 0) > 50


def test_look__pickle__is_never_read(settings: LazySettings, redis: BrainCache) -> None:
    listed = settings.CACHES["default"]
    options = {"SERIALIZER": "pickle", "KEYS": ("a-secret-of-more-than-sixteen-bytes",)}
    settings.CACHES = {**settings.CACHES, "pickled": {**listed, "OPTIONS": options}}
    pickled = backends.backend("pickled")
    pickled.set("p", {1, 2}, 60)
    for cache in (pickled, backends.backend("default")):
        found = browsing.look(cache, "p")
        assert found is not None
        assert found.preview.text == ""
        assert "pickle" in found.preview.why


def test_look__big_deep_and_long_values__are_bounded(redis: BrainCache) -> None:
    redis.set("long", "x" * 100_000, 60)
    redis.set("big", "x" * 400_000, 60)
    client().set(redis.full_key("deep"), b"[" * 100 + b"]" * 100)
    client().set(redis.full_key("deeper"), b"[" * 900 + b"]" * 900)
    long, big = browsing.look(redis, "long"), browsing.look(redis, "big")
    assert long is not None
    assert big is not None
    assert long.preview.is_cut
    assert len(long.preview.text) == 20_000
    assert "too many to show" in big.preview.why
    for key in ("deep", "deeper"):
        found = browsing.look(redis, key)
        assert found is not None
        assert found.preview.text or found.preview.why


def test_look__compressed_and_typed__is_shown(settings: LazySettings) -> None:
    options = {"SERIALIZER": "typed", "COMPRESSOR": "zstd", "COMPRESS_FROM_BYTES": 10}
    settings.CACHES = {**settings.CACHES, "typed": {**settings.CACHES["default"], "OPTIONS": options}}
    cache = backends.backend("typed")
    cache.set("set", {"when": {3, 1, 2}, "text": "a" * 200}, 60)
    found = browsing.look(cache, "set")
    assert found is not None
    assert found.row.codec.startswith("typed, zstd")
    assert sorted(json.loads(found.preview.text)["when"]) == [1, 2, 3]


def test_biggest__some_keys__the_heaviest_first(cache: BrainCache) -> None:
    for number in (10, 5_000, 200):
        cache.set(f"k{number}", "x" * number, 60)
    rows, among = browsing.biggest(cache, 2)
    assert [row.key for row in rows] == ["k5000", "k200"]
    assert among == 3


# --- changes ---------------------------------------------------------------------------------------------------------


def test_delete__some_keys__are_gone_and_audited(cache: BrainCache) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3})
    assert operations.delete(cache.alias, ["a", "b", "x"], **BY) == 2
    assert cache.get_many(["a", "b", "c"]) == {"c": 3}
    assert audited() == ("cache.delete", f"cache:{cache.alias}", {"keys": ["a", "b", "x"], "removed": 2})


def test_delete_pattern__previewed_first__removes_what_was_counted(cache: BrainCache) -> None:
    cache.set_many({f"user:{number}": 1 for number in range(50)} | {"other": 1})
    found = operations.preview(cache.alias, "user:*")
    assert (found.count, found.is_exact) == (50, True)
    assert len(found.sample) == 20
    assert set(found.sample) <= {f"user:{number}" for number in range(50)}
    assert operations.delete_pattern(cache.alias, "user:*", **BY) == 50
    assert audited() == ("cache.delete_pattern", f"cache:{cache.alias}", {"pattern": "user:*", "removed": 50})
    assert operations.preview(cache.alias, "user:*").count == 0
    assert cache.get("other") == 1
    with pytest.raises(ValueError, match="pattern is needed"):
        operations.delete_pattern(cache.alias, "", **BY)


def test_preview__more_keys_than_are_looked_at__is_reckoned(
    redis: BrainCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.set_many({f"k{number}": 1 for number in range(3_000)})
    monkeypatch.setattr(browsing, "_COUNTED", 1_000)
    found = operations.preview("default", "*")
    assert not found.is_exact
    assert 1_500 < found.count < 6_000


def test_invalidate__tags_and_namespaces__end_their_entries(cache: BrainCache) -> None:
    users = cache.namespace("users")
    users.set("1", "ann", 60)
    cache.set("tagged", "x", 60, tags=("t",))
    cache.set("kept", "y", 60, tags=("other",))
    operations.invalidate_tags(cache.alias, ["t"], **BY)
    assert (cache.get("tagged"), users.get("1"), cache.get("kept")) == (None, "ann", "y")
    assert audited() == ("cache.invalidate_tags", f"cache:{cache.alias}", {"tags": ["t"]})
    operations.invalidate_namespace(cache.alias, "users", **BY)
    assert (users.get("1"), cache.get("kept")) == (None, "y")
    assert audited()[2] == {"namespace": "users"}


def test_clear__an_alias__removes_its_prefix_and_nothing_else(cache: BrainCache) -> None:
    cache.set("a", 1)
    cache.set("b", 1, version=2)
    client().set("test:somebody-elses", 1, ex=60)
    assert operations.clear(cache.alias, **BY) == 2
    assert cache.get("a") is None
    assert client().get("test:somebody-elses") == b"1"
    assert audited() == ("cache.clear", f"cache:{cache.alias}", {"prefix": cache.key_prefix, "removed": 2})


def test_set_value__for_a_time__is_there(cache: BrainCache) -> None:
    operations.set_value(cache.alias, "flag", {"on": True}, ttl_s=60, **BY)
    assert cache.get("flag") == {"on": True}
    assert audited()[2] == {"keys": ["flag"], "ttl_s": 60}


def test_operations__redis_gone__say_so_and_leave_no_trace(redis_down: dict[str, Any], settings: Any) -> None:
    for on_down in ("raise", "ignore"):
        settings.CACHES = {"default": {**redis_down["default"], "OPTIONS": {"ON_DOWN": on_down}}}
        for change in (
            lambda: operations.delete("default", ["a"], **BY),
            lambda: operations.delete_pattern("default", "a*", **BY),
            lambda: operations.invalidate_tags("default", ["t"], **BY),
            lambda: operations.invalidate_namespace("default", "n", **BY),
            lambda: operations.clear("default", **BY),
            lambda: operations.set_value("default", "a", 1, ttl_s=1, **BY),
            lambda: operations.preview("default", "a*"),
            lambda: keyspace.overview(),
        ):
            with pytest.raises(operations.CacheUnavailable):
                change()
    assert not AuditEntry.objects.exists()


def test_told__no_primary_known_to_a_sentinel__without_the_clients_state() -> None:
    error = MasterNotFoundError(
        f"No master found for 'shop' : {Sentinel([('127.0.0.1', 1)]).sentinels[0]!r} - E"
    )
    assert operations.told(error) == "MasterNotFoundError: No master found for 'shop'"


def test_cache_of__unknown_alias__is_told() -> None:
    for alias in ("nobody", "others"):
        with pytest.raises(operations.UnknownAlias, match=alias):
            operations.cache_of(alias)
    assert operations.aliases() == list(KINDS)


def test_reset_statistics__after_counts__begin_anew(redis: BrainCache) -> None:
    redis.get("missing")
    assert stats_store.totals().tallies
    operations.reset_statistics(**BY)
    assert stats_store.totals().tallies == {}
    assert audited()[:2] == ("cache.reset_statistics", "cache")


# --- how an alias stands ---------------------------------------------------------------------------------------------


def test_standing__each_kind__says_what_it_is(cache: BrainCache) -> None:
    cache.set("a", "x" * 100)
    found = standing.of(cache.alias)
    assert found.kind == {"default": "redis", "files": "file"}.get(cache.alias, cache.alias)
    assert (found.error, found.keys, found.keys_exact) == ("", 1, True)
    assert bool(found.servers) == (found.kind in ("redis", "tiered"))
    assert (found.held is not None) == (found.kind != "redis")
    assert found.is_of_process == (found.kind == "memory")
    assert found.degraded is None or found.kind == "tiered"
    assert json.dumps(found.document())


def test_overview__server_near_its_limit__is_degraded() -> None:
    info = {"used_memory": 95, "maxmemory": 100, "valkey_version": "9.0", "used_memory_rss": 190}
    found = keyspace.read("host:1", info)
    assert (found.degraded, found.fragmentation, found.server) == (
        "memory is 95% of maxmemory",
        2.0,
        "Valkey 9.0",
    )
    assert keyspace.read("host:1", info | {"maxmemory": 0}).degraded is None
    assert keyspace.read("host:1", info | {"maxmemory": 0}).memory_ratio is None


def test_overview__keys_under_the_prefix__are_counted(redis: BrainCache) -> None:
    redis.set("a", 1)
    found = keyspace.overview()
    assert found is not None
    assert (found.keys, found.keys_exact) == (1, True)
    assert found.server.startswith(("Valkey", "Redis"))
    assert found.document()["used_memory_bytes"] > 0
    assert keyspace.overview("files") is None


# --- measuring and warming -------------------------------------------------------------------------------------------


def test_measure__an_alias__leaves_nothing_and_counts_nothing(cache: BrainCache) -> None:
    before = cache.counts.events()
    found = {one.operation: one for one in measuring.measure(cache, seconds=0.02)}
    assert set(found) == {"set", "get", "get one key", "get missing", "get_many(20)", "set_many(20)"}
    assert all(one.calls > 0 and one.rate > 0 and one.p50_s <= one.p99_s for one in found.values())
    assert cache.counts.events() == before
    assert browsing.page(cache, measuring.STEM).rows == []


_runs: list[str] = []


@cached(ttl_s=60, warm=lambda: [(("a",), {}), (("b",), {})])
def listed(name: str) -> str:
    _runs.append(name)
    return name


@cached(ttl_s=60, warm=lambda: [((), {"name": "c"})])
async def awaited(name: str) -> str:
    _runs.append(name)
    if name == "c":
        raise RuntimeError("no c")
    return name


@pytest.fixture
def runs() -> list[str]:
    _runs.clear()
    return _runs


def test_warm__a_function__loads_what_is_not_there(runs: list[str]) -> None:
    name = f"{__name__}.listed"
    assert name in warming.warmable()
    assert warming.chosen(["listed"]) == [name]
    assert set(warming.chosen([])) >= {name, f"{__name__}.awaited"}
    assert warming.warm(name, **BY).loaded == 2
    assert warming.warm(name, **BY).loaded == 0
    assert runs == ["a", "b"]
    assert audited() == ("cache.warm", f"cache:{name}", {"function": name, "loaded": 0})
    with pytest.raises(warming.UnknownFunction, match="nothing"):
        warming.chosen(["nothing"])


def test_warm__loader_that_raises__is_told(runs: list[str]) -> None:
    found = warming.warm(f"{__name__}.awaited", **BY)
    assert found.error == "RuntimeError: no c"
    assert audited()[2]["error"] == "RuntimeError: no c"
