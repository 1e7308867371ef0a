from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from cache_app import backends, stats_store, warming
from cache_app.backend import BrainCache
from foundation.commands import Failed
from foundation.models import AuditEntry

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and what stands on stdout."""
    out = StringIO()
    try:
        call_command("cache", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def document(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json")[1])


def refused(*arguments: str) -> Failed:
    with pytest.raises(Failed) as caught:
        run(*arguments)
    return caught.value


@pytest.fixture
def cache() -> BrainCache:
    return backends.backend("default")


@pytest.fixture
def files(settings: LazySettings, tmp_path: Path) -> BrainCache:
    listed = {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(tmp_path / "c"), "KEY_PREFIX": "files"}
    settings.CACHES = {**settings.CACHES, "files": listed}
    return backends.backend("files")


def test_bare__server_there__says_how_the_aliases_stand(cache: BrainCache, files: BrainCache) -> None:
    cache.set("a", 1)
    code, text = run()
    assert code == 0
    assert "default" in text
    assert "files" in text
    found = document()
    assert found["keys"] == 1
    assert [one["kind"] for one in found["aliases"]] == ["redis", "file"]


@pytest.mark.usefixtures("redis_down")
def test_verbs__redis_gone__exit_one_with_a_hint() -> None:
    assert run()[0] == 1
    assert run("doctor")[0] == 1
    for arguments in (
        ("keys",),
        ("get", "a"),
        ("set", "a", "1"),
        ("delete", "a"),
        ("delete", "--pattern", "a*", "--yes"),
        ("clear", "--yes"),
        ("tag", "t"),
        ("namespace", "n"),
        ("bench", "--seconds", "0.01"),
        ("stats", "--reset"),
    ):
        failed = refused(*arguments)
        assert failed.returncode == 1, arguments
        assert "does not answer" in str(failed)
        assert "REDIS_URL" in failed.hint
    assert run("stats")[0] == 0


def test_stats__after_reads__by_alias_and_namespace(cache: BrainCache) -> None:
    stats_store.reset()
    users = cache.namespace("users")
    users.set("1", 1)
    users.get("1")
    cache.get("missing")
    code, text = run("stats")
    assert code == 0
    assert "(all)" in text
    assert "users" in text
    found = document("stats")
    assert found["is_shared"] is True
    assert {one["namespace"]: one["hit_ratio"] for one in found["statistics"]}["users"] == 1.0
    assert document("stats", "--alias", "default")["statistics"] == found["statistics"]
    assert refused("stats", "--alias", "other").returncode == 2
    assert document("stats", "--reset") == {"reset": True}
    assert document("stats")["statistics"] == document("stats", "--alias", "default")["statistics"] == []
    assert AuditEntry.objects.get().action == "cache.reset_statistics"
    assert refused("stats", "--reset", "--alias", "default").returncode == 2


def test_keys__pattern_and_limit__lists_them(cache: BrainCache) -> None:
    cache.set_many({f"user:{number}": number for number in range(30)} | {"other": 1}, None)
    assert len(document("keys", "user:")) == 30
    code, text = run("keys", "user:*", "--limit", "5")
    assert code == 0
    assert "for ever" in text
    assert "and more" in text
    assert len(document("keys", "user:*", "--limit", "5")) == 5
    assert [row["key"] for row in document("keys", "oth")] == ["other"]
    assert refused("keys", "--alias", "nobody").returncode == 2
    assert run("keys", "nothing:*") == (0, "no such key in default\n")
    assert document("keys", "nothing:*") == []
    with pytest.raises(CommandError, match="'0' is no whole number above 0"):
        run("keys", "--limit", "0")


def test_get__value__masked_unless_raw(cache: BrainCache) -> None:
    cache.set("user:1", {"name": "ann", "password": "pw"}, 60, tags=("t",))
    code, text = run("get", "user:1")
    assert code == 0
    assert '"***"' in text
    assert "pw" not in text
    assert "a hit" in text
    assert json.loads(document("get", "user:1", "--raw")["value"])["password"] == "pw"
    assert refused("get", "missing").returncode == 1


def test_set__json__is_stored_for_a_time(cache: BrainCache) -> None:
    assert run("set", "flag", '{"on": true}', "--ttl", "60")[0] == 0
    assert cache.get("flag") == {"on": True}
    assert 0 < (cache.ttl("flag") or 0) <= 60
    run("set", "text", '"x"')
    assert cache.ttl("text") is None
    assert refused("set", "a", "not json").returncode == 2
    for ttl in ("0", "inf", "nan", "x"):
        with pytest.raises(CommandError, match="no number of seconds above 0"):
            run("set", "a", "1", "--ttl", ttl)
    assert [entry.action for entry in AuditEntry.objects.all()] == ["cache.set", "cache.set"]
    assert AuditEntry.objects.filter(source="cli").count() == 2


def test_delete__keys_and_patterns__asks_before_a_pattern(cache: BrainCache) -> None:
    cache.set_many({"user:1": 1, "user:2": 2, "a": 3, "b": 4})
    assert document("delete", "a", "x") == {"removed": 1}
    assert document("delete", "--pattern", "user:*", "--dry-run") == {
        "count": 2,
        "is_exact": True,
        "sample": ["user:1", "user:2"],
    }
    failed = refused("delete", "--pattern", "user:*")
    assert (str(failed), failed.returncode) == ("nothing was removed", 2)
    assert cache.get("user:1") == 1
    assert document("delete", "--pattern", "user:*", "--yes") == {"removed": 2}
    assert set(cache.get_many(["user:1", "user:2", "a", "b"])) == {"b"}
    assert refused("delete").returncode == 2
    assert refused("delete", "a", "--pattern", "b*").returncode == 2
    assert refused("delete", "a", "--dry-run").returncode == 2


def test_clear__with_and_without_yes__removes_the_prefix(cache: BrainCache, files: BrainCache) -> None:
    cache.set("a", 1)
    files.set("a", 1)
    assert refused("clear").returncode == 2
    assert cache.get("a") == 1
    assert document("clear", "--yes") == {"removed": 1}
    assert files.get("a") == 1
    assert document("clear", "--yes", "--alias", "files") == {"removed": 1}


def test_tag_and_namespace__named__end_their_entries(cache: BrainCache) -> None:
    cache.set("a", 1, tags=("t",))
    users = cache.namespace("users")
    users.set("1", 1)
    assert document("tag", "t", "u") == {"tags": ["t", "u"]}
    assert cache.get("a") is None
    assert users.get("1") == 1
    assert document("namespace", "users") == {"namespaces": ["users"]}
    assert users.get("1") is None
    for verb in ("tag", "namespace"):
        with pytest.raises(CommandError, match="a name has at least one character"):
            run(verb, "users", "")


def test_warm__unknown_function__is_wrong_usage() -> None:
    assert refused("warm", "no.such.function").returncode == 2


def test_warm__nothing_to_warm__says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "warmable", dict)
    assert "nothing to warm" in run("warm")[1]
    assert document("warm") == []


def test_bench__an_alias__figures_and_no_keys_left(cache: BrainCache) -> None:
    found = document("bench", "--seconds", "0.01", "--bytes", "10")
    assert {one["operation"] for one in found} >= {"set", "get"}
    assert all(one["rate"] > 0 for one in found)
    assert document("keys") == []
    assert "per second" in run("bench", "--seconds", "0.01")[1]


def test_doctor__a_plain_server__is_well(cache: BrainCache) -> None:
    stats_store.reset()  # other tests have had entries that could not be read
    code, text = run("doctor")
    assert code == 0
    assert "clock" in text
    assert {one["level"] for one in document("doctor")} == {"ok"}
