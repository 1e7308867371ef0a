from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import LazySettings
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from cache_app import backends, slow, stats_store
from cache_app.backend import BrainCache
from foundation import roles
from foundation.models import AuditEntry
from tests.foundation.people import client_of

BASE = "/api/v1/cache"

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER, is_staff=False)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR, is_staff=False)


@pytest.fixture
def cache() -> BrainCache:
    return backends.backend("default")


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(f"{BASE}/{path}", json.dumps(body), content_type="application/json")


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), (
        answer.content
    )
    body: dict[str, Any] = answer.json()
    return body


def test_status__viewer__sees_server_and_aliases(viewer: Client, cache: BrainCache) -> None:
    cache.get("missing")
    found = viewer.get(f"{BASE}/status").json()
    assert {"server", "keys", "functions", "used_memory_bytes", "degraded"} <= set(found)
    assert [one["alias"] for one in found["aliases"]] == ["default"]
    assert found["aliases"][0]["kind"] == "redis"
    assert found["functions"]["default"][""]["misses"] > 0


@pytest.mark.usefixtures("redis_down")
def test_api__redis_gone__is_503_and_statistics_are_of_this_process(viewer: Client, operator: Client) -> None:
    assert "does not answer" in problem(viewer.get(f"{BASE}/status"), 503)["detail"]
    problem(viewer.get(f"{BASE}/keys"), 503)
    problem(viewer.get(f"{BASE}/keys/a"), 503)
    problem(operator.delete(f"{BASE}/keys/a"), 503)
    problem(post(operator, "delete", {"pattern": "a*", "dry_run": False}), 503)
    problem(post(operator, "tags/invalidate", {"tags": ["t"]}), 503)
    assert viewer.get(f"{BASE}/stats").json()["is_shared"] is False
    assert viewer.get(f"{BASE}/slow").status_code == 200
    assert not AuditEntry.objects.exists()


def test_stats__after_reads__ratios_by_alias_and_namespace(
    viewer: Client, operator: Client, cache: BrainCache
) -> None:
    stats_store.reset()
    users = cache.namespace("users")
    users.set("1", "ann")
    users.get("1")
    users.get("2")
    found = viewer.get(f"{BASE}/stats").json()
    assert found["is_shared"] is True
    named = {(one["alias"], one["namespace"]): one for one in found["namespaces"]}
    assert named["default", "users"]["hit_ratio"] == 0.5
    assert found["aliases"][0]["operations"]["get"]["count"] >= 2
    assert {one["alias"] for one in viewer.get(f"{BASE}/stats?alias=default").json()["namespaces"]} == {
        "default"
    }
    assert "other" in problem(viewer.get(f"{BASE}/stats?alias=other"), 404)["detail"]
    assert operator.post(f"{BASE}/stats/reset").status_code == 204
    for query in ("", "?alias=default"):
        assert viewer.get(f"{BASE}/stats{query}").json()["namespaces"] == []
    assert AuditEntry.objects.get().action == "cache.reset_statistics"


def test_slow__a_slow_operation__key_and_no_value(viewer: Client, settings: LazySettings) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"SLOW_MS": 1_400.0}}  # not what a busy machine makes slow
    stats_store.reset()
    slow.seen("default", "get", "p:1:report", 1.5)
    found = viewer.get(f"{BASE}/slow").json()["slow"]
    assert [(one["key"], one["took_s"]) for one in found] == [("p:1:report", 1.5)]
    assert set(found[0]) == {"alias", "operation", "key", "took_s", "at"}
    slow.forget()


def test_keys__pages__by_cursor_until_the_last(viewer: Client, cache: BrainCache) -> None:
    cache.set_many({f"user:{number}": number for number in range(60)})
    found, cursor, pages = set(), "", 0
    while pages == 0 or cursor:
        answer = viewer.get(f"{BASE}/keys?pattern=user:&page_size=20&cursor={cursor}").json()
        found |= {row["key"] for row in answer["keys"]}
        cursor, pages = answer["cursor"], pages + 1
    assert len(found) == 60
    assert pages > 1


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page_size=0", "/page_size"), ("page_size=501", "/page_size"), ("page_size=x", "/page_size"), ("cursor=x", "/cursor"),
        ("patern=x", "/patern"), (f"pattern={'x' * 501}", "/pattern"),
    ],
)  # fmt: skip
def test_keys__wrong_parameter__is_pointed_at(viewer: Client, query: str, pointer: str) -> None:
    errors = problem(viewer.get(f"{BASE}/keys?{query}"), 400)["errors"]
    assert [error["pointer"] for error in errors] == [pointer]


def test_api__unknown_alias__is_404(viewer: Client, operator: Client) -> None:
    assert "nobody" in problem(viewer.get(f"{BASE}/keys?alias=nobody"), 404)["detail"]
    problem(viewer.get(f"{BASE}/keys/a?alias=nobody"), 404)
    problem(post(operator, "tags/invalidate", {"tags": ["t"], "alias": "nobody"}), 404)


def test_key__value__for_operators_and_masked(viewer: Client, operator: Client, cache: BrainCache) -> None:
    cache.set("a/b c", {"name": "ann", "api_key": "k"}, 60, tags=("t",))
    address = f"{BASE}/keys/{quote('a/b c')}"
    found = viewer.get(address).json()
    assert (found["key"], found["value"], found["why"]) == ("a/b c", None, "Values are for operators.")
    assert 0 < found["left_s"] <= 60
    assert found["tags"]["t"]["holds"] is True
    answer = operator.get(address)
    assert json.loads(answer.json()["value"]) == {"name": "ann", "api_key": "***"}
    assert answer.headers["Cache-Control"] == "no-store"
    problem(viewer.get(f"{BASE}/keys/missing"), 404)


def test_key__deleted__is_gone_and_audited(viewer: Client, operator: Client, cache: BrainCache) -> None:
    cache.set("a", 1)
    problem(viewer.delete(f"{BASE}/keys/a"), 403)
    assert operator.delete(f"{BASE}/keys/a").status_code == 204
    assert cache.get("a") is None
    problem(operator.delete(f"{BASE}/keys/a"), 404)
    entry = AuditEntry.objects.order_by("id")[0]
    assert (entry.actor, entry.source, entry.action) == ("some-operator", "api", "cache.delete")
    assert entry.after == {"keys": ["a"], "removed": 1}


def test_delete__by_pattern__shows_first_and_deletes_when_told(operator: Client, cache: BrainCache) -> None:
    cache.set_many({"user:1": 1, "user:2": 2, "other": 3})
    found = post(operator, "delete", {"pattern": "user:*"}).json()
    assert found == {"count": 2, "is_exact": True, "sample": ["user:1", "user:2"], "removed": None}
    assert len(cache.get_many(["user:1", "user:2"])) == 2
    assert post(operator, "delete", {"pattern": "user:*", "dry_run": False}).json()["removed"] == 2
    assert cache.get_many(["user:1", "user:2", "other"]) == {"other": 3}
    for body, pointer in (({}, "/pattern"), ({"pattern": "a", "dryrun": False}, "/dryrun")):
        errors = problem(post(operator, "delete", body), 400)["errors"]
        assert [error["pointer"] for error in errors] == [pointer]


def test_invalidate__tags_and_namespaces__end_entries(
    operator: Client, viewer: Client, cache: BrainCache
) -> None:
    cache.set("a", 1, tags=("t",))
    users = cache.namespace("users")
    users.set("1", "ann")
    problem(post(viewer, "tags/invalidate", {"tags": ["t"]}), 403)
    assert post(operator, "tags/invalidate", {"tags": ["t", "u"]}).status_code == 204
    assert cache.get("a") is None
    assert users.get("1") == "ann"
    assert post(operator, "namespaces/invalidate", {"namespaces": ["users"]}).status_code == 204
    assert users.get("1") is None
    problem(post(operator, "tags/invalidate", {"tags": []}), 400)
    problem(post(operator, "namespaces/invalidate", {"namespaces": ["x" * 201]}), 400)


def test_clear__admins_alone__removes_the_prefix(operator: Client, cache: BrainCache) -> None:
    cache.set_many({"a": 1, "b": 2})
    problem(post(operator, "clear", {}), 403)
    assert post(client_of(roles.ADMIN, is_staff=False), "clear", {"alias": "default"}).json() == {
        "removed": 2
    }
    assert AuditEntry.objects.get().action == "cache.clear"


def test_api__without_a_role__is_refused() -> None:
    for client, status in ((Client(), 401), (client_of(None, is_staff=False), 403)):
        for path in ("status", "stats", "slow", "keys", "keys/a"):
            problem(client.get(f"{BASE}/{path}"), status)
        problem(post(client, "clear", {}), status)
        problem(post(client, "stats/reset", {}), status)


def test_schema__every_address_of_the_cache__is_described() -> None:
    with GENERATOR_STATS.silence():
        schema: Any = SchemaGenerator().get_schema(request=None, public=True)
    found = {
        path.removeprefix(f"{BASE}/"): set(methods)
        for path, methods in schema["paths"].items()
        if BASE in path
    }
    assert found == {
        "status": {"get"},
        "stats": {"get"},
        "stats/reset": {"post"},
        "slow": {"get"},
        "keys": {"get"},
        "keys/{key}": {"get", "delete"},
        "delete": {"post"},
        "tags/invalidate": {"post"},
        "namespaces/invalidate": {"post"},
        "clear": {"post"},
    }
    parameters = schema["paths"][f"{BASE}/keys"]["get"]["parameters"]
    assert {one["name"] for one in parameters} == {"alias", "version", "pattern", "cursor", "page_size"}
    assert "Needs the role admin." in schema["paths"][f"{BASE}/clear"]["post"]["description"]
