"""Health, checks, the overview and the command."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command

from cache_app import checks, health, keyspace
from cache_app.connections import client
from foundation.commands import Failed
from foundation.models import AuditEntry


def test_check__server_answers__names_the_product() -> None:
    found = health.check()
    assert (found.name, found.ok) == ("redis", True)
    assert found.detail.startswith("Valkey ")


@pytest.mark.usefixtures("redis_down")
def test_check__server_gone__says_so() -> None:
    found = health.check()
    assert found.ok is False
    assert "ConnectionError" in found.detail


def test_checks__settings_as_shipped__are_silent() -> None:
    assert checks.default_cache_is_ours(None) == []


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}, "cache.E001"),
        ({"BACKEND": "no.such.Backend"}, "cache.E001"),
        ({"LOCATION": "http://x"}, "cache.E002"),
        ({"OPTIONS": {"SERIALIZER": "django_redis.serializers.pickle.PickleSerializer"}}, "cache.W003"),
    ],
)
def test_checks__wrong_cache__has_an_id_and_an_anchor(settings: Any, change: dict[str, Any], id: str) -> None:
    settings.CACHES = {"default": settings.CACHES["default"] | change}
    (found,) = checks.default_cache_is_ours(None)
    assert found.id == id
    assert f"docs/checks.md#{id.replace('.', '-').lower()}" in found.hint


def test_overview__some_keys__are_counted_exactly() -> None:
    cache.set_many({"a": 1, "b": 2})
    found = keyspace.overview()
    assert (found.keys, found.keys_exact) == (2, True)
    assert found.used_memory_bytes > 0


def test_overview__memory_near_its_limit__is_degraded() -> None:
    used = client().info("memory")["used_memory"]
    assert keyspace.Overview("x", 95, 100, 0, True, 0, 0, 0).degraded == "memory is 95% of maxmemory"
    assert keyspace.Overview("x", used, 0, 0, True, 0, 0, 0).degraded is None


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("cache", *arguments, stdout=out)
    return out.getvalue()


def test_command__bare__prints_server_and_keys() -> None:
    cache.set("a", 1)
    assert "Valkey" in run()
    document = json.loads(run("--json"))
    assert document["keys"] == 1
    assert document["degraded"] is None


@pytest.mark.usefixtures("redis_down")
def test_command__redis_gone__fails_with_a_hint() -> None:
    with pytest.raises(Failed) as caught:
        run()
    assert caught.value.returncode == 1
    assert "REDIS_URL" in caught.value.hint


def test_command__clear_without_yes__removes_nothing() -> None:
    cache.set("a", 1)
    with pytest.raises(Failed) as caught:
        run("clear")
    assert caught.value.returncode == 2
    assert cache.get("a") == 1


@pytest.mark.django_db
def test_command__clear__removes_our_keys_and_is_audited() -> None:
    cache.set_many({"a": 1, "b": 2})
    assert json.loads(run("clear", "--yes", "--json")) == {"removed": 2}
    assert cache.get("a") is None
    entry = AuditEntry.objects.get(action="cache.clear")
    assert (entry.source, entry.after) == ("cli", {"removed": 2})
