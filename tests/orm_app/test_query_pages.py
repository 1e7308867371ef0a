"""Keyset pages: every row exactly once, whatever the order, on the three engines."""

from __future__ import annotations

import contextlib
import itertools
import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connections, models, transaction
from django.db.models import Count, F
from django.test.utils import isolate_apps

from orm_app import db, keyset

from .snippets_app import databases


@pytest.fixture(
    scope="module",
    params=[
        databases.ENGINES[0],
        *(pytest.param(e, marks=pytest.mark.service) for e in databases.ENGINES[1:]),
    ],
)
def engine(request, tmp_path_factory, django_db_blocker) -> Iterator[str]:
    url = databases.url_of(request.param, request, tmp_path_factory.mktemp("pages"))
    with django_db_blocker.unblock(), databases.snippets_database(url) as alias:
        _fill(alias)
        yield alias


def _fill(alias: str) -> None:
    """40 articles with many ties and NULLs, and 40 orders."""
    from .snippets_app.models import Article, Order, User

    chance = random.Random(7)
    users = [User.objects.create(username=f"u{n}", email=f"u{n}@x") for n in range(4)]
    for number in range(40):
        Article.objects.create(
            title=f"t{number % 7}-{number}",
            author=chance.choice([*users, None]),
            score=chance.choice([None, 1, 2, 3]),
            place=number % 5,
        )
        Order.objects.create(
            user=chance.choice(users),
            amount=Decimal(number % 3) / 4,
            priority=chance.choice([None, 1, 2]),
            paid_at=chance.choice(
                [None, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=number % 4)]
            ),
        )


@contextlib.contextmanager
def db_rolled_back(alias: str) -> Iterator[None]:
    with db.transaction(using=alias):
        yield
        transaction.set_rollback(True, using=alias)


def walk(query, size: int) -> list:
    found, cursor = [], None
    for _ in range(100):
        page = query.page_after(cursor, size=size)
        found += page.rows
        cursor = page.cursor
        assert page.has_more == (cursor is not None)
        if cursor is None:
            return found
        assert len(page) == size
    raise AssertionError("no end")


ORDERS = [
    *itertools.product(("score", "-score"), ("place", "-place")),
    *itertools.product(("place", "-place"), ("title", "-title")),
    ("-place",),
    ("author.username", "-score"),
    ("-author_id", "place"),
    (),
    ("-id",),
    ("pk", "score"),
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_page_after__order__every_row_once_and_in_the_databases_order(engine, order):
    from .snippets_app.models import Article

    query = db.query(Article).order_by(*order) if order else db.query(Article)
    found = walk(query, 7)
    last = [] if {"-id", "pk"} & set(order) else ["-id" if order and order[-1].startswith("-") else "id"]
    expected = (query.order_by(*last) if last else query).all()
    assert [row.pk for row in found] == [row.pk for row in expected]


@pytest.mark.parametrize("nulls", ["nulls_first", "nulls_last"])
@pytest.mark.parametrize("way", ["asc", "desc"])
def test_page_after__nulls_placed_on_purpose__every_row_once(engine, nulls, way):
    from .snippets_app.models import Article

    query = db.query(Article).order_by(getattr(F("score"), way)(**{nulls: True}), "-place", "id")
    assert walk(query, 3) == query.all()


@pytest.mark.parametrize(
    "order", [("-amount", "priority"), ("paid_at", "-amount"), ("-paid_at",), ("kind", "-user_id")], ids=str
)
def test_page_after__decimals_times_and_keys__every_row_once(engine, order):
    from .snippets_app.models import Order

    query = db.query(Order).order_by(*order, "id")
    assert walk(query, 4) == query.all()
    assert list(query.stream(3)) == query.all()


def test_page_after__annotation_and_condition__every_row_once(engine):
    from .snippets_app.models import Article, User

    query = db.query(User).annotate(many=Count("article")).order_by("-many", "id")
    assert walk(query, 1) == query.all()
    some = db.query(Article).where(score=1).or_where(place=2).order_by("-place")
    assert [row.pk for row in walk(some, 2)] == [row.pk for row in some.order_by("-id").all()]


def test_page_after__rows_stored_meanwhile__neither_lost_nor_twice(engine):
    from .snippets_app.models import Article

    query = db.query(Article).order_by("-place", "-id")
    first = query.page_after(size=5)
    new = Article.objects.create(title="new", place=99)
    second = query.page_after(first.cursor, size=5)
    new.delete()
    assert [*first, *second] == query.limit(10).all()


def test_page_after__decimals_with_hidden_digits_on_sqlite__refused_not_endless(engine):
    from .snippets_app.models import Order

    if connections[engine].vendor != "sqlite":
        pytest.skip("servers round what they store")
    with db_rolled_back(engine):
        db.query(Order).update(amount=Decimal(1) / 3)
        with pytest.raises(ValueError, match="more digits"):
            walk(db.query(Order).order_by("amount"), 4)


def test_page_after__cursor_changed_or_of_another_order__refused(engine):
    from .snippets_app.models import Article, Everything

    query = db.query(Article).order_by("place")
    cursor = query.page_after(size=5).cursor
    for other, given in (
        (query, f"x{cursor}"),
        (query, "x"),
        (query, ""),
        (db.query(Article).order_by("-place"), cursor),
    ):
        with pytest.raises(keyset.BadCursor):
            other.page_after(given, size=5)
    by_uuid = keyset.encode(keyset.terms(Everything.objects.order_by("pk")), [uuid.uuid4()])
    parts = [replace(term, name="code") for term in keyset.terms(Article.objects.order_by("pk"))]
    with pytest.raises(keyset.BadCursor, match="another model"):
        keyset.decode(parts, by_uuid)


def test_page_after__no_order_of_columns__refused_with_the_way_out(engine):
    from .snippets_app.models import Article

    articles = db.query(Article)
    for order in ("?", F("place") + 1, "author"):
        with pytest.raises(ValueError, match="to page|cannot be paged"):
            articles.order_by(order).page_after(size=5)
    with pytest.raises(ValueError, match="own size"):
        articles.limit(3).page_after()


def test_pages__reversed_query__every_row_once_from_its_end(engine):
    from .snippets_app.models import Article

    for order in (["place", "id"], ["-score", "id"]):
        query = db.query(Article.objects.order_by(*order).reverse())
        expected = [row.pk for row in query.all()]
        assert [row.pk for row in walk(query, 7)] == expected
        assert [row.pk for row in query.stream(7)] == expected


def test_pages__a_union_or_a_slice__refused_instead_of_the_first_page_for_ever(engine):
    from .snippets_app.models import Article

    few, many = Article.objects.filter(place=0), Article.objects.filter(place__gt=2)
    for wrong, said in ((few.union(many), "union"), (few[:3], "slice")):
        with pytest.raises(ValueError, match=said):
            next(iter(db.query(wrong).stream(2)))
        with pytest.raises(ValueError, match=said):
            db.query(wrong).page_after(size=2)


def test_pages__rows_of_a_to_many_join__refused_instead_of_losing_the_repeated_ones(engine):
    from .snippets_app.models import User

    users = db.query(User).where(article__place__gte=0)
    for wrong in (lambda: list(users.stream(2)), lambda: users.page_after(size=2)):
        with pytest.raises(ValueError, match="distinct"):
            wrong()
    once = [user.pk for user in users.distinct().stream(1)]
    assert sorted(once) == sorted({user.pk for user in users.all()})
    with pytest.raises(ValueError, match="no column of one row"):
        users.order_by("article__place").distinct().page_after(size=2)
    counted = db.query(User).annotate(many=Count("article")).order_by("many")
    assert len(walk(counted, 2)) == counted.count()


@isolate_apps("tests.orm_app.snippets_app")
def test_terms__key_that_is_a_relation__paged_by_its_column():
    from .snippets_app.models import User

    class Profile(models.Model):
        user = models.OneToOneField(User, models.CASCADE, primary_key=True)

        class Meta:
            app_label = "snippets_app"

        def __str__(self) -> str:
            return str(self.pk)

    for order in ("pk", "-pk", "user_id"):
        (term,) = keyset.terms(Profile.objects.order_by(order))
        assert (term.name, term.is_descending) == ("user_id", order.startswith("-"))


def test_page_after__two_columns_one_way__found_in_the_index(engine):
    from .snippets_app.models import Article

    query = db.query(Article).order_by("place", "id")
    parts = keyset.terms(query.queryset)
    assert query.where(place=1).page_after(query.where(place=1).page_after(size=2).cursor, size=2).rows
    found = keyset.following(keyset.ordered(query.queryset, parts), parts, [3, 10])
    sql = str(found.query.get_compiler(engine).as_sql())
    assert (") > (" in sql) == (connections[engine].vendor != "mysql")
