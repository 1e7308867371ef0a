from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse

from cache_app import backends, slow, stats, stats_store
from cache_app.admin import pages
from cache_app.backend import BrainCache
from foundation import roles
from foundation.models import AuditEntry
from foundation.pages import query
from tests.foundation.people import client_of

pytestmark = pytest.mark.django_db

PAGES = ("statistics", "statistics-live", "keys", "ending", "memory", "slow", "slow-live")


@pytest.fixture
def viewer() -> Client:
    return client_of(roles.VIEWER)


@pytest.fixture
def operator() -> Client:
    return client_of(roles.OPERATOR)


@pytest.fixture
def cache() -> BrainCache:
    return backends.backend("default")


@pytest.fixture
def files(settings: LazySettings, tmp_path: Path) -> BrainCache:
    listed = {"BACKEND": "cache_app.file.FileCache", "LOCATION": str(tmp_path / "c"), "KEY_PREFIX": "files"}
    settings.CACHES = {**settings.CACHES, "files": listed}
    return backends.backend("files")


def at(name: str, **wanted: str) -> str:
    return reverse(f"cache-admin:{name}") + query(wanted)


def text(answer: Any) -> str:
    assert answer.status_code == 200, answer
    found: str = answer.content.decode()
    return found


def messages(answer: Any) -> list[str]:
    return [str(told) for told in answer.context["messages"]]


@pytest.mark.parametrize("name", PAGES)
def test_pages__by_role__for_viewers_and_nobody_else(name: str) -> None:
    assert client_of(roles.VIEWER).get(at(name)).status_code == 200
    assert client_of(None).get(at(name)).status_code == 403
    assert Client().get(at(name)).headers["Location"].startswith("/admin/login/")


def test_menu__each_entry__leads_somewhere_for_a_viewer(viewer: Client) -> None:
    from brain_project.admin_menu import GROUPS

    links = [reverse(name) for _, _, name in dict(GROUPS)["Cache"]]
    for link in links:
        found = text(viewer.get(link))
        assert all(f'href="{other}"' in found for other in links)


@pytest.mark.parametrize("name", ["reset", "delete"])
def test_pages__that_change__are_for_operators(name: str, viewer: Client, operator: Client) -> None:
    assert viewer.get(at(name)).status_code == 403
    assert operator.get(at(name)).status_code == 200


@pytest.mark.usefixtures("redis_down")
@pytest.mark.parametrize("name", PAGES)
def test_pages__redis_gone__say_so_and_stand(name: str, viewer: Client) -> None:
    found = text(viewer.get(at(name)))
    assert "answer" in found or name.startswith("slow")
    assert "of all processes" not in found
    assert "No such key" not in found  # nobody knows
    assert "Biggest keys" not in found


@pytest.mark.usefixtures("redis_down")
def test_changes__redis_gone__are_told_and_leave_no_trace(operator: Client) -> None:
    for address, form in (
        (at("entry", key="a"), {}),
        (at("delete"), {"pattern": "a*"}),
        (at("ending"), {"what": "tags", "names": "t"}),
        (at("reset"), {}),
    ):
        answer = operator.post(address, form, follow=True)
        assert "does not answer" in " ".join(messages(answer)), address
    assert "does not answer" in " ".join(messages(operator.get(at("entry", key="a"))))
    assert not AuditEntry.objects.exists()


def test_statistics__after_reads__ratios_of_aliases_and_namespaces(
    viewer: Client, cache: BrainCache, files: BrainCache
) -> None:
    stats_store.reset()
    users = cache.namespace("<b>users")
    users.set("1", 1)
    users.get("1")
    users.get("2")
    found = text(viewer.get(at("statistics-live")))
    assert "All processes" in found
    assert "&lt;b&gt;users" in found
    assert "50 %" in found
    assert found.index(">default ") < found.index(">files ")
    assert "Reset…" not in text(viewer.get(at("statistics")))


def test_statistics__of_a_cache_that_code_made__are_shown_without_links(
    viewer: Client, cache: BrainCache
) -> None:
    stats_store.reset()
    stats.counts("made-in-code").add("hits_l1", 7)
    found = text(viewer.get(at("statistics-live")))
    section = found[found.index("made-in-code") :]
    assert "not in CACHES" in section
    assert "7 hits" in section
    assert "<a " not in section


def test_reset__asked_and_done__begins_anew(operator: Client, cache: BrainCache) -> None:
    cache.get("missing")
    assert "Reset…" in text(operator.get(at("statistics")))
    assert stats_store.totals().tallies
    operator.get(at("reset"))
    assert stats_store.totals().tallies
    assert messages(operator.post(at("reset"), follow=True)) == ["The statistics begin anew."]
    assert AuditEntry.objects.get().source == "admin"


def test_keys__filtered__names_forms_and_a_link_to_each(viewer: Client, cache: BrainCache) -> None:
    cache.set("user:<1>&x", {"a": 1}, 60)
    cache.set("other", 1, None)
    found = text(viewer.get(at("keys", pattern="user:")))
    assert "user:&lt;1&gt;&amp;x" in found
    assert "key=user%3A%3C1%3E%26x" in found
    assert ">other<" not in found
    assert "Delete by pattern" not in found
    everything = text(viewer.get(at("keys")))
    assert "for ever" in everything
    assert "integer" in everything
    assert "No such key" in text(viewer.get(at("keys", pattern="absent")))


def test_keys__more_than_a_page__next_and_first(viewer: Client, cache: BrainCache) -> None:
    cache.set_many({f"k{number}": 1 for number in range(130)})
    first = viewer.get(at("keys"))
    following = first.context["following"]
    assert "Next page" in text(first)
    second = viewer.get(at("keys") + following)
    assert "First page" in text(second)
    shown = {one["row"].key for answer in (first, second) for one in answer.context["rows"]}
    assert len(shown) >= 100
    assert viewer.get(at("keys", cursor="nonsense")).status_code == 302


def test_keys__unknown_alias__is_404(viewer: Client) -> None:
    for name in ("keys", "memory", "ending"):
        assert viewer.get(at(name, alias="nobody")).status_code == 404


def test_entry__value__for_operators_and_masked(viewer: Client, operator: Client, cache: BrainCache) -> None:
    cache.set("user:1", {"name": "<i>ann", "password": "hunter2"}, 60, tags=("t",))
    address = at("entry", key="user:1")
    found = text(viewer.get(address))
    assert "Values are shown to operators." in found
    assert "ann" not in found
    assert "Delete this entry" not in found
    seen = text(operator.get(address))
    assert "&lt;i&gt;ann" in seen
    assert "hunter2" not in seen
    assert "A read finds it." in seen
    cache.invalidate_tags("t")
    assert "invalidated since" in text(operator.get(address))
    assert messages(operator.get(at("entry", key="missing"), follow=True)) == [
        "missing is not there any more."
    ]


def test_entry__deleted__is_gone_and_audited(viewer: Client, operator: Client, cache: BrainCache) -> None:
    cache.set("a", 1)
    assert viewer.post(at("entry", key="a")).status_code == 403
    assert cache.get("a") == 1
    assert messages(operator.post(at("entry", key="a"), follow=True)) == ["a is deleted."]
    assert cache.get("a") is None
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.actor, entry.source) == ("cache.delete", "some-operator", "admin")
    assert messages(operator.post(at("entry", key="a"), follow=True)) == ["a was gone already."]


def test_delete__pattern__counted_before_it_is_done(operator: Client, cache: BrainCache) -> None:
    cache.set_many({"user:1": 1, "user:2": 2, "other": 3})
    found = text(operator.get(at("delete", pattern="user:*")))
    assert "Delete 2 keys of default?" in found
    assert "user:1" in found
    assert len(cache.get_many(["user:1", "user:2"])) == 2
    answer = operator.post(
        at("delete"), {"alias": "default", "pattern": "user:*", "version": ""}, follow=True
    )
    assert messages(answer) == ["Deleted 2 keys of default."]
    assert cache.get_many(["user:1", "user:2", "other"]) == {"other": 3}
    assert "No key of default matches" in text(operator.get(at("delete", pattern="user:*")))
    operator.post(at("delete"), {"pattern": ""})
    assert cache.get("other") == 3


def test_ending__tags_and_namespaces__end_entries(
    viewer: Client, operator: Client, cache: BrainCache
) -> None:
    users = cache.namespace("users")
    users.set("1", "ann")
    cache.set("a", 1, tags=("t",))
    cache.set("b", 2, tags=("u",))
    assert viewer.post(at("ending"), {"what": "tags", "names": "t"}).status_code == 403
    assert "Invalidating is for operators" in text(viewer.get(at("ending")))
    answer = operator.post(at("ending"), {"what": "tags", "names": "t, u,\nt"}, follow=True)
    assert messages(answer) == ["Ended in default: t, u."]
    assert cache.get_many(["a", "b"]) == {}
    assert users.get("1") == "ann"
    operator.post(at("ending"), {"what": "namespaces", "names": "users"})
    assert users.get("1") is None
    answer = operator.post(at("ending"), {"what": "tags", "names": " , "}, follow=True)
    assert messages(answer)[-1] == "Write at least one name."
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == [
        "cache.invalidate_tags",
        "cache.invalidate_namespace",
    ]


def test_ending__clear__by_admins_who_write_the_name(operator: Client, cache: BrainCache) -> None:
    cache.set("a", 1)
    assert "Clear default" not in text(operator.get(at("ending")))
    form = {"what": "clear", "alias": "default", "confirm": "default"}
    assert operator.post(at("ending"), form).status_code == 403
    admin = client_of(roles.ADMIN)
    assert "Clear default" in text(admin.get(at("ending")))
    assert (
        "Nothing was removed" in messages(admin.post(at("ending"), form | {"confirm": "x"}, follow=True))[0]
    )
    assert cache.get("a") == 1
    assert messages(admin.post(at("ending"), form, follow=True)) == ["Removed 1 key of default."]
    assert cache.get("a") is None


def test_memory__an_alias__its_server_and_biggest_keys(
    viewer: Client, cache: BrainCache, files: BrainCache
) -> None:
    cache.set("small", 1)
    cache.set("big", "x" * 5_000)
    found = text(viewer.get(at("memory")))
    assert "noeviction" in found
    assert found.index(">big<") < found.index(">small<")
    files.set("a", 1)
    assert "of this machine" in text(viewer.get(at("memory", alias="files")))


def test_slow__operations__with_their_keys(viewer: Client, settings: LazySettings) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"SLOW_MS": 1_400.0}}  # not what a busy machine makes slow
    stats_store.reset()
    assert "<strong>None.</strong>" in text(viewer.get(at("slow-live")))
    slow.seen("default", "get_many", "p:1:<b>", 1.5)
    found = text(viewer.get(at("slow-live")))
    assert "p:1:&lt;b&gt;" in found
    assert "1.5 s" in found
    slow.forget()


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (pages.left(None), "–"), (pages.left(float("inf")), "for ever"),
        (pages.left(0.0), "over"), (pages.left(90), "90 s"), (pages.fine(0.000012), "12 µs"), (pages.fine(0.25), "250 ms"),
    ],
)  # fmt: skip
def test_figures__of_lives_and_times__as_people_read_them(shown: str, told: str) -> None:
    assert shown == told
