"""Looking into a cluster and operating it: every key of every node, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from cache_app import backends, browsing, doctor, keyspace, operations, slow, standing, stats, stats_store
from foundation.findings import Level
from tests import servers

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.valkey_cluster(nodes=3, replicas=0, node_timeout_s=60) as formed:
        yield formed.url


@pytest.fixture(autouse=True)
def cluster(settings: LazySettings, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": url}}
    settings.BRAIN = settings.BRAIN | {
        "CACHE": {"SLOW_MS": 5_000.0}
    }  # those that a busy machine makes slow are none
    monkeypatch.setattr(stats, "_counts", {})
    monkeypatch.setattr(stats_store, "_shipper", stats_store.Shipper())
    slow.forget()


def test_page__keys_on_three_nodes__each_comes_once() -> None:
    cache = backends.backend("default")
    cache.set_many({f"user:{number}": {"n": number} for number in range(200)}, 60)
    found, cursor, pages = list[browsing.Row](), "", 0
    while pages == 0 or cursor:
        page = browsing.page(cache, "user:", "", cursor, 30)
        found, cursor, pages = found + page.rows, page.cursor, pages + 1
    assert pages >= 4
    assert sorted(row.key for row in found) == sorted(f"user:{number}" for number in range(200))
    assert all(row.memory_bytes and 20 < (row.ttl_s or 0) <= 60 for row in found)
    assert browsing.look(cache, "user:7") is not None
    rows, among = browsing.biggest(cache)
    assert (len(rows), among) == (10, 200)
    assert operations.preview("default", "user:1*").count == 111
    assert operations.delete_pattern("default", "user:1*", actor="ann", source="cli") == 111
    assert operations.clear("default", actor="ann", source="cli") == 89


def test_standing__three_nodes__are_told_one_by_one() -> None:
    cache = backends.backend("default")
    cache.set_many({f"k{number}": 1 for number in range(30)})
    found = standing.of("default")
    assert (found.error, found.keys, len(found.servers)) == ("", 30, 3)
    assert set(found.breakers.values()) == {"closed"}
    overview = keyspace.overview()
    assert overview is not None
    assert overview.sum("used_memory_bytes") == sum(server.used_memory_bytes for server in overview.servers)
    examined = doctor.examine()
    assert {one.level for one in examined} == {Level.OK}
    assert len([one for one in examined if one.about.endswith("clock")]) == 3


def test_totals__in_a_cluster__are_kept_on_one_node() -> None:
    stats.counts("default", "users").add("misses", 5)
    slow.seen("default", "get", "p:1:x", 9.0)
    found: Any = stats_store.totals()
    assert found.is_shared
    assert found.tallies["default", "users"].events == {"misses": 5}
    assert [one.key for one in stats_store.slow_operations()] == ["p:1:x"]
    stats_store.reset()
    assert stats_store.totals().tallies == {}
    assert stats_store.slow_operations() == []
