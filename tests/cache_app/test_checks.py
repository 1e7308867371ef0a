from __future__ import annotations

from typing import Any

import pytest

from cache_app import checks, options


def found(settings: Any, alias: str, change: dict[str, Any]) -> list[Any]:
    known = settings.CACHES.get(alias, settings.CACHES["default"] | {"KEY_PREFIX": "other"})
    settings.CACHES = settings.CACHES | {alias: known | change}
    return [*checks.default_cache_is_on_redis(None), *checks.aliases_are_sound(None)]


def test_checks__settings_as_shipped__are_silent(settings: Any) -> None:
    assert found(settings, "default", {}) == []


@pytest.mark.parametrize(
    ("alias", "change", "id", "word"),
    [
        ("default", {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}, "E001", "TieredCache"),
        ("default", {"BACKEND": "no.such.Backend"}, "E001", "TieredCache"),
        ("default", {"LOCATION": "http://x"}, "E002", "redis://"),
        ("other", {"LOCATION": "localhost:6379"}, "E002", "redis://"),
        ("other", {"TIMEOUT": "abc"}, "E005", "seconds"),
        ("other", {"TIMEOUT": -1}, "E005", "seconds"),
        ("other", {"OPTIONS": {"COMPRESSER": "zstd"}}, "E004", "Did you mean 'COMPRESSOR'?"),
        ("other", {"OPTIONS": {"COMPRESSOR": "brotli"}}, "E004", "'zstd'"),
        ("other", {"OPTIONS": {"JITTER": 0.9}}, "E004", "0.5"),
        ("other", {"OPTIONS": {"SIGN": True}}, "E004", "KEYS"),
        ("other", {"OPTIONS": {"SIGN": True, "KEYS": ("short",)}}, "E004", "16 bytes"),
        ("other", {"OPTIONS": {"IGNORE_EXCEPTIONS": True}}, "E004", '"ON_DOWN": "ignore"'),
        ("other", {"OPTIONS": {"SERIALIZER": "pickle", "KEYS": ("k" * 16,)}}, "W003", "typed"),
        ("other", {"KEY_PREFIX": "same"}, "W006", "KEY_PREFIX"),
    ],
)
def test_checks__one_thing_wrong__has_an_id_a_hint_and_an_anchor(
    settings: Any, alias: str, change: dict[str, Any], id: str, word: str
) -> None:
    if change.get("KEY_PREFIX") == "same":
        change = {"KEY_PREFIX": settings.CACHES["default"]["KEY_PREFIX"]}
    (message,) = found(settings, alias, change)
    assert message.id == f"cache.{id}"
    assert word in message.hint
    assert f"docs/checks.md#cache-{id.lower()}" in message.hint


@pytest.mark.parametrize(
    "change",
    [
        {"LOCATION": "valkeys+cluster://a:1,b:2"},
        {"LOCATION": "redis+sentinel://a:1,b:2/service/0"},
        {"LOCATION": "unix:///s?db=1"},
        {"LOCATION": ["redis://a:1", "redis://b:1"]},
        {"LOCATION": "redis://a:1", "OPTIONS": {"CLUSTER": True}},
        {
            "LOCATION": "redis://service/0",
            "OPTIONS": {"SENTINELS": [("a", 1)], "SENTINEL_SERVICE": "service"},
        },
    ],
)
def test_checks__each_way_to_name_servers__is_silent(settings: Any, change: dict[str, Any]) -> None:
    assert found(settings, "other", change) == []


def test_read__what_django_redis_understands__is_left_to_it() -> None:
    chosen, problems = options.read("x", {"CONNECTION_POOL_KWARGS": {"max_connections": 5}, "COPY": False})
    assert (chosen.COPY, problems) == (False, [])
