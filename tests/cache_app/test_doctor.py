from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import LazySettings

from cache_app import backends, browsing, connections, doctor, keyspace, standing, stats, stats_store
from cache_app.keyspace import Server
from foundation.findings import Level

INFO = {
    "valkey_version": "9.1.2",
    "used_memory": 100 * 2**20,
    "used_memory_rss": 110 * 2**20,
    "maxmemory": 200 * 2**20,
    "maxmemory_policy": "noeviction",
    "evicted_keys": 0,
    "uptime_in_seconds": 3_600,
}


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of this test alone."""
    monkeypatch.setattr(stats, "_counts", {})
    monkeypatch.setattr(stats_store, "_shipper", stats_store.Shipper())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The server says of itself what a test wants."""

    def says(**more: Any) -> None:
        found: Server = keyspace.read("host:6379", INFO | more)
        monkeypatch.setattr(keyspace, "servers", lambda cache: [found])

    return says


def of(about: str) -> list[tuple[Level, str]]:
    return [(found.level, found.told) for found in doctor.examine() if found.about == f"default: {about}"]


def test_examine__a_plain_server__all_is_well() -> None:
    found = doctor.examine()
    assert {one.level for one in found} == {Level.OK}
    assert found[0].about == "default"
    assert "0 keys" in found[0].told


@pytest.mark.usefixtures("redis_down")
def test_examine__server_gone__is_one_error_with_a_hint() -> None:
    stats.counts("default").add("misses", 3)
    found = doctor.examine()
    errors = [one for one in found if one.level == Level.ERROR]
    assert len(errors) == 1
    assert "does not answer" in errors[0].told
    assert errors[0].hint
    waiting = [one for one in found if one.about == "statistics"]
    assert waiting[0].level == Level.WARNING
    assert "counts wait" in waiting[0].told


def test_memory__no_limit__is_a_warning_in_production_alone(server: Any, settings: Any) -> None:
    server(maxmemory=0)
    assert of("memory") == [(Level.OK, "100.0 MiB used, no limit")]
    settings.PRODUCTION = True
    assert of("memory") == [(Level.WARNING, "100.0 MiB used, no limit")]


def test_memory__near_its_limit__is_a_warning(server: Any) -> None:
    server(used_memory=150 * 2**20)
    assert of("memory")[0][0] == Level.OK
    server(used_memory=180 * 2**20)
    assert of("memory") == [(Level.WARNING, "180.0 MiB of 200.0 MiB used (90%)")]


@pytest.mark.parametrize(
    ("policy", "is_shared", "level"),
    [
        ("noeviction", True, Level.OK),
        ("volatile-lru", True, Level.OK),
        ("allkeys-lru", True, Level.WARNING),
        ("allkeys-lfu", False, Level.OK),
        ("noeviction", False, Level.WARNING),
    ],
)
def test_policy__by_what_else_the_server_keeps__is_right_or_wrong(
    server: Any, monkeypatch: pytest.MonkeyPatch, policy: str, is_shared: bool, level: Level
) -> None:
    server(maxmemory_policy=policy)
    monkeypatch.setattr(browsing, "is_of_platform", lambda cache: is_shared)
    assert [found for found, _ in of("eviction")] == [level]


def test_is_of_platform__another_server__is_not(settings: LazySettings) -> None:
    default = settings.CACHES["default"]
    other = {**default, "LOCATION": "redis://:pw@elsewhere:6379/0"}
    again = {**default, "KEY_PREFIX": "again", "LOCATION": f"{default['LOCATION']}"}
    settings.CACHES = {"default": default, "other": other, "again": again}
    assert browsing.is_of_platform(backends.backend("again"))
    assert not browsing.is_of_platform(backends.backend("other"))


def test_evictions_and_fragmentation__high__are_warnings(server: Any) -> None:
    server(evicted_keys=7_200, uptime_in_seconds=7_200, used_memory_rss=400 * 2**20)
    assert of("evictions") == [(Level.WARNING, "7,200 keys removed since the server's start, 3,600 per hour")]
    assert of("fragmentation") == [(Level.WARNING, "4.00: 400.0 MiB resident")]
    server()
    assert of("evictions") == []
    assert of("fragmentation") == [(Level.OK, "1.10: 110.0 MiB resident")]
    server(used_memory=2**20, used_memory_rss=9 * 2**20)
    assert of("fragmentation") == []


def test_clock__off_by_more_than_a_second__is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("clock")[0][0] == Level.OK
    real = doctor.wall_s
    monkeypatch.setattr(doctor, "wall_s", lambda: real() - 500)
    level, told = of("clock")[0]
    assert level == Level.WARNING
    assert 470 < float(told.split()[3]) < 530
    assert "ahead of this host's" in told


def test_breaker__open__is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "breakers_of", lambda cache: {"host:1": "open", "host:2": "closed"})
    assert of("breaker") == [(Level.WARNING, "host:1: open")]


def test_entries__some_could_not_be_read__are_a_warning() -> None:
    cache = backends.backend("default")
    connections.client().set(cache.full_key("a"), b"\x01 not ours")
    stats.counts("default").add("corrupt", 2)
    assert of("entries") == [(Level.WARNING, "2 could not be read")]


def test_serializer__pickle__is_a_warning(settings: LazySettings) -> None:
    listed = settings.CACHES["default"]
    options = {"SERIALIZER": "pickle", "KEYS": ("a-secret-of-more-than-sixteen-bytes",)}
    settings.CACHES = {"default": {**listed, "OPTIONS": options}}
    assert of("serializer") == [(Level.WARNING, "pickle")]


def test_files__open_directory_and_full_disk__are_told(
    settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache"
    files = {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(place), "KEY_PREFIX": "f"}
    settings.CACHES = {**settings.CACHES, "files": files}
    backends.backend("files").set("a", 1)

    def found() -> dict[str, Level]:
        return {one.about: one.level for one in doctor.examine() if one.about.startswith("files")}

    assert found() == {"files": Level.OK, "files: disk": Level.OK}
    os.chmod(place, 0o755)
    full = SimpleNamespace(total=100, used=98, free=2)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda directory: full)
    assert found() == {"files": Level.OK, "files: directory": Level.ERROR, "files: disk": Level.WARNING}


def test_tracker__tiered__is_heard(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_HEARD_S", 20.0)
    settings.CACHES = {"default": {**settings.CACHES["default"], "BACKEND": "cache_app.tiered.TieredCache"}}
    assert of("tracker") == [(Level.OK, "the server says what has changed")]


def test_others__alias_of_another_backend__is_named(settings: LazySettings) -> None:
    dummy = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    settings.CACHES = {**settings.CACHES, "dummy": dummy}
    assert [one.told for one in doctor.examine() if one.about == "dummy"] == [
        "django.core.cache.backends.dummy.DummyCache: not ours, not looked into"
    ]
