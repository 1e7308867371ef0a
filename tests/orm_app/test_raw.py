from __future__ import annotations

import pytest

from orm_app import db
from orm_app.raw import UnsafeSQL, inspect

pytestmark = pytest.mark.django_db

_NAME = "x' OR '1'='1"


def test_raw__bound_parameters__rows_as_dicts_and_as_instances():
    from orm_app.models import User

    User.objects.create_user("ann", "ann@example.com")
    sql = "SELECT id, username FROM orm_app_user WHERE username = %s"
    assert [row["username"] for row in db.raw(sql, ["ann"])] == ["ann"]
    assert db.raw(sql, [_NAME]) == []
    assert (
        db.raw("SELECT id FROM orm_app_user WHERE username = %(name)s AND 7 %% 4 = 3", {"name": "bob"}) == []
    )
    assert db.raw(sql, ["ann"], model=User)[0].email == "ann@example.com"
    assert db.raw("SELECT 1 AS one;") == [{"one": 1}]


def test_execute__writes__how_many_rows():
    from orm_app.models import User

    User.objects.create_user("ann", "ann@example.com")
    assert db.execute("UPDATE orm_app_user SET is_staff = %s WHERE username = %s", [True, "ann"]) == 1
    assert User.objects.get().is_staff


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (f"SELECT * FROM users WHERE name = '{_NAME}'", "quoted value"),
        ("SELECT * FROM users WHERE name = '%s'", "quoted value"),
        ("SELECT $$x$$", "quoted value"),
        ("SELECT 1 -- x", "comment"),
        ("SELECT /* x */ 1", "comment"),
        ("SELECT 1; DROP TABLE users", "more than one statement"),
        ("SELECT 1 % 2", "no placeholder"),
        ("SELECT %d", "no placeholder"),
        ("SELECT %s, %(a)s", "choose one"),
        ("  ", "no SQL"),
        ("DELETE FROM users", "db.execute"),
        ("WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone", "db.execute"),
        ("SELECT * INTO copy FROM users", "db.execute"),
        ("EXPLAIN ANALYZE UPDATE users SET id = 1", "db.execute"),
    ],
)
def test_raw__text_that_values_may_be_in_or_that_writes__refused(sql, reason):
    with pytest.raises(UnsafeSQL, match=reason):
        db.raw(sql)


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT %s", None),
        ("SELECT %s", [1, 2]),
        ("SELECT 1", [1]),
        ("SELECT %s", "x"),
        ("SELECT %(a)s", {"b": 1}),
        ("SELECT %(a)s", {"a": 1, "b": 1}),
        ("SELECT %(a)s", [1]),
        ("SELECT %s", {"a": 1}),
    ],
)
def test_raw__parameters_do_not_fit__refused(sql, params):
    with pytest.raises(TypeError, match="param|placeholder"):
        db.raw(sql, params)


def test_inspect__double_quotes_and_hash__by_the_engine():
    assert inspect('SELECT "a" FROM t WHERE x #> %s', False).marks == 1
    for sql in ('SELECT "a"', "SELECT 1 # x"):
        with pytest.raises(UnsafeSQL):
            inspect(sql, True)
    assert inspect("SELECT id FROM t FOR UPDATE", False).writes is None
    assert inspect("SELECT 'day'", False, allow_literals=True).first_word == "select"


@pytest.mark.django_db(transaction=True)
async def test_raw__within_a_loop__awaited():
    assert await db.raw("SELECT %s AS a", [5]) == [{"a": 5}]
