"""db.query on the three engines, in sync code and within a loop."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator

import pytest
from django.core.exceptions import FieldError, SynchronousOnlyOperation
from django.db import IntegrityError, connections
from django.db.models import Count, F, Q, Sum

from orm_app import db
from orm_app.columns import UnknownField

from .snippets_app import databases


@pytest.fixture(
    scope="module",
    params=[
        databases.ENGINES[0],
        *(pytest.param(e, marks=pytest.mark.service) for e in databases.ENGINES[1:]),
    ],
)
def engine(request, tmp_path_factory, django_db_blocker) -> Iterator[str]:
    url = databases.url_of(request.param, request, tmp_path_factory.mktemp("query"))
    with django_db_blocker.unblock(), databases.snippets_database(url) as alias:
        yield alias


@pytest.fixture
def models(engine):
    """Three users; ann has four articles, bob one."""
    from .snippets_app import models

    databases.empty(engine)
    ann, bob, _ = [
        models.User.objects.create(username=name, email=f"{name}@example.com")
        for name in ("ann", "bob", "Cy_d")
    ]
    for number, score in enumerate([5, None, 5, 9]):
        models.Article.objects.create(title=f"t{number}", author=ann, score=score, place=number)
    models.Article.objects.create(title="100% mine", author=bob, score=1, place=9)
    return models


def titles(rows) -> list[str]:
    return [row.title for row in rows]


def test_where__each_form__the_rows_it_means(models):
    articles = db.query(models.Article).order_by("place")
    for found, expected in (
        (articles.where(score=5), ["t0", "t2"]),
        (articles.where("score", 5), ["t0", "t2"]),
        (articles.where("score", ">=", 5), ["t0", "t2", "t3"]),
        (articles.where("score", "!=", 5), ["t1", "t3", "100% mine"]),
        (articles.where("score", "not in", [5, 9]), ["t1", "100% mine"]),
        (articles.where("score", "between", (2, 9)), ["t0", "t2", "t3"]),
        (articles.where(Q(score=9) | Q(score=1)), ["t3", "100% mine"]),
        (articles.where(score=F("place")), []),
        (articles.where_eq("score", None), ["t1"]),
        (articles.where_eq("author.username", "bob"), ["100% mine"]),
        (articles.where_eq("author_id", models.User.objects.get(username="bob").pk), ["100% mine"]),
        (articles.where_in("place", (n for n in (0, 3))), ["t0", "t3"]),
        (
            articles.where_in("author", db.query(models.User).where_eq("username", "bob").select("id")),
            ["100% mine"],
        ),
        (articles.where_between("place", 1, 2), ["t1", "t2"]),
        (articles.exclude(score=5), ["t1", "t3", "100% mine"]),
        (articles.where(score=5).where(place=0).or_where(score=9), ["t0", "t3"]),
        (articles.or_where(score=9), ["t3"]),
        (articles.where(score=5).or_where(score=9).where(place__gt=0), ["t2", "t3"]),
    ):
        assert titles(found.all()) == expected, found.sql()


def test_where_like__pattern__the_same_on_each_engine(models):
    users, articles = db.query(models.User).order_by("username"), db.query(models.Article)
    names = lambda query: {user.username for user in query.all()}  # noqa: E731
    assert names(users.where_like("username", "a%")) == {"ann"}
    assert names(users.where_like("username", "A%")) == set()
    assert names(users.where_like("username", "A%", ignore_case=True)) == {"ann"}
    assert names(users.where_like("username", "_o_")) == {"bob"}
    assert names(users.where_like("username", r"%\_d")) == {"Cy_d"}
    assert names(users.where("username", "not like", "a%")) == {"bob", "Cy_d"}
    assert titles(articles.where_like("title", r"100\%%").all()) == ["100% mine"]
    users.bulk_insert([{"username": "zażółć", "email": "z@x"}])
    assert names(users.where_like("username", "za____")) == {"zażółć"}  # characters, not bytes
    ann = users.get(username="ann").pk
    assert names(users.where_like("id", f"{ann}%").where_eq("id", ann)) == {"ann"}  # as text, also a number
    with pytest.raises(TypeError, match="pattern is text"):
        users.where_like("username", 5).all()


def test_where_like__in_a_json_document__the_text_without_its_quotes(models):
    orders, user = db.query(models.Order), db.query(models.User).get(username="ann")
    orders.bulk_insert([{"user": user, "amount": 1, "details": {"city": "Bonn"}}])
    for pattern, ignore_case, expected in (
        ("B%", False, 1),
        ("%nn", False, 1),
        ("b%", False, 0),
        ("b%", True, 1),
    ):
        assert orders.where_like("details.city", pattern, ignore_case=ignore_case).count() == expected


def test_shape__order_limit_offset_distinct_select(models):
    articles = db.query(models.Article)
    assert titles(articles.order_by("-place").limit(2).all()) == ["100% mine", "t3"]
    assert titles(articles.order_by("place").offset(3).all()) == ["t3", "100% mine"]
    assert titles(articles.order_by("author.username").order_by("-place").limit(1).offset(1).all()) == ["t2"]
    assert articles.order_by("score").select("score").distinct().values("score", flat=True).count(5) == 1
    row = articles.select("title").first()
    assert row.get_deferred_fields() >= {"score", "place"}
    assert articles.where(score=9).limit(3).count() == 1


def test_builder__each_step__leaves_the_query_as_it_was(models):
    everybody = db.query(models.User)
    everybody.where_eq("username", "ann").order_by("-id").limit(1)
    assert everybody.count() == 3
    first = everybody.all()
    models.User.objects.create(username="dan", email="dan@example.com")
    assert (len(first), len(everybody.all())) == (3, 4)


def test_with_related__one_and_many__no_query_afterwards(models, engine, django_assert_num_queries):
    with django_assert_num_queries(1, using=engine):
        rows = db.query(models.Article).join("author").where(score=9).all()
        assert rows[0].author.username == "ann"
    with django_assert_num_queries(2, using=engine):
        users = db.query(models.User).with_related("articles").order_by("id").all()
        assert [len(user.articles.all()) for user in users] == [4, 1, 0]
    with pytest.raises(UnknownField, match="is a column"):
        db.query(models.Article).with_related("title")


def test_group_by__aggregate__groups_and_having(models):
    groups = (
        db.query(models.Article)
        .where(place__lt=9)
        .group_by("score")
        .aggregate(many=Count("id"), top=Sum("place"))
    )
    assert groups.where(many__gt=1).all() == [{"score": 5, "many": 2, "top": 2}]
    assert [row["score"] for row in groups.order_by("-many").limit(1).all()] == [5]
    assert groups.first().keys() == {"score", "many", "top"}
    assert db.query(models.Article).aggregate(total=Sum("score")) == {"total": 20}
    with pytest.raises(TypeError, match="groups"):
        groups.page_after()


def test_group_by__names_that_are_not_of_the_groups__refused_as_they_would_change_them(models):
    articles = db.query(models.Article)
    groups = articles.group_by("author").aggregate(many=Count("id"))
    for wrong in (
        lambda: groups.where(place=0),
        lambda: groups.where_in("place", [0]),
        lambda: groups.or_where(Q(place=0)),
        lambda: groups.order_by("place"),
        lambda: groups.values("place"),
    ):
        with pytest.raises(UnknownField, match="a group has no 'place'.*'?author"):
            wrong()
    ann = models.User.objects.get(username="ann").pk
    assert groups.where(author_id=ann).where(many__gt=1).all() == [{"author": ann, "many": 4}]
    assert [row["many"] for row in groups.order_by("author__username").all()] == [4, 1]
    of_one = articles.group_by("id").aggregate(many=Count("author__orders"))
    assert len(of_one.where(place__lt=2).all()) == 2  # each row is a group


def test_or_where__after_annotate__refused_where_it_could_not_reach_what_came_before(models):
    articles = db.query(models.Article).order_by("place")
    late = articles.where(score=9).annotate(next=F("place") + 1)
    with pytest.raises(TypeError, match="annotate last"):
        late.or_where(score=1)
    assert titles(articles.annotate(next=F("place") + 1).where(score=9).or_where(next=1).all()) == [
        "t0",
        "t3",
    ]


def test_terminals__first_get_exists_values(models):
    users = db.query(models.User)
    assert users.first().username == "ann"
    assert users.where(username="x").first() is None
    assert users.get(username="bob").email == "bob@example.com"
    with pytest.raises(models.User.DoesNotExist):
        users.get(username="x")
    assert users.where(username="ann").exists() is True
    assert users.order_by("id").values("username") == [{"username": name} for name in ("ann", "bob", "Cy_d")]
    assert users.order_by("id").values("username", flat=True) == ["ann", "bob", "Cy_d"]
    assert users.select("username").order_by("id").limit(1).values() == [{"username": "ann"}]
    assert users.where_in("id", []).sql().text  # what asks nothing has a text too
    with pytest.raises(TypeError, match="exists"):
        assert users.where(username="x")
    with pytest.raises(TypeError, match="one column"):
        users.where_in("id", db.query(models.Article).select("author_id", "title"))


def test_update_and_delete__count_and_limits(models):
    articles = db.query(models.Article)
    assert articles.where(score=5).update(score=F("score") + 1, place=7) == 2
    assert articles.where(score=6, place=7).count() == 2
    for refused in (lambda: articles.limit(1).update(score=1), lambda: articles.offset(1).delete()):
        with pytest.raises(TypeError, match="no limit"):
            refused()
    assert articles.where(author__username="bob").delete() == 1
    assert db.query(models.User).where(username="ann").delete() == 1
    assert articles.count() == 0


def test_unknown_name__each_place__an_error_that_names_the_near_ones(models):
    users = db.query(models.User)
    for wrong in (
        lambda: users.where_eq("usernme", "x"),
        lambda: users.where(usernme="x"),
        lambda: users.where(Q(id=1) | Q(usernme__startswith="x")),
        lambda: users.where("usernme", "=", 1),
        lambda: users.or_where(usernme=1),
        lambda: users.order_by("-usernme"),
        lambda: users.select("usernme"),
        lambda: users.group_by("usernme"),
        lambda: users.values("usernme"),
        lambda: users.update(usernme=1),
        lambda: users.bulk_insert([{"usernme": "x"}]),
        lambda: users.upsert([], unique="usernme"),
        lambda: db.query(models.Article).where_eq("author.usernme", 1),
    ):
        with pytest.raises(UnknownField, match="'username'"):
            wrong()
    with pytest.raises(FieldError, match="startswith"):
        users.where(username__startwith="a")
    with pytest.raises(TypeError, match="unknown operator '=>'"):
        users.where("id", "=>", 1)
    with pytest.raises(TypeError, match="db.raw"):
        users.where("username = 'x'")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q: q.limit(-1),
        lambda q: q.limit(True),
        lambda q: q.offset("1"),
        lambda q: q.chunk(0),
        lambda q: q.page_after(size=0),
    ],
)
def test_size__not_a_whole_number__refused(models, wrong):
    with pytest.raises(ValueError, match="whole number|at least one"):
        wrong(db.query(models.User))


def test_query__not_a_model__refused():
    with pytest.raises(TypeError, match="takes a model"):
        db.query("users")


def test_bulk_insert__dicts_and_instances_from_a_generator__all_or_none(models):
    users = db.query(models.User)
    made = ({"username": f"u{n}", "email": f"u{n}@x"} for n in range(25))
    assert users.bulk_insert(made, batch_size=10) == 25
    assert users.bulk_insert([models.User(username="i", email="i@x")]) == 1
    again = [{"username": "new", "email": "new@x"}, {"username": "ann", "email": "other@x"}]
    with pytest.raises(IntegrityError):
        users.bulk_insert(again, batch_size=1)
    assert users.count() == 29
    assert users.get(username="u3").created_at is not None


def test_upsert__known_and_new_rows__one_statement_and_the_last_wins(
    models, engine, django_assert_num_queries
):
    users = db.query(models.User)
    before = users.get(username="ann")
    rows = [
        {"username": "ann", "email": "first@x"},
        {"username": "dan", "email": "dan@x"},
        {"username": "ann", "email": "last@x"},
    ]
    assert users.upsert(rows, unique="username") == 3
    after = users.get(username="ann")
    assert (after.email, after.pk, after.is_active, after.created_at) == (
        "last@x",
        before.pk,
        True,
        before.created_at,
    )
    users.upsert(
        [{"username": "dan", "email": "changed@x", "is_active": False}],
        unique=["username"],
        update=["is_active"],
    )
    assert users.order_by("id").values("email", "is_active")[-1] == {"email": "dan@x", "is_active": False}
    with pytest.raises(ValueError, match="unique constraint .* is_active: there is"):
        users.upsert(rows, unique="is_active")
    for rows in (
        [{"username": "dan", "email": "new@x"}, {"username": "ann", "is_active": False}],
        [{"username": "dan", "email": "new@x"}, models.User(username="ann", email="new@x")],
    ):
        with pytest.raises(ValueError, match="would overwrite"):
            users.upsert(rows, unique="username")
    with pytest.raises(ValueError, match="without 'is_active'"):
        users.upsert([{"username": "dan", "email": "new@x"}], unique="username", update=["is_active"])
    assert not users.where(email="new@x").exists()
    articles = db.query(models.Article)
    articles.upsert([{"author": after, "title": "t0", "score": 3}], unique=("author", "title"))
    assert articles.get(title="t0").score == 3
    assert articles.count() == 5


def test_explain_and_sql__show_what_is_sent(models, engine):
    query = db.query(models.User).where_eq("username", "x' OR 1=1")
    text, params = query.sql()
    assert "x' OR" not in text
    assert params == ("x' OR 1=1",)
    assert query.explain()
    assert db.raw(*query.sql(), using=engine) == []


def test_using__alias__that_database(models, engine):
    assert db.query(models.User).using(engine).queryset.db == engine


# --- within a loop ---
async def test_async__terminals__are_awaited_and_off_the_loop(models):
    users = db.query(models.User)
    saved = await models.User(username="eve", email="eve@x").save()
    assert (saved.pk is not None, saved.created_at is not None) == (True, True)
    assert [user.username for user in await users.where_eq("username", "eve").all()] == ["eve"]
    assert await asyncio.gather(users.count(), users.exists(), users.where(username="x").first()) == [
        4,
        True,
        None,
    ]
    assert await asyncio.wait_for(users.where(username="eve").update(email="new@x"), 60) == 1
    await saved.refresh_from_db()
    assert saved.email == "new@x"
    assert await users.bulk_insert([{"username": "f", "email": "f@x"}]) == 1
    assert await users.upsert([{"username": "f", "email": "g@x"}], unique="username") == 1
    assert (await users.page_after(size=2)).has_more
    await saved.delete()
    assert await users.order_by("id").values("username", flat=True) == ["ann", "bob", "Cy_d", "f"]
    assert "users" in users.sql().text
    task = asyncio.ensure_future(users.count())
    assert await task == 4
    assert (await models.User.objects.acreate(username="z", email="z@x")).pk


async def test_async__in_a_transaction__takes_part_in_it(models, engine):
    with pytest.raises(LookupError):
        async with db.transaction(using=engine):
            await models.User(username="eve", email="eve@x").save()
            assert await db.query(models.User).count() == 4
            raise LookupError
    assert await db.query(models.User).count() == 3


async def test_async__chunk_and_stream__left_and_cancelled__nothing_stays(models, engine):
    articles = db.query(models.Article).order_by("place")
    assert [titles(rows) async for rows in articles.chunk(2)] == [["t0", "t1"], ["t2", "t3"], ["100% mine"]]
    async for row in articles.stream(2):
        assert row.title == "t0"
        break
    got = []

    async def read() -> None:
        async for row in articles.stream(1):
            got.append(row)
            await asyncio.sleep(0 if len(got) < 2 else 60)

    task = asyncio.ensure_future(read())
    while len(got) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await articles.count() == 5
    with pytest.raises(SynchronousOnlyOperation, match="async for"):
        list(articles.stream())


def test_sync__chunk_and_stream__all_rows_once_with_limit_and_offset(models):
    articles = db.query(models.Article).order_by("place")
    assert [titles(rows) for rows in articles.chunk(2)] == [["t0", "t1"], ["t2", "t3"], ["100% mine"]]
    assert titles(articles) == ["t0", "t1", "t2", "t3", "100% mine"]
    assert titles(articles.offset(1).limit(3).stream(2)) == ["t1", "t2", "t3"]
    assert list(articles.limit(0).stream()) == []
    both = articles.chunk(3)
    assert titles(next(iter(both))) == titles(next(iter(both)))


# --- never awaited ---
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_never_awaited__save_and_terminal__log_with_call_site_and_warn(models, caplog):
    from orm_app.awaiting import NeverAwaited

    for forget in (models.User(username="eve", email="eve@x").save, db.query(models.User).count):
        with caplog.at_level(logging.ERROR), pytest.warns(NeverAwaited, match="test_query.py.*never awaited"):
            forget()
    records = [record for record in caplog.records if record.name == "orm_app.awaiting"]
    assert len(records) == 2
    said = str([record.msg for record in records])
    assert "User.save" in said
    assert "query.count" in said
    assert "test_query.py" in said
    assert await db.query(models.User).count() == 3


async def test_never_awaited__warnings_are_errors__fails_the_test_that_forgot(models, monkeypatch):
    """pytest turns what a finalizer raises into a failure; so does this project's `filterwarnings = ["error"]`."""
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda given: raised.append(given.exc_value))
    models.User(username="eve", email="eve@x").save()
    assert "User.save at" in str(raised[0])


async def test_pending__used_as_a_value_or_twice__told_to_await(models):
    pending = db.query(models.User).all()
    for use in (bool, list, lambda value: value.username):
        with pytest.raises((TypeError, AttributeError), match="await"):
            use(pending)
    assert len(await pending) == 3
    with pytest.raises(RuntimeError, match="awaited already"):
        await pending


async def test_create__djangos_sync_code_within_a_loop__refused_as_ever(models):
    with pytest.raises(SynchronousOnlyOperation, match="acreate"):
        models.User.objects.create(username="eve", email="eve@x")


def test_connections__after_all_of_it__are_this_modules_own(engine):
    assert connections[engine].in_atomic_block is False
