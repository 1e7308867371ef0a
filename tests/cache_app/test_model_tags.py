from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connection, models, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.test.utils import isolate_apps

from cache_app import backends, cached, late, model_tags
from cache_app.store import StoreFailed
from tests import servers

from .loaders import Counted, Loader, Thread, awrapped, until, wrapped

pytestmark = pytest.mark.django_db(transaction=True)
GROUP = "model:auth.group"


@pytest.fixture(autouse=True)
def nothing_watched() -> Iterator[None]:
    """What a test listens to is forgotten after it."""
    signals = (post_save, post_delete, m2m_changed)
    before = [signal.receivers[:] for signal in signals]
    watched = model_tags._watched.copy()
    yield
    model_tags._watched.clear()
    model_tags._watched.update(watched)
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers[:] = receivers
        signal.sender_receivers_cache.clear()


def version(tag: str = GROUP) -> int:
    cache = backends.backend()
    return cache.store.versions([cache.tag_key(tag)])[0]


class Raised:
    """Which of the tags have been raised since this was made, or last asked."""

    def __init__(self, *tags: str) -> None:
        self.tags = tags
        self.before = [version(tag) for tag in tags]

    def __call__(self) -> list[bool]:
        now = [version(tag) for tag in self.tags]
        changed = [new > old for new, old in zip(now, self.before, strict=True)]
        self.before = now
        return changed


def groups() -> Any:
    return wrapped(
        Loader(lambda run: sorted(Group.objects.values_list("name", flat=True))), depends_on=[Group]
    )


def test_depends_on__row_saved_changed_and_deleted__is_loaded_again() -> None:
    function = groups()
    assert "new" not in function()
    group = Group.objects.create(name="new")
    assert "new" in function()
    group.name = "newer"
    group.save()
    assert "newer" in function()
    group.delete()
    assert "newer" not in function()
    assert function.lookup().hit is True


def test_depends_on__named_by_text__is_the_same_model() -> None:
    function = wrapped(Loader(lambda run: run), depends_on=["auth.Group"])
    assert (function(), function()) == (1, 1)
    Group.objects.create(name="new")
    assert function() == 2


def test_depends_on__no_such_model__is_said_when_it_is_declared() -> None:
    with pytest.raises(LookupError):
        wrapped(Loader(), depends_on=["auth.Gruop"])


async def test_depends_on__coroutine_function_and_asave__is_loaded_again() -> None:
    function = awrapped(Loader(lambda run: run), depends_on=[Group])
    assert (await function(), await function()) == (1, 1)
    group = await Group.objects.acreate(name="new")
    assert await function() == 2
    await group.adelete()
    assert await function() == 3


def test_commit__tags_are_raised_after_it_and_not_before() -> None:
    model_tags.watch(Group)
    raised = Raised(GROUP)
    with transaction.atomic():
        Group.objects.create(name="new")
        assert raised() == [False]
    assert raised() == [True]


def test_commit__many_rows_in_many_savepoints__one_step_with_each_tag_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_tags.watch(Group)
    steps: list[set[str]] = []
    monkeypatch.setattr(late, "raise_tags", lambda cache, tags: steps.append(set(tags)))
    with transaction.atomic():
        rows = []
        for number in range(20):
            with transaction.atomic():
                rows.append(Group.objects.create(name=f"new {number}"))
                rows[-1].save()
            assert len(connection.run_on_commit) == 1
    assert steps == [{GROUP, *(f"{GROUP}:{row.pk}" for row in rows)}]


def test_rollback__nothing_is_raised_and_the_next_transaction_is() -> None:
    model_tags.watch(Group)
    raised = Raised(GROUP)
    with pytest.raises(LookupError), transaction.atomic():
        Group.objects.create(name="lost")
        raise LookupError
    assert raised() == [False]
    with transaction.atomic():
        Group.objects.create(name="kept")
    assert raised() == [True]


@pytest.mark.parametrize("before", [False, True])
def test_rollback__of_a_savepoint__what_is_saved_around_it_is_raised(before: bool) -> None:
    model_tags.watch(Group)
    raised = Raised(GROUP)
    with transaction.atomic():
        if before:
            Group.objects.create(name="before")
        with pytest.raises(LookupError), transaction.atomic():
            Group.objects.create(name="lost")
            raise LookupError
        if not before:
            Group.objects.create(name="after")
    assert raised() == [True]


def test_rows__each_has_a_tag_of_its_own() -> None:
    one, two = Group.objects.create(name="one"), Group.objects.create(name="two")
    loader = Loader(lambda run: run)
    function = wrapped(loader, tags=lambda pk, b=2: [model_tags.model_tag(Group, pk)])
    assert (function(one.pk), function(two.pk)) == (1, 2)
    one.save()
    assert (function(one.pk), function(two.pk)) == (3, 2)


def test_relations__both_sides_are_raised() -> None:
    user = get_user_model().objects.create_user("ada", "ada@example.com")
    group = Group.objects.create(name="new")
    users = f"model:{get_user_model()._meta.label_lower}"
    for model in (Group, get_user_model()):
        model_tags.watch(model)
    raised = Raised(GROUP, f"{GROUP}:{group.pk}", users, f"{users}:{user.pk}")
    user.groups.add(group)
    assert raised() == [True] * 4
    group.user_set.remove(user)
    assert raised() == [True] * 4
    user.groups.add(group)
    raised()
    user.groups.clear()
    assert raised() == [True, False, True, True]  # Django does not say which groups it was about


def test_listeners__of_models_that_nothing_depends_on__there_are_none() -> None:
    model_tags.watch(Group)
    model_tags.watch(Group)
    assert post_delete.has_listeners(Group)
    assert not post_delete.has_listeners(Permission)
    assert sum(uid[0] == model_tags._CHANGE for uid, *_ in post_delete.receivers) == 1


def test_relatives__proxies_parents_and_children__change_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with isolate_apps("django.contrib.messages") as isolated:

        class Place(models.Model):  # noqa: DJ008
            class Meta:
                app_label = "messages"

        class Bar(Place):  # noqa: DJ008
            class Meta:
                app_label = "messages"

        class Inn(Place):  # noqa: DJ008
            class Meta:
                app_label = "messages"

        class OldInn(Inn):  # noqa: DJ008
            class Meta:
                app_label, proxy = "messages", True

        monkeypatch.setattr(model_tags, "apps", isolated)
        expected = {
            Place: {"place", "bar", "inn", "oldinn"},
            Bar: {"place", "bar"},
            Inn: {"place", "inn", "oldinn"},
            OldInn: {"place", "inn", "oldinn"},
        }
        for model, names in expected.items():
            assert set(model_tags._line(model)) == {f"messages.{name}" for name in names}


def test_invalidate_model__update_of_many_rows__on_commit() -> None:
    function = groups()
    Group.objects.create(name="old")
    assert "old" in function()
    with transaction.atomic():
        Group.objects.filter(name="old").update(name="updated")
        model_tags.invalidate_model(Group)
        assert "old" in Thread(_elsewhere, function).done()
    assert "updated" in function()


def _elsewhere(function: Any) -> Any:
    """What is stored, asked by a thread that has no transaction."""
    cache = backends.backend(function.alias)
    return cache.read(function.key(), (GROUP,)).value


def test_invalidate_model__that_only_other_processes_depend_on__raises_all_the_same() -> None:
    assert not model_tags._watched.get("auth.group")
    raised = Raised(GROUP, f"{GROUP}:7")
    model_tags.invalidate_model("auth.Group", 7)
    assert raised() == [True, True]
    asyncio.run(model_tags.ainvalidate_model(Group, 7))
    assert raised() == [True, True]


def test_model_tags__setting__watches_what_other_processes_depend_on(settings: LazySettings) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"MODEL_TAGS": ["auth.group"]}}
    model_tags.connect()
    raised = Raised(GROUP)
    Group.objects.create(name="new")
    assert raised() == [True]


# --- loads and transactions ------------------------------------------------------------------------------------------
def test_load__row_changes_after_it_was_read__the_result_is_over_before_it_is_stored() -> None:
    group = Group.objects.create(name="old")

    def load(run: int) -> str:
        name = Group.objects.get(pk=group.pk).name
        if run == 1:
            Group(pk=group.pk, name="new").save()  # somebody else, while this load goes on
        return name

    function = wrapped(Loader(load), depends_on=[Group])
    assert [function(), function(), function()] == ["old", "new", "new"]


def test_transaction__that_has_changed_rows__reads_its_own_and_stores_nothing() -> None:
    function = groups()
    assert "new" not in function()
    with pytest.raises(LookupError), transaction.atomic():
        Group.objects.create(name="new")
        assert "new" in function()
        assert function.lookup().hit is False
        raise LookupError
    found = function.lookup()
    assert "new" not in found.value
    assert found.hit is True


def test_transaction__that_has_changed_nothing__uses_the_cache() -> None:
    function = groups()
    function()
    with transaction.atomic():
        assert function.lookup().hit is True


# --- a store that is down at commit ----------------------------------------------------------------------------------
def test_commit__store_is_down__is_made_up_for_when_it_is_back(
    settings: LazySettings, own_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(late, "LAST_PAUSE_S", 0.02)
    with servers.scratch("late") as folder:
        path = Path(folder) / "s"
        settings.CACHES = settings.CACHES | {
            "gone": settings.CACHES["default"]
            | {"LOCATION": f"unix://{path}?db=0", "OPTIONS": {"BREAKER_OPEN_S": 0.02}}
        }
        model_tags.watch(Group, "gone")
        counted = backends.backend("gone").counts
        before = counted.events().get("invalidations", 0)
        group = Group.objects.create(name="one")
        group.save()
        assert late.waiting() == 2  # the model's and the row's, each once
        with servers.valkey(unix_socket=path):
            until(lambda: late.waiting() == 0)
            cache = backends.backend("gone")
            found = cache.store.get_many([cache.tag_key(GROUP), cache.tag_key(f"{GROUP}:{group.pk}")])
    assert all(isinstance(number, bytes) and number.isdigit() for number in found)
    assert counted.events()["invalidations"] == before + 2


class Store:
    """Fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.failures, self.taken = failures, list[str]()
        self.meanwhile = lambda: None

    def raise_versions(self, keys: list[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreFailed from OSError("down")
        self.meanwhile()
        self.taken += keys


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cache whose store fails once; the background is left out of it."""
    cache = backends.backend()
    monkeypatch.setattr(cache, "store", Store(1))
    monkeypatch.setattr(late, "_thread", object())
    yield cache
    late._waiting.clear()


def test_late__asked_for_again_while_it_is_made_up_for__is_done_again(failing: Any) -> None:
    assert late.raise_tags(failing, ["a", "b"]) is False
    failing.store.meanwhile = lambda: late._keep(failing, ["b"])
    assert late.try_again() is False
    assert late.waiting() == 1
    failing.store.meanwhile = lambda: None
    assert late.try_again() is True
    assert failing.store.taken == [failing.tag_key(tag) for tag in ("a", "b", "b")]


def test_late__no_thread_can_be_started__the_next_one_tries_again(
    failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(late, "_thread", None)
    monkeypatch.setattr(late, "FIRST_PAUSE_S", 0.01)
    failing.store.failures = 2
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert late.raise_tags(failing, ["a"]) is False
    assert late.waiting() == 1
    assert late.raise_tags(failing, ["b"]) is False
    until(lambda: late.waiting() == 0)
    assert set(failing.store.taken) == {failing.tag_key("a"), failing.tag_key("b")}


def test_late__no_room__is_said_and_the_ones_before_stay(
    failing: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(late, "ROOM", 2)
    late.raise_tags(failing, ["a", "b", "c"])
    assert [tag for _, tag in late._waiting] == ["a", "b"]
    assert "cache_invalidation_lost" in caplog.text


def test_apps__ready__what_is_declared_before_the_models_are_there_is_watched_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apps, "models_ready", False)
    cached(depends_on=["auth.group"])(lambda: None)
    assert not post_save.has_listeners(Group)
    monkeypatch.setattr(apps, "models_ready", True)
    model_tags.connect()
    assert post_save.has_listeners(Group)


def test_counts__a_change__is_counted_once_per_tag() -> None:
    function = groups()
    counted = Counted(function)
    counts = backends.backend().counts
    before = counts.events().get("invalidations", 0)
    Group.objects.create(name="new")
    assert counts.events()["invalidations"] == before + 2
    assert counted.invalidations == 0
