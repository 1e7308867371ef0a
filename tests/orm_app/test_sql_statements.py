from __future__ import annotations

import pytest

from orm_app.sql_dialects import choose, portable, statements
from orm_app.sql_statements import BadScript, split, without_comments


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "sqlite"])
def test_split__strings_names_and_comments__end_nothing(dialect):
    script = """
    -- first; of all
    INSERT INTO t VALUES ('a;b', 'it''s; fine'); /* not; here */
    SELECT "x;y" FROM t
    ;;
    -- nothing follows;
    """
    assert split(script, dialect) == [
        "-- first; of all\n    INSERT INTO t VALUES ('a;b', 'it''s; fine')",
        '/* not; here */\n    SELECT "x;y" FROM t',
    ]


def test_split__postgresql__dollar_quotes_escapes_and_nested_comments():
    script = """CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; RETURN $$;$$; END; $body$ LANGUAGE plpgsql;
    SELECT E'it\\'s;', '\\'; /* a /* b; */ ; */ DO $$ SELECT 1; $$; SELECT $1"""
    found = split(script, "postgresql")
    assert len(found) == 4
    assert found[1] == "SELECT E'it\\'s;', '\\'"
    assert found[2].endswith("DO $$ SELECT 1; $$")


def test_split__mysql__backslashes_hashes_backticks_and_delimiter():
    script = "INSERT INTO t VALUES ('a\\';b', \"c;d\"); # x;\nSELECT `a;b`, 5--1;\nDELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END//\nDELIMITER ;\nSELECT 3;"
    found = split(script, "mysql")
    assert found[0] == "INSERT INTO t VALUES ('a\\';b', \"c;d\")"
    assert found[1].endswith("SELECT `a;b`, 5--1")
    assert found[2:] == ["CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END", "SELECT 3"]


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_split__trigger_body__is_one_statement(dialect):
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET n = CASE WHEN 1 THEN 2 ELSE 3 END; DELETE FROM c; END"
    assert split(f"{trigger}; SELECT 1;", dialect) == [trigger, "SELECT 1"]


def test_split__mysql_routine_with_if_and_loop__ends_at_its_own_end():
    body = "CREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1; END IF; CASE x WHEN 1 THEN SELECT 2; END CASE; END"
    assert split(f"{body}; SELECT 3", "mysql") == [body, "SELECT 3"]


def test_split__transaction_words__are_statements():
    assert split("BEGIN; UPDATE t SET a = 1; COMMIT;", "postgresql") == [
        "BEGIN",
        "UPDATE t SET a = 1",
        "COMMIT",
    ]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("SELECT 1;\nSELECT 'x", "quote that opens in line 2"),
        ("/* x", "comment that opens in line 1"),
        ("DO $x$ SELECT", "dollar quote that opens in line 1"),
        ("SELECT 1;\n\\i other.sql", "line 2: '\\\\i other.sql' is a command of psql"),
    ],
)
def test_split__never_closed__names_the_line(script, said):
    with pytest.raises(BadScript, match="line") as error:
        split(script, "postgresql")
    assert said in str(error.value)


def test_split__mysql_dump__comments_that_run_are_statements():
    script = "/*!40101 SET NAMES utf8mb4 */;\n/* not this; */\n/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET NEW.a=1; END */;"
    assert [one[:12] for one in split(script, "mysql")] == ["/*!40101 SET", "/* not this;"]
    assert split("/*M!100100 SET x=1 */; SELECT 1", "mysql") == ["/*M!100100 SET x=1 */", "SELECT 1"]
    assert split("/*! x */", "postgresql") == []


@pytest.mark.parametrize("mark", ["//", "$$", ";;"])
def test_split__mysql_delimiter__not_in_strings_and_comments(mark):
    body = f"CREATE PROCEDURE p() BEGIN SELECT 'http:{mark}x'; -- {mark}\nSELECT 1; END"
    script = f"DELIMITER {mark}\n{body}{mark}\nDELIMITER ;\nSELECT 3;"
    for text in (script, script.replace("\n", "\r\n")):
        assert [one.replace("\r", "") for one in split(text, "mysql")] == [body, "SELECT 3"]


def test_split__sqlite__brackets_are_names():
    assert split("SELECT [a;b] FROM t; SELECT 2", "sqlite") == ["SELECT [a;b] FROM t", "SELECT 2"]


def test_without_comments__keeps_what_is_in_strings():
    assert without_comments("SELECT /* x */ '--no', -- y\n 1", "postgresql") == "SELECT '--no', 1"


CUSTOMER = "CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR(50))"


def test_portable__the_text_of_the_customer__in_three_dialects():
    assert portable(CUSTOMER, "postgresql") == CUSTOMER
    assert "id INTEGER PRIMARY KEY, username" in portable(CUSTOMER, "sqlite")
    assert "id INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY" in portable(CUSTOMER, "mysql")


def test_portable__words_that_are_no_types__stay():
    text = "CREATE TABLE t (serial JSONB, \"jsonb\" TEXT DEFAULT 'SERIAL', b TIMESTAMPTZ /* BYTEA */)"
    assert portable(text, "sqlite") == (
        "CREATE TABLE t (serial TEXT, \"jsonb\" TEXT DEFAULT 'SERIAL', b DATETIME /* BYTEA */)"
    )
    assert portable("SELECT a SERIAL FROM t", "sqlite") == "SELECT a SERIAL FROM t"
    assert portable("ALTER TABLE t ADD COLUMN n BYTEA", "mysql") == "ALTER TABLE t ADD COLUMN n LONGBLOB"


def test_choose__mapping__own_text_is_not_translated_and_mariadb_comes_before_mysql():
    texts = {"mysql": "A", "mariadb": "B", "": "CREATE TABLE t (id SERIAL)"}
    assert choose(texts, "mysql") == ("A", False)
    assert choose(texts, "mysql", is_mariadb=True) == ("B", False)
    assert statements(texts, "sqlite") == ["CREATE TABLE t (id INTEGER)"]
    assert statements({"sqlite": "CREATE TABLE t (id SERIAL)"}, "sqlite") == ["CREATE TABLE t (id SERIAL)"]
    with pytest.raises(KeyError, match="no SQL for postgresql"):
        choose({"mysql": "A"}, "postgresql")
