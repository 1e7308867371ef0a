"""db.query, save and the rest on a server that speaks MongoDB's protocol, in sync code and within a loop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, NotSupportedError, connections
from django.db.models import Avg, Count, F, Q, Sum

from orm_app import db
from orm_app.columns import UnknownField

from .documents_app import databases

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def alias(request, django_db_blocker) -> Iterator[str]:
    databases.require_driver()
    url = request.getfixturevalue("mongodb_url")
    with django_db_blocker.unblock(), databases.documents_database(url) as name:
        yield name


@pytest.fixture
def models(alias: str) -> Any:
    """Three authors; ann has four notes, bob one."""
    from .documents_app import models

    databases.empty(alias)
    ann, bob, _ = [models.Author.objects.create(name=name) for name in ("ann", "bob", "Cy_d")]
    for number, score in enumerate([5, None, 5, 9]):
        models.Note.objects.create(title=f"t{number}", author=ann, score=score, place=number, price="1.10")
    models.Note.objects.create(title="100% mine", author=bob, score=1, place=9, price="2.00")
    return models


def titles(rows: Any) -> list[str]:
    return [row.title for row in rows]


def test_where__each_form__the_documents_it_means(models: Any) -> None:
    notes = db.query(models.Note).order_by("place")
    bob = models.Author.objects.get(name="bob")
    for found, expected in (
        (notes.where(score=5), ["t0", "t2"]),
        (notes.where("score", ">=", 5), ["t0", "t2", "t3"]),
        (notes.where("score", "!=", 5), ["t1", "t3", "100% mine"]),
        (notes.where("score", "not in", [5, 9]), ["t1", "100% mine"]),
        (notes.where("score", "between", (2, 9)), ["t0", "t2", "t3"]),
        (notes.where(Q(score=9) | Q(score=1)), ["t3", "100% mine"]),
        (notes.where(score=F("place")), []),
        (notes.where_eq("score", None), ["t1"]),
        (notes.where_eq("author.name", "bob"), ["100% mine"]),
        (notes.where_eq("author_id", bob.pk), ["100% mine"]),
        (notes.where_eq("author_id", str(bob.pk)), ["100% mine"]),
        (notes.where_in("place", (n for n in (0, 3))), ["t0", "t3"]),
        (notes.where_in("author", db.query(models.Author).where_eq("name", "bob").select("id")), ["100% mine"]),
        (notes.where_between("place", 1, 2), ["t1", "t2"]),
        (notes.where_between("price", Decimal("1.5"), Decimal("2.00")), ["100% mine"]),
        (notes.exclude(score=5), ["t1", "t3", "100% mine"]),
        (notes.where(score=5).where(place=0).or_where(score=9), ["t0", "t3"]),
        (notes.where(score=5).or_where(score=9).where(place__gt=0), ["t2", "t3"]),
    ):  # fmt: skip
        assert titles(found.all()) == expected, found.sql()


def test_where_like__wildcards_case_and_escapes__as_on_the_others(models: Any) -> None:
    notes, authors = db.query(models.Note).order_by("place"), db.query(models.Author).order_by("name")
    for found, expected in (
        (notes.where_like("title", "t_"), ["t0", "t1", "t2", "t3"]),
        (notes.where_like("title", "100\\%%"), ["100% mine"]),
        (notes.where_like("title", "T%"), []),
        (notes.where_like("title", "T%", ignore_case=True), ["t0", "t1", "t2", "t3"]),
        (notes.where("title", "not like", "t%"), ["100% mine"]),
        (notes.where_like("title", "."), []),
    ):
        assert titles(found.all()) == expected
    assert [row.name for row in authors.where_like("name", "Cy\\_d").all()] == ["Cy_d"]


def test_shape__order_slice_select_distinct_related_groups(models: Any) -> None:
    notes = db.query(models.Note)
    assert titles(notes.order_by("-score", "place").all()) == ["t3", "t0", "t2", "100% mine", "t1"]
    assert titles(notes.order_by("place").limit(2).offset(1).all()) == ["t1", "t2"]
    assert sorted(notes.distinct().values("author_id", flat=True)) == sorted(
        models.Author.objects.filter(name__in=["ann", "bob"]).values_list("pk", flat=True)
    )
    chosen = notes.order_by("place").select("title").first()
    assert (chosen.title, chosen.get_deferred_fields() > {"score"}) == ("t0", True)
    with_author = notes.with_related("author").order_by("place").all()
    assert [row.author.name for row in with_author] == ["ann"] * 4 + ["bob"]
    with_notes = db.query(models.Author).with_related("notes").order_by("name").all()
    assert [(row.name, len(row.notes.all())) for row in with_notes] == [("Cy_d", 0), ("ann", 4), ("bob", 1)]
    groups = notes.group_by("author").aggregate(many=Count("id"), sum=Sum("price"))
    ann = models.Author.objects.get(name="ann")
    assert groups.where(many__gt=1).all() == [{"author": ann.pk, "many": 4, "sum": Decimal("4.40")}]
    assert notes.aggregate(mean=Avg("score"), all=Sum("price")) == {"mean": 5.0, "all": Decimal("6.40")}
    assert titles(notes.annotate(double=F("place") * 2).where(double=6).all()) == ["t3"]
    with pytest.raises(NotSupportedError):
        notes.distinct("author").all()


def test_terminals__reading__first_get_exists_count_values(models: Any) -> None:
    notes = db.query(models.Note)
    assert notes.first().title == "t0"  # by the key, which grows
    assert notes.order_by("-place").first().title == "100% mine"
    assert notes.where(score=77).first() is None
    assert notes.get(title="t3").score == 9
    with pytest.raises(models.Note.MultipleObjectsReturned):
        notes.get(score=5)
    assert (notes.count(), notes.where(score=5).exists(), notes.where(score=6).exists()) == (5, True, False)
    assert notes.order_by("place").limit(2).values("title", "score") == [
        {"title": "t0", "score": 5},
        {"title": "t1", "score": None},
    ]
    with pytest.raises(UnknownField, match="did you mean 'title'"):
        notes.where(titel=1)


@pytest.mark.parametrize(
    "order", [(), ("score",), ("-score", "place"), ("author__name", "-title"), ("price",)]
)
def test_page_after__orders_with_nulls_and_ties__every_document_once(models: Any, order: Any) -> None:
    for number in range(20):
        models.Note.objects.create(title=f"n{number}", score=number % 4 or None, place=number)
    query = db.query(models.Note).order_by(*order)
    whole = [row.pk for row in query.order_by("pk").all()] if not order else None
    seen, cursor = [], None
    while True:
        page = query.page_after(cursor, size=3)
        seen += [row.pk for row in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25
    assert whole is None or seen == whole
    assert [row.pk for row in query.stream(size=4)] == seen
    assert [len(rows) for rows in query.limit(7).chunk(3)] == [3, 3, 1]


def test_page_after__a_changed_cursor__refused(models: Any) -> None:
    page = db.query(models.Note).page_after(size=2)
    with pytest.raises(db.BadCursor):
        db.query(models.Note).page_after(page.cursor + "x", size=2)
    with pytest.raises(db.BadCursor):
        db.query(models.Note).order_by("place").page_after(page.cursor, size=2)


def test_update_and_delete__counts_and_cascade(models: Any) -> None:
    notes = db.query(models.Note)
    assert notes.where(score=5).update(place=F("place") + 10) == 2
    assert notes.where_in("place", [10, 12]).count() == 2
    note = notes.get(title="t3")
    models.Review.objects.create(note=note, details={"by": {"name": "x"}})
    assert db.query(models.Review).where(details__by__name="x").count() == 1
    assert notes.where(pk=note.pk).delete() == 1
    assert db.query(models.Review).count() == 0  # went with it
    assert db.query(models.Author).where(name="ann").delete() == 1
    assert notes.count() == 1


def test_bulk_insert__second_of_two_is_a_duplicate__neither_is_there(models: Any) -> None:
    authors = db.query(models.Author)
    assert authors.bulk_insert({"name": f"a{number}"} for number in range(5)) == 5
    with pytest.raises(IntegrityError, match="duplicate key"):
        authors.bulk_insert([{"name": "new"}, {"name": "ann"}])
    assert authors.where(name="new").exists() is False
    assert authors.count() == 8


def test_upsert__new_known_and_twice__one_document_each_and_the_last_wins(models: Any) -> None:
    authors = db.query(models.Author)
    known = authors.get(name="ann")
    rows = [
        {"name": "ann", "is_active": False},
        {"name": "dee", "is_active": True},
        {"name": "dee", "is_active": False},
    ]
    assert authors.upsert(rows, unique="name") == 3
    found = {row.name: row for row in authors.all()}
    assert sorted(found) == ["Cy_d", "ann", "bob", "dee"]
    assert (found["ann"].pk, found["ann"].is_active, found["dee"].is_active) == (known.pk, False, False)
    assert found["ann"].joined_at == known.joined_at  # was not given
    assert found["dee"].joined_at is not None


def test_upsert__key_of_two_fields_and_null_in_it__changes_only_what_is_named(models: Any) -> None:
    notes, ann = db.query(models.Note), models.Author.objects.get(name="ann")
    given = {"author": ann, "title": "t0", "score": 50, "place": 50}
    assert notes.upsert([given], unique=("author", "title"), update=["score"]) == 1
    note = notes.get(title="t0")
    assert (note.score, note.place) == (50, 0)
    assert notes.upsert([{"title": "free"}, {"title": "free"}], unique=("author", "title")) == 2
    assert notes.where(title="free").count() == 2  # NULL equals nothing
    with pytest.raises(ValueError, match="no unique constraint"):
        notes.upsert([{"title": "x"}], unique="title")


def test_save__ordinary_and_declared__sync_and_awaited(models: Any) -> None:
    author = models.Author(name="new")
    assert author.save() is author
    author.name = "renamed"
    author.save()
    assert db.query(models.Author).get(name="renamed").pk == author.pk
    with pytest.raises(IntegrityError, match="duplicate key"):
        models.Author(name="renamed").save()
    other = models.Author.objects.get(name="bob")
    with pytest.raises(IntegrityError, match="duplicate key"):
        db.query(models.Author).where(pk=other.pk).update(name="ann")

    async def story() -> tuple[Any, ...]:
        saved = await models.Author(name="awaited").save()
        same = await db.query(models.Author).where_eq("name", "awaited").first()
        count = await db.query(models.Author).count()
        rows = [row.name async for row in db.query(models.Author).order_by("name").stream(size=2)]
        page = await db.query(models.Author).page_after(size=1)
        changed = await db.query(models.Author).where(pk=saved.pk).update(is_active=False)
        await db.query(models.Author).upsert([{"name": "awaited", "is_active": True}], unique="name")
        again = await db.query(models.Author).get(pk=saved.pk)
        return saved == same, count, len(rows), len(page), changed, again.is_active

    assert asyncio.run(story()) == (True, 5, 5, 1, 1, True)


def test_declared__vocabulary__fields_of_mongodb_and_no_defaults_of_the_server(
    models: Any, alias: str
) -> None:
    review, author = models.Review._meta, models.Author._meta
    assert author.pk.get_internal_type() == "ObjectIdAutoField"
    assert review.get_field("seen_id").get_internal_type() == "ObjectIdField"
    assert review.get_field("note").target_field.get_internal_type() == "ObjectIdAutoField"
    assert not author.get_field("joined_at").has_db_default()
    made = models.Review.objects.create(
        note=models.Note.objects.first(), seen_id=models.Note.objects.first().pk
    )
    assert isinstance(made.pk, uuid.UUID)
    assert models.Review.objects.get(seen_id=str(made.seen_id)) == made
    stored = connections[alias].get_collection("authors").find_one({"name": "ann"})  # type: ignore[attr-defined]
    assert set(stored) == {"_id", "name", "joined_at", "is_active"}


def test_looking_at_it__explain_and_sql__the_plan_and_the_pipeline(models: Any) -> None:
    query = db.query(models.Note).where(score=5).order_by("-place").limit(3)
    text, params = query.sql()
    assert text.startswith('db.documents_app_note.aggregate([{"$match": {"score": 5}}')
    assert text.endswith('{"$sort": {"place": -1}}, {"$limit": 3}])')
    assert params == ()
    assert '{"$match": {"$expr": false}}' in db.query(models.Note).where_in("score", []).sql().text
    related = db.query(models.Note).group_by("author__name").aggregate(many=Count("id")).sql().text
    assert '"from": "authors"' in related
    assert '"_id": {"authors": {"name": "$authors.name"}}' in related
    assert "queryPlanner" in query.explain() or "stages" in query.explain()
    assert query.explain(analyze=True)


def test_sql__db_raw_and_execute__refused_with_the_way_out(models: Any, alias: str) -> None:
    for call in (db.raw, db.execute):
        with pytest.raises(NotSupportedError, match="speaks no SQL"):
            call("SELECT 1", using=alias)
