"""`db.query(User).where_eq("username", "ann").order_by("-id").limit(10).all()`: a fluent builder over Django's QuerySet.

Immutable: each step returns a new query. A terminal (`all`, `count`, `update` …) answers at once in sync code and is
awaited within a running loop. Names are checked where they are written; values are always bound parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from operator import methodcaller
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import NotSupportedError, models
from django.db.models import Q
from django.db.models.base import ModelBase
from django.db.models.query import QuerySet

from . import columns, inserts, mongo, pages
from .awaiting import dual
from .conditions import Child, compared, condition, plain
from .rereading import read
from .streams import Chunks, Rows

R = TypeVar("R")
S = TypeVar("S")

_PAGE_ROWS = 50
_CHUNK_ROWS = 1000


class SQL(NamedTuple):
    """What a query sends: text with placeholders, and the values for them."""

    text: str
    params: tuple[Any, ...]


class Query(Generic[R]):
    """R: what a row is; an instance of the model, or a dict after `group_by`."""

    __slots__ = ("_base", "_is_grouped", "_is_settled", "_limit", "_offset", "_where")

    def __init__(
        self,
        base: QuerySet,
        where: tuple[Child, ...] = (),
        limit: int | None = None,
        offset: int = 0,
        is_grouped: bool = False,
    ) -> None:
        self._base = base
        self._where = where
        self._limit = limit
        self._offset = offset
        self._is_grouped = is_grouped
        self._is_settled = False  # conditions are in _base already, where or_where cannot reach them

    # --- conditions ---
    def where(self, *given: Any, **keywords: Any) -> Query[R]:
        """Q, expressions, keywords (`age__gte=18`), `(field, value)` or `(field, operator, value)`; all of them hold.

        Operators: = != < <= > >= in between like ilike, `not in`, `not like`, `not ilike`.
        Conditions on one to-many relation mean the same related row, as in a SQL join.
        """
        return self._and(*condition(self._base, given, keywords))

    def where_eq(self, field: str, value: Any) -> Query[R]:
        """None: the rows where the field is NULL."""
        return self._and((columns.check(self._base, field), plain(value)))

    def where_in(self, field: str, values: Iterable[Any] | Query[Any]) -> Query[R]:
        """values may be another query of one field: `where_in("id", db.query(Order).select("user_id"))`."""
        given = _subquery(values) if isinstance(values, Query) else values
        if isinstance(given, str | bytes):
            raise TypeError(f"where_in takes a list of values, not the text {given!r}")
        return self._and(
            compared(self._base, field, "in", given if isinstance(given, QuerySet) else list(given))
        )

    def where_like(self, field: str, pattern: str, *, ignore_case: bool = False) -> Query[R]:
        """SQL's LIKE: `%` any text, `_` one character, a backslash before either takes it literally."""
        return self._and(compared(self._base, field, "ilike" if ignore_case else "like", pattern))

    def where_between(self, field: str, low: Any, high: Any) -> Query[R]:
        """Both ends included."""
        return self._and(compared(self._base, field, "between", (low, high)))

    def or_where(self, *given: Any, **keywords: Any) -> Query[R]:
        """(everything so far) OR this. The first condition of a query may be one."""
        if self._is_settled:
            raise TypeError(
                "or_where cannot reach the conditions before annotate, which are applied already: "
                "annotate last, or write where(Q(…) | Q(…))"
            )
        found = condition(self._base, given, keywords)
        made = self._copy()
        made._where = (Q(*self._where) | Q(*found),) if self._where else found
        return made

    def exclude(self, *given: Any, **keywords: Any) -> Query[R]:
        return self._and(~Q(*condition(self._base, given, keywords)))

    # --- shape ---
    def order_by(self, *fields: Any) -> Query[R]:
        """`-name` descending; appended to the order so far. Without a field: no order."""
        if not fields:
            return self._on(self._base.order_by())
        names = [_order_name(self._base, field) for field in fields]
        return self._on(self._base.order_by(*self._base.query.order_by, *names))

    def limit(self, rows: int) -> Query[R]:
        made = self._copy()
        made._limit = _size("limit", rows)
        return made

    def offset(self, rows: int) -> Query[R]:
        made = self._copy()
        made._offset = _size("offset", rows)
        return made

    def with_related(self, *paths: str) -> Query[R]:
        """Related rows with this query: by a join where there is one of them, by one further query where there are many."""
        base = self._base
        for path in paths:
            name, has_many = columns.related(base.model, path)
            base = base.prefetch_related(name) if has_many else base.select_related(name)
        return self._on(base)

    join = with_related

    def select(self, *fields: str) -> Query[R]:
        """Rows with these columns only (and the key). Reading another one later asks the database for it."""
        return self._on(self._base.only(*columns.check_all(self._base, fields)))

    def distinct(self, *fields: str) -> Query[R]:
        """fields: PostgreSQL's DISTINCT ON."""
        if fields and mongo.is_on(self._base.db):  # whose backend would leave them out without a word
            raise NotSupportedError("DISTINCT ON is PostgreSQL's: group_by and aggregate work on MongoDB")
        return self._on(self._base.distinct(*columns.check_all(self._base, fields)))

    def annotate(self, **expressions: Any) -> Query[R]:
        """Conditions so far are applied first."""
        made = self._on(self._filtered().annotate(**expressions))
        made._is_settled = self._is_settled or bool(self._where)
        made._where = ()
        return made

    def group_by(self, *fields: str) -> Grouped:
        return Grouped(self, columns.check_all(self._base, fields))

    def using(self, alias: str) -> Query[R]:
        return self._on(self._base.using(alias))

    # --- reading ---
    def all(self) -> Any:
        """list of rows."""
        queryset = self.queryset
        return dual(lambda: read(queryset, list), "query.all")

    def first(self) -> Any:
        """The first row in the order, by the key without one; None when there is none."""
        is_ordered = self._is_grouped or self._base.ordered
        one = self if is_ordered or self._limit is not None or self._offset else self.order_by("pk")
        queryset = one.limit(1 if self._limit is None else min(1, self._limit)).queryset
        return dual(lambda: read(queryset, _first), "query.first")

    def get(self, *given: Any, **keywords: Any) -> Any:
        """The one row. Raises the model's DoesNotExist or MultipleObjectsReturned."""
        queryset = (self.where(*given, **keywords) if given or keywords else self).queryset
        return dual(lambda: read(queryset, methodcaller("get")), "query.get")

    def count(self) -> Any:
        queryset = self.queryset
        return dual(lambda: read(queryset, methodcaller("count")), "query.count")

    def exists(self) -> Any:
        queryset = self.queryset
        return dual(lambda: read(queryset, methodcaller("exists")), "query.exists")

    def values(self, *fields: str, flat: bool = False) -> Any:
        """list of dicts; with flat, of the values of the one field. No field: what `select` named, else each column."""
        names = columns.check_all(self._base, fields) or columns.selected(self._base)
        if flat and len(names) != 1:
            raise TypeError("values(flat=True) takes one field")
        found = self.queryset.values_list(*names, flat=True) if flat else self.queryset.values(*names)
        return dual(lambda: read(found, list), "query.values")

    def aggregate(self, **expressions: Any) -> Any:
        """dict of one value each: `aggregate(total=Sum("amount"))`."""
        queryset = self.queryset
        return dual(lambda: read(queryset, lambda asked: asked.aggregate(**expressions)), "query.aggregate")

    def page_after(self, cursor: str | None = None, *, size: int = _PAGE_ROWS) -> Any:
        """keyset.Page after the one that gave the cursor; None: the first. Raises keyset.BadCursor."""
        if self._limit is not None or self._offset:
            raise ValueError("a page has its own size: page_after(cursor, size=…), without limit and offset")
        if _size("size", size) == 0:
            raise ValueError("a page has at least one row")
        self._refuse_grouped("page_after")
        queryset = self._filtered()
        return dual(lambda: read(queryset, lambda asked: pages.page(asked, cursor, size)), "query.page_after")

    def chunk(self, size: int = _CHUNK_ROWS) -> Chunks[R]:
        """`for rows in query.chunk(500)`, or `async for`: lists of rows, each a keyset page of its own."""
        if _size("size", size) == 0:
            raise ValueError("a chunk has at least one row")
        self._refuse_grouped("chunk")
        return Chunks(pages.parts_of(self._filtered(), size, self._limit, self._offset))

    def stream(self, size: int = _CHUNK_ROWS) -> Rows[R]:
        """`for row in query.stream()`, or `async for`, in bounded memory. size: rows that are fetched at a time."""
        return Rows(self.chunk(size))

    def __bool__(self) -> NoReturn:
        raise TypeError("a query is no answer: ask query.exists(), or query.all()")

    def __iter__(self) -> Iterator[R]:
        return iter(self.stream())

    def __aiter__(self) -> AsyncIterator[R]:
        return self.stream().__aiter__()

    # --- writing ---
    def update(self, **values: Any) -> Any:
        """How many rows. Values may be expressions: `update(count=F("count") + 1)`."""
        self._refuse_slice("update")
        for name in values:
            _check_own_column(self._base.model, name)
        queryset, given = self._filtered().order_by(), {name: plain(value) for name, value in values.items()}
        return dual(lambda: _told(queryset, lambda: queryset.update(**given)), "query.update")

    def delete(self) -> Any:
        """How many rows of this model; those that went with them by a cascade are not counted."""
        self._refuse_slice("delete")
        queryset = self._filtered().order_by()
        label = self._base.model._meta.label
        return dual(lambda: _told(queryset, lambda: queryset.delete()[1].get(label, 0)), "query.delete")

    def bulk_insert(self, rows: Iterable[Any], *, batch_size: int | None = None) -> Any:
        """How many. rows: dicts or instances, also from a generator; all of them or, after an error, none.

        MongoDB: of each 1,000 all or none.
        """
        return dual(lambda: inserts.bulk_insert(self._base, rows, batch_size), "query.bulk_insert")

    def upsert(
        self,
        rows: Iterable[Any],
        *,
        unique: str | Iterable[str],
        update: Iterable[str] | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """How many rows were given; stored by one statement of the engine's own (ON CONFLICT, ON DUPLICATE KEY).

        unique: the field or fields of the unique constraint that tells whether a row is there. update: what such a row
        gets; None: everything given but those. Of rows with the same key the last wins. MySQL looks at each of the
        table's unique keys, whatever is named here.
        """
        plan = inserts.upsert_plan(self._base, unique, update)
        return dual(lambda: inserts.upsert(plan, rows, batch_size), "query.upsert")

    # --- looking at it ---
    def explain(self, **options: Any) -> Any:
        """The engine's plan as text. Options as in QuerySet.explain (`analyze=True` runs the query)."""
        queryset = self.queryset
        if mongo.is_on(queryset.db):
            options = mongo.explain_options(options)
        return dual(lambda: _told(queryset, lambda: queryset.explain(**options)), "query.explain")

    def sql(self) -> SQL:
        """Does not ask the database. On MongoDB the aggregation pipeline, with its values in it."""
        queryset = self.queryset
        if mongo.is_on(queryset.db):
            return SQL(mongo.pipeline(queryset), ())
        # Not elided: the text of a query that Django knows to be empty has a condition that says so.
        text, params = queryset.query.get_compiler(queryset.db, elide_empty=False).as_sql()
        return SQL(text, tuple(params))

    @property
    def queryset(self) -> QuerySet:
        """Django's own, for what is not here."""
        queryset = self._filtered()
        if self._limit is None and not self._offset:
            return queryset
        return queryset[self._offset : None if self._limit is None else self._offset + self._limit]

    def __repr__(self) -> str:
        return f"<query of {self._base.model.__name__}>"

    # --- inside ---
    def _copy(self) -> Query[R]:
        made: Query[R] = Query.__new__(Query)
        made._base = self._base
        made._where = self._where
        made._limit = self._limit
        made._offset = self._offset
        made._is_grouped = self._is_grouped
        made._is_settled = self._is_settled
        return made

    def _on(self, base: QuerySet) -> Query[R]:
        made = self._copy()
        made._base = base
        return made

    def _and(self, *found: Child) -> Query[R]:
        made = self._copy()
        made._where = self._where + found
        return made

    def _filtered(self) -> QuerySet:
        # All conditions in one filter(), which is one clone, and one join where they speak of a relation.
        return self._base.filter(*self._where) if self._where else self._base.all()

    def _refuse_slice(self, verb: str) -> None:
        if self._limit is not None or self._offset:
            raise TypeError(f"{verb} knows no limit and no offset: say which rows with where_in")
        self._refuse_grouped(verb)

    def _refuse_grouped(self, verb: str) -> None:
        if self._is_grouped:
            raise TypeError(f"groups are no rows of the table: no {verb} after group_by")


class Grouped:
    """`group_by(…)`, which waits for its `aggregate(…)`."""

    def __init__(self, query: Query[Any], fields: list[str]) -> None:
        self._query = query
        self._fields = fields

    def aggregate(self, **expressions: Any) -> Query[dict[str, Any]]:
        """Rows are dicts from here on. `where` after this speaks of the groups: it is SQL's HAVING."""
        grouped = self._query._filtered().order_by().values(*self._fields).annotate(**expressions)
        return Query(grouped, limit=self._query._limit, offset=self._query._offset, is_grouped=True)


def query(source: Any) -> Query[Any]:
    """source: a model, a manager or a QuerySet. Raises TypeError."""
    if isinstance(source, ModelBase):
        if source._meta.abstract:
            raise TypeError(f"{source.__name__} is abstract: it has no table to query")
        return Query(source._default_manager.all())
    if isinstance(source, models.Manager | QuerySet):
        return Query(source.all())
    raise TypeError(f"db.query takes a model, not {source!r}")


def _first(queryset: QuerySet) -> Any:
    return next(iter(queryset), None)


def _told(queryset: QuerySet, work: Callable[[], S]) -> S:
    """work(), whose errors are Django's and have a text, on MongoDB too."""
    with mongo.errors_as_djangos_on(queryset.db):
        return work()


def _subquery(query: Query[Any]) -> QuerySet:
    """Of the one selected column: `only` would bring the key along."""
    queryset = query.queryset
    names, is_deferred = queryset.query.deferred_loading
    if not is_deferred and len(names) == 1:
        return queryset.values(*names)
    if not is_deferred and len(names) > 1:
        raise TypeError(f"where_in compares one column, and this query selects {', '.join(sorted(names))}")
    return queryset


def _order_name(queryset: QuerySet, field: Any) -> Any:
    if not isinstance(field, str) or field == "?":
        return field
    name = field.lstrip("-+")
    return ("-" if field.startswith("-") else "") + columns.check(queryset, name)


def _size(what: str, rows: object) -> int:
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise ValueError(f"{what} is a whole number from 0, not {rows!r}")
    return rows


def _check_own_column(model: type[models.Model], name: str) -> None:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        known = [name for field in model._meta.concrete_fields for name in {field.name, field.attname}]
        raise columns.UnknownField(
            f"{model.__name__} has no {name!r}: {columns.near_text(name, known)}"
        ) from None
