from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orm_app.slow.normal import fingerprint, masked_plan, normalise

DIALECTS = ["postgresql", "mysql", "sqlite"]


@pytest.mark.parametrize(
    ("dialect", "sql", "shape"),
    [
        ("postgresql", "SELECT  1,\n -2, 3.5e-7, 0xFF, t1.c2", "SELECT ?, ?, ?, ?, t1.c2"),
        ("postgresql", "SELECT 'it''s', E'a\\'b', U&'d', x'0f', $$x'y$$, $t$ $$ $t$", "SELECT ?, ?, ?, ?, ?, ?"),
        ("postgresql", "SELECT 'back\\' FROM t WHERE a = 'b'", "SELECT ? FROM t WHERE a = ?"),
        ("postgresql", 'SELECT "n""1"::text /* a /* b */ \'c */ FROM t -- \'d\n;', 'SELECT "n""1"::text FROM t'),
        ("postgresql", "SELECT a[1:2], b ->> 'k' FROM t WHERE c = $1", "SELECT a[?:?], b ->> ? FROM t WHERE c = ?"),
        ("mysql", "SELECT `a``1`, 'it\\'s', \"d\\\"q\", x'ab' # 'c\n", "SELECT `a``1`, ?, ?, ?"),
        ("mysql", "SELECT _utf8mb4'x', a-1, 5--1 -- 'c", "SELECT _utf8mb4?, a-?, ?--?"),
        ("sqlite", 'SELECT "t"."a" FROM "t" WHERE "t"."a" = "x"', 'SELECT "t"."a" FROM "t" WHERE "t"."a" = ?'),
        ("mysql", "SELECT 1 /*! INTO OUTFILE '/x' */ FROM t /* 'c */", "SELECT ? INTO OUTFILE ? FROM t"),
        ("mysql", "/*!50001 DROP TABLE t */ /*M!100100 , b */", "DROP TABLE t , b"),
        ("mysql", "SELECT 2*/* c */3", "SELECT ?* ?"),
        ("sqlite", 'INSERT INTO "t" ("a") VALUES (NULL, "x", 1), ("y", 2)', 'INSERT INTO "t" ("a") VALUES (NULL, ?, ?)'),
        ("sqlite", 'SELECT "a" FROM "t" WHERE "b" IN ("x", "y") ORDER BY "c", "d"', 'SELECT "a" FROM "t" WHERE "b" IN (?) ORDER BY "c", "d"'),
        ("sqlite", 'SELECT 1 WHERE "a" IN (SELECT "b", "c" FROM "d")', 'SELECT ? WHERE "a" IN (SELECT "b", "c" FROM "d")'),
        ("sqlite", 'SELECT 1 WHERE "a"."b" = "c"."d"', 'SELECT ? WHERE "a"."b" = "c"."d"'),
        ("sqlite", "SELECT [o'n], `p` WHERE q = :q AND r = ?1", "SELECT [o'n], `p` WHERE q = ? AND r = ?"),
        ("oracle", "SELECT 'x' FROM dual", "SELECT ? FROM dual"),
    ],
    ids=str,
)  # fmt: skip
def test_normalise__each_dialects_literals__a_question_mark(dialect: str, sql: str, shape: str) -> None:
    assert normalise(sql, dialect) == shape


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("sql", "shape"),
    [
        ("SELECT a FROM t WHERE b IN (1, 2,3)", "SELECT a FROM t WHERE b IN (?)"),
        ("SELECT a FROM t WHERE b IN (%s)", "SELECT a FROM t WHERE b IN (?)"),
        ("SELECT a FROM t WHERE (b, c) IN ((1, 2), (3, 4))", "SELECT a FROM t WHERE (b, c) IN ((?, ?))"),
        ("SELECT a FROM t WHERE b IN (SELECT 1, 2)", "SELECT a FROM t WHERE b IN (SELECT ?, ?)"),
        ("SELECT coalesce(a, 1, 2) FROM t", "SELECT coalesce(a, ?, ?) FROM t"),
        ("INSERT INTO t (a, b) VALUES (%s, now()), (%s, now())", "INSERT INTO t (a, b) VALUES (?, now())"),
        ("INSERT INTO t (a) VALUES (1), (2) RETURNING a", "INSERT INTO t (a) VALUES (?) RETURNING a"),
        ("SELECT a FROM t LIMIT 21 OFFSET -5", "SELECT a FROM t LIMIT ? OFFSET ?"),
        ("SAVEPOINT s1_x2", "SAVEPOINT ?"),
        ("RELEASE SAVEPOINT s1_x2", "RELEASE SAVEPOINT ?"),
        ("ROLLBACK TO SAVEPOINT s1_x2", "ROLLBACK TO SAVEPOINT ?"),
        ("SELECT 'never closed", "SELECT ?"),
        ("SELECT 'closed by a backslash\\", "SELECT ?"),
        ("SELECT a IN (1, 2", "SELECT a IN (?)"),
        ("", ""),
    ],
    ids=str,
)
def test_normalise__any_dialect__one_form(dialect: str, sql: str, shape: str) -> None:
    assert normalise(sql, dialect) == shape


def test_normalise__very_long__bounded_and_quick() -> None:
    rows = ", ".join(["('secret', 1)"] * 200_000)
    assert normalise(f"INSERT INTO t VALUES {rows}", "sqlite") == "INSERT INTO t VALUES (?, ?)"
    assert len(normalise("SELECT " + ", ".join(f"column_{n}" for n in range(5_000)), "mysql")) == 4_000


def test_normalise__a_statement_of_megabytes__is_not_kept() -> None:
    long = "INSERT INTO big VALUES " + "('x'), " * 100_000
    normalise(long, "sqlite")
    assert sys.getrefcount(long) == 2  # this frame's, and the question's


def quoted(text: str, dialect: str) -> str:
    text = text.replace("'", "''")
    return "'" + (text.replace("\\", "\\\\") if dialect == "mysql" else text) + "'"


NAMES = {"postgresql": '"user"', "mysql": "`user`", "sqlite": '"user"'}
values = st.text(st.sampled_from("'\"`\\$%?;-#/*() \nSECRET"), max_size=30)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(DIALECTS), st.lists(values, min_size=1, max_size=6))
def test_normalise__any_text_values__none_is_left_and_the_frame_stays(dialect: str, texts: list[str]) -> None:
    name = NAMES[dialect]
    given_values = [quoted(text, dialect) for text in texts]
    conditions = " OR ".join(f"{name} = {value}" for value in given_values)
    shape = normalise(
        f"SELECT {name}, {given_values[0]} FROM t1 WHERE {conditions} AND x IN ({', '.join(given_values)})",
        dialect,
    )
    expected = " OR ".join([f"{name} = ?"] * len(texts))
    assert shape == f"SELECT {name}, ? FROM t1 WHERE {expected} AND x IN (?)"


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(DIALECTS), st.text(max_size=40))
def test_normalise__anything__no_number_is_left_and_again_is_the_same(dialect: str, text: str) -> None:
    shape = normalise(text, dialect)
    if not re.search(r"[\"`\[\]]", text):  # names keep what is in them
        assert not re.search(r"(?<![\w$])[0-9]", shape)
    assert "'" not in shape or re.search(r"[\"`\[]", text)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(DIALECTS),
    st.lists(st.integers(), min_size=1, max_size=20),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
)
def test_normalise__numbers_and_lists_of_any_length__one_fingerprint(
    dialect: str, integers: list[int], floats: list[float]
) -> None:
    listed = ", ".join(map(str, integers))
    shape = normalise(f"SELECT a1 FROM t2 WHERE b3 IN ({listed}) AND c > {floats[0]!r}", dialect)
    assert shape == "SELECT a1 FROM t2 WHERE b3 IN (?) AND c > ?"
    assert len(fingerprint("slow", shape)) == 16


def test_masked_plan__postgresql__figures_stay_and_values_go() -> None:
    plan = """Limit  (cost=0.42..8.44 rows=1 width=37) (actual time=0.030..0.031 rows=1 loops=1)
  ->  Index Scan using orders_2_idx on orders o1  (cost=0.42..8.44 rows=1 width=37)
        Index Cond: ((email)::text = 'ann@example.com'::text)
        Filter: ((total > 12.5) AND (SubPlan 1) AND (a = 'x (cost=1 secret
Sort Method: hidden'))
        Rows Removed by Filter: 7
Planning Time: 0.2 ms"""
    masked = masked_plan(plan, "postgresql")
    assert "ann@example.com" not in masked
    assert "12.5" not in masked
    assert "secret" not in masked
    assert "hidden" not in masked
    for kept in (
        "cost=0.42..8.44 rows=1",
        "Rows Removed by Filter: 7",
        "orders_2_idx",
        "SubPlan ?",
        "Planning Time: 0.2 ms",
    ):
        assert kept in masked
    assert "        Index Cond: ((email)::text = ?::text)" in masked


def test_masked_plan__mysql_and_sqlite__counts_of_rows_stay() -> None:
    table = "id  table  type  rows  Extra\n1   item   ALL   20000 Using where 'secret'"
    assert "20000" in masked_plan(table, "mysql")
    assert "secret" not in masked_plan(table, "mysql")
    assert (
        masked_plan("SEARCH item USING INDEX i_1 (kind=?)", "sqlite")
        == "SEARCH item USING INDEX i_1 (kind=?)"
    )
