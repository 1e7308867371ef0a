"""The rules, by the SQL and by Django's operations; the gate and the command over migrations that a test writes."""

from __future__ import annotations

import io
import json

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.core.management import CommandError, call_command
from django.db import migrations, models
from django.db.migrations.state import ModelState, ProjectState

from orm_app import migration_gate
from orm_app.migration_lint import changes as c
from orm_app.migration_lint import linting, operations, sql
from orm_app.migration_lint.changes import Subject
from orm_app.migration_lint.types import is_widening
from orm_app.models import User

from . import commanding
from .migrating import Package, alias_of

DIALECTS = ("postgresql", "mysql", "sqlite")


def rules_of_sql(text: str, dialect: str = "postgresql", *, is_atomic: bool = True) -> set[str]:
    found = sql.read(text, dialect)
    return {one.rule for one in linting.judge(Subject("app", "0002_x", dialect, is_atomic, tuple(found)), {})}


@pytest.mark.parametrize(
    ("text", "kind", "table", "name"),
    [
        ('CREATE TABLE IF NOT EXISTS "a b" (x int)', c.CREATE_TABLE, "ab", ""),
        ("DROP TABLE IF EXISTS t CASCADE", c.DROP_TABLE, "t", ""),
        ("ALTER TABLE ONLY s.t ADD COLUMN IF NOT EXISTS c int", c.ADD_COLUMN, "s.t", "c"),
        ("ALTER TABLE t ADD c int", c.ADD_COLUMN, "t", "c"),
        ("ALTER TABLE t DROP c", c.DROP_COLUMN, "t", "c"),
        ("ALTER TABLE t RENAME c TO d", c.RENAME_COLUMN, "t", "c"),
        ("ALTER TABLE t RENAME TO u", c.RENAME_TABLE, "t", ""),
        ("ALTER TABLE t ALTER COLUMN c TYPE bigint", c.ALTER_TYPE, "t", "c"),
        ("ALTER TABLE t ALTER c SET NOT NULL", c.SET_NOT_NULL, "t", "c"),
        ("ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES u", c.ADD_FOREIGN_KEY, "t", "k"),
        ("ALTER TABLE t ADD UNIQUE (a, b)", c.ADD_UNIQUE, "t", ""),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", c.ADD_INDEX, "t", "i"),
        ("/* x */ UPDATE t SET a = 1", c.WRITE_ROWS, "t", ""),
        ("INSERT INTO t VALUES (1)", c.WRITE_ROWS, "t", ""),
        ("TRUNCATE TABLE t", c.TRUNCATE, "t", ""),
        ("SELECT 'DROP TABLE t'", c.OTHER_SQL, "", ""),
    ],
)  # fmt: skip
def test_sql_read__a_statement__its_change(text, kind, table, name):
    [change] = sql.read(text, "postgresql")
    assert (change.kind, change.table, change.name) == (kind, table, name)


def test_sql_read__several_actions__a_change_each_with_the_algorithm_of_all():
    found = sql.read(
        "ALTER TABLE t MODIFY c BIGINT, ADD INDEX i (a, b), ALGORITHM=INPLACE, LOCK=NONE", "mysql"
    )
    assert [one.kind for one in found] == [c.ALTER_TYPE, c.ADD_INDEX]
    assert {(one.algorithm, one.lock) for one in found} == {("INPLACE", "NONE")}


@pytest.mark.parametrize(
    ("text", "dialect", "rule"),
    [
        ("ALTER TABLE t ADD c int NOT NULL", "postgresql", "add-not-null"),
        ("ALTER TABLE t ADD c int NOT NULL", "mysql", "add-not-null"),
        ("ALTER TABLE t ADD c int NOT NULL", "sqlite", "add-not-null"),
        ("ALTER TABLE t ADD c uuid DEFAULT gen_random_uuid()", "postgresql", "volatile-default"),
        ("ALTER TABLE t ADD c int REFERENCES u (id)", "postgresql", "add-foreign-key-validating"),
        ("ALTER TABLE t ADD c int CHECK (c > 0)", "postgresql", "add-check-validating"),
        ("ALTER TABLE t ADD c int GENERATED ALWAYS AS (a) STORED", "postgresql", "stored-generated"),
        ("ALTER TABLE t DROP COLUMN c", "sqlite", "drop-column"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "mysql", "rename-column"),
        ("RENAME TABLE t TO u", "mysql", "rename-table"),
        ("DROP TABLE t", "postgresql", "drop-table"),
        ("ALTER TABLE t ALTER c TYPE bigint", "postgresql", "alter-type"),
        ("ALTER TABLE t MODIFY c BIGINT", "mysql", "alter-type"),
        ("CREATE INDEX i ON t (a)", "postgresql", "add-index-blocking"),
        ("CREATE INDEX i ON t (a)", "sqlite", "add-index-blocking"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "postgresql", "concurrently-in-transaction"),
        ("DROP INDEX i", "postgresql", "drop-index-blocking"),
        ("REINDEX TABLE t", "postgresql", "reindex-blocking"),
        (
            "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u",
            "postgresql",
            "add-foreign-key-validating",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (id)",
            "mysql",
            "add-foreign-key-validating",
        ),
        ("ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0)", "postgresql", "add-check-validating"),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)", "postgresql", "add-unique-blocking"),
        ("ALTER TABLE t ADD CONSTRAINT k EXCLUDE USING gist (a WITH &&)", "postgresql", "add-exclusion"),
        ("ALTER TABLE t ALTER c SET NOT NULL", "postgresql", "set-not-null-scan"),
        ("ALTER TABLE t ALTER c SET NOT NULL", "sqlite", "sqlite-cannot-alter"),
        ("ALTER TABLE t ADD c json", "postgresql", "json-type"),
        ("BEGIN", "postgresql", "transaction-nesting"),
        ("TRUNCATE t CASCADE", "postgresql", "truncate-or-cascade"),
        ("LOCK TABLE t", "postgresql", "lock-table"),
        ("ALTER TABLE t ADD c INT, ALGORITHM=COPY", "mysql", "mysql-blocking-alter"),
        ("ALTER TABLE t ADD c INT", "mysql", "mysql-say-algorithm"),
        (f"CREATE TABLE {'x' * 64} (a int)", "postgresql", "identifier-too-long"),
    ],
)
def test_rules__unsafe_sql__named(text, dialect, rule):
    assert rule in rules_of_sql(text, dialect)
    assert rule in linting.RULES


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("ALTER TABLE t ADD c int", "postgresql"),
        ("ALTER TABLE t ADD c int NOT NULL DEFAULT 0", "postgresql"),
        ("ALTER TABLE t ADD c timestamptz DEFAULT now()", "postgresql"),
        ("ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID", "postgresql"),
        ("ALTER TABLE t VALIDATE CONSTRAINT k", "postgresql"),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX i", "postgresql"),
        ("ALTER TABLE t ADD c INT, ALGORITHM=INSTANT", "mysql"),
        ("ALTER TABLE t ADD INDEX i (a), ALGORITHM=INPLACE, LOCK=NONE", "mysql"),
        ("ALTER TABLE t ADD c int", "sqlite"),
    ],
)
def test_rules__the_safe_form__silent(text, dialect):
    assert rules_of_sql(text, dialect) == set()


def test_rules__a_table_of_the_same_migration__is_empty_and_free():
    found = sql.read("CREATE TABLE t (a int)", "postgresql") + sql.read(
        "CREATE INDEX i ON t (a)", "postgresql"
    )
    subject = Subject("app", "0001_x", "postgresql", True, tuple(found))
    assert linting.judge(subject, {}) == []
    subject = Subject("app", "0002_x", "postgresql", True, tuple(found[1:]), frozenset({"t"}))
    assert linting.judge(subject, {}) == []


def test_allowed__with_a_reason__is_kept_apart__without_one_is_an_error():
    subject = Subject("app", "0002_x", "postgresql", True, tuple(sql.read("DROP TABLE t", "postgresql")))
    assert linting.worst(linting.judge(subject, {"drop-table": "nobody used it"})) == ""
    assert linting.worst(linting.judge(subject, {"drop-table": ""})) == "error"
    assert "which is no rule" in linting.judge(subject, {"drop-tabel": "x"})[-1].message


@pytest.mark.parametrize(
    ("was", "to", "postgresql", "mysql"),
    [
        ("varchar(20)", "varchar(50)", True, True),
        ("varchar(20)", "varchar(90)", True, False),
        ("varchar(50)", "varchar(20)", False, False),
        ("varchar(50)", "text", True, False),
        ("numeric(8, 2)", "numeric(10, 2)", True, False),
        ("numeric(8, 2)", "numeric(10, 4)", False, False),
        ("IntegerField", "BigIntegerField", False, False),
        ("", "text", False, False),
    ],
)
def test_is_widening__types__by_dialect(was, to, postgresql, mysql):
    assert (is_widening(was, to, "postgresql"), is_widening(was, to, "mysql")) == (postgresql, mysql)


# --- Django's operations ---------------------------------------------------------------------------------------------------
def forwards(apps, schema_editor):
    apps.get_model("app", "Thing")


def imports(apps, schema_editor):
    from orm_app.models import User as Today  # noqa: F401


def uses_a_global(apps, schema_editor):
    User.objects.all()


def rules_of(*given, dialect="postgresql", is_atomic=True) -> set[str]:
    state = ProjectState()
    fields = [
        ("id", models.BigAutoField(primary_key=True)),
        ("name", models.CharField(max_length=20, null=True)),
        ("slug", models.SlugField(unique=True)),
        ("shelf", models.ForeignKey("app.Shelf", models.CASCADE, null=True)),
        ("count", models.IntegerField(null=True, db_index=True)),
        ("file", models.FileField()),
    ]
    state.add_model(ModelState("app", "Shelf", fields[:1], {}))
    state.add_model(ModelState("app", "Thing", fields, {}))
    migration = type("Migration", (migrations.Migration,), {"operations": list(given)})("0002_x", "app")
    found = operations.read(migration, state, dialect)
    return {one.rule for one in linting.judge(Subject("app", "0002_x", dialect, is_atomic, tuple(found)), {})}


NOOP = migrations.RunPython.noop


@pytest.mark.parametrize(
    ("operation", "rules"),
    [
        (migrations.AddField("thing", "a", models.IntegerField(null=True)), set()),
        (migrations.AddField("thing", "a", models.IntegerField(default=1)), {"add-not-null"}),
        (migrations.AddField("thing", "a", models.IntegerField(db_default=1)), set()),
        (
            migrations.AddField("thing", "a", models.IntegerField(null=True, db_index=True)),
            {"add-index-blocking"},
        ),
        (
            migrations.AddField("thing", "a", models.ForeignKey("app.Thing", models.CASCADE, null=True)),
            {"add-index-blocking", "add-foreign-key-validating"},
        ),
        (migrations.RemoveField("thing", "name"), {"drop-column"}),
        (migrations.RenameField("thing", "name", "title"), {"rename-column"}),
        (migrations.RenameModel("Thing", "Item"), {"rename-table"}),
        (migrations.AlterModelTable("thing", "things"), {"rename-table"}),
        (migrations.DeleteModel("Thing"), {"drop-table"}),
        (migrations.AlterField("thing", "name", models.CharField(max_length=30, null=True)), set()),
        (migrations.AlterField("thing", "name", models.CharField(max_length=10, null=True)), {"alter-type"}),
        (migrations.AlterField("thing", "name", models.CharField(max_length=20)), {"set-not-null"}),
        (
            migrations.AlterField("thing", "name", models.CharField(max_length=20, null=True, help_text="x")),
            set(),
        ),
        (
            migrations.AlterField("thing", "name", models.CharField(max_length=20, null=True, unique=True)),
            {"add-unique-blocking"},
        ),
        (migrations.AddIndex("thing", models.Index(fields=["name"], name="i")), {"add-index-blocking"}),
        (
            AddIndexConcurrently("thing", models.Index(fields=["name"], name="i")),
            {"concurrently-in-transaction"},
        ),
        (migrations.RemoveIndex("thing", "i"), {"drop-index-blocking"}),
        (
            migrations.AddConstraint("thing", models.CheckConstraint(condition=models.Q(id__gt=0), name="k")),
            {"add-check-validating"},
        ),
        (migrations.AlterUniqueTogether("thing", {("id", "name")}), {"add-unique-blocking"}),
        (migrations.RunPython(forwards), {"run-python-irreversible"}),
        (migrations.RunPython(forwards, NOOP), set()),
        (migrations.RunPython(imports, NOOP), {"run-python-imports-models"}),
        (migrations.RunPython(uses_a_global, NOOP), {"run-python-imports-models"}),
        (migrations.RunSQL("UPDATE app_thing SET name = 'x'"), {"run-sql-irreversible"}),
        (migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel("Thing")]), set()),
        (migrations.SeparateDatabaseAndState([migrations.DeleteModel("Thing")]), {"drop-table"}),
    ],
)
def test_operations__postgresql__the_rules(operation, rules):
    assert rules_of(operation) == rules


def test_operations__other_dialects__their_own():
    index = migrations.AddIndex("thing", models.Index(fields=["name"], name="i"))
    assert rules_of(index, dialect="mysql") == set()
    wider = migrations.AlterField("thing", "name", models.CharField(max_length=30, null=True))
    assert rules_of(wider, dialect="mysql") == set()
    assert rules_of(wider, dialect="sqlite") == {"table-remake"}
    in_place = migrations.AddField("thing", "a", models.CharField(max_length=9, null=True, blank=True))
    assert rules_of(in_place, dialect="sqlite") == set()
    key = migrations.AddField("thing", "a", models.ForeignKey("app.Thing", models.CASCADE, null=True))
    assert "add-foreign-key-validating" in rules_of(key, dialect="mysql")


@pytest.mark.parametrize(
    ("name", "field", "postgresql", "sqlite"),
    [
        (
            "shelf",
            models.ForeignKey("app.Thing", models.CASCADE, null=True),
            {"add-foreign-key-validating"},
            True,
        ),
        ("shelf", models.ForeignKey("app.Shelf", models.PROTECT, null=True, help_text="x"), set(), False),
        (
            "shelf",
            models.ForeignKey("app.Shelf", models.CASCADE, null=True, db_constraint=False),
            set(),
            True,
        ),
        ("slug", models.SlugField(), set(), True),
        ("count", models.IntegerField(null=True), {"drop-index-blocking"}, False),
        ("count", models.IntegerField(null=True, db_index=True, db_default=1), set(), True),
        ("count", models.PositiveIntegerField(null=True, db_index=True), {"add-check-validating"}, True),
        ("file", models.FileField(max_length=200), set(), True),
    ],
)
def test_alter_field__what_the_database_does__and_no_more(name, field, postgresql, sqlite):
    change = migrations.AlterField("thing", name, field)
    assert rules_of(change) == postgresql
    assert ("table-remake" in rules_of(change, dialect="sqlite")) is sqlite


def test_unique_column_that_may_be_null__its_index_is_built_under_a_lock():
    field = migrations.AddField("thing", "a", models.IntegerField(null=True, unique=True))
    assert rules_of(field) == {"add-unique-blocking"}
    assert rules_of(field, dialect="mysql") == set()  # NULLs are not alike
    assert rules_of(field, dialect="sqlite") == {"table-remake"}
    filled = migrations.AddField("thing", "a", models.IntegerField(null=True, unique=True, default=1))
    assert "add-unique-column" in rules_of(filled)


def test_table_of_the_same_migration__renamed__is_still_empty():
    made = migrations.CreateModel("New", [("id", models.BigAutoField(primary_key=True))])
    field = migrations.AddField("newer", "a", models.IntegerField(default=1))
    assert rules_of(made, migrations.RenameModel("New", "Newer"), field) == set()


def test_operations__schema_and_rows_together__one_warning():
    field = migrations.AddField("thing", "a", models.IntegerField(null=True))
    assert rules_of(field, migrations.RunPython(forwards, NOOP)) == {"schema-and-data"}
    concurrent = AddIndexConcurrently("thing", models.Index(fields=["name"], name="i"))
    assert rules_of(concurrent, field, is_atomic=False) == {"mixed-without-transaction"}


# --- the gate and the command ------------------------------------------------------------------------------------------------
@pytest.fixture
def package(tmp_path, monkeypatch, settings):
    package = Package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.orm_app.migrated_app"]
    settings.MIGRATION_MODULES = {"migrated": package.name}
    package.write(
        "0001_initial", 'migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True))])'
    )
    return package


@pytest.fixture
def alias(package, tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        yield alias


def database(*argv: str) -> tuple[int, str]:
    return commanding.database(*argv)[:2]


DROP = 'migrations.DeleteModel("Thing")'


@pytest.mark.django_db(transaction=True)
def test_gate__unsafe_on_a_used_database__refused_with_the_rewrite_and_let_through_with_a_reason(
    package, alias
):
    call_command("migrate", "migrated", database=alias, verbosity=0, lint="refuse")
    package.write("0002_drop", DROP, after="0001_initial")
    with pytest.raises(CommandError, match="1 unsafe operation: nothing was migrated") as error:
        call_command("migrate", "migrated", database=alias, verbosity=0, lint="refuse")
    assert "[drop-table]\n    safe: Release 1: remove it from the code" in str(error.value)
    package.write(
        "0002_drop", DROP, after="0001_initial", head="# lint: allow drop-table because nobody used it\n"
    )
    call_command("migrate", "migrated", database=alias, verbosity=0, lint="refuse")


@pytest.mark.django_db(transaction=True)
def test_gate__warn__said_and_done(package, alias):
    call_command("migrate", "migrated", database=alias, verbosity=0)
    package.write("0002_drop", DROP, after="0001_initial")
    err = io.StringIO()
    call_command("migrate", "migrated", database=alias, stdout=io.StringIO(), stderr=err, lint="warn")
    assert "error: migrated.0002_drop (sqlite): drops migrated_thing" in err.getvalue()


def test_mode__production__refuses_unless_told_otherwise(settings):
    settings.PRODUCTION = True
    assert migration_gate.mode() == "refuse"
    settings.PRODUCTION = False
    assert migration_gate.mode() == "warn"


def test_database_lint__command__exit_codes_json_and_allowances(package):
    assert database("lint", "migrated")[0] == 0
    package.write(
        "0002_index",
        'migrations.AddField("thing", "a", models.IntegerField(null=True, db_index=True))',
        after="0001_initial",
    )
    code, text = database("lint", "migrated", "0002", "--dialect", "sqlite")
    assert code == 3
    code, text = database("lint", "migrated", "--json")
    assert code == 1
    assert {(one["rule"], one["dialect"]) for one in json.loads(text)["findings"]} == {
        ("add-index-blocking", "postgresql"), ("add-index-blocking", "sqlite"),
    }  # fmt: skip
    package.write(
        "0002_index", 'migrations.AddField("thing", "a", models.IntegerField(null=True, db_index=True))',
        after="0001_initial", body='lint_allow = {"add-index-blocking": "a thousand rows"}',
    )  # fmt: skip
    assert database("lint", "migrated")[0] == 0
    assert "allowed: a thousand rows" in database("lint", "migrated", "--show-allowed")[1]
    assert database("lint", "nothing")[0] == 1


def test_allowed__sql_of_ours__by_a_comment_in_its_text():
    from orm_app.sql_operations import SQL

    operation = SQL(
        {"": "-- lint: allow drop-table because it was a copy\nDROP TABLE t", "mysql": "DROP TABLE t"}, ""
    )
    migration = type("Migration", (migrations.Migration,), {"operations": [operation]})("0002_x", "app")
    assert migration_gate.allowed(migration) == {"drop-table": "it was a copy"}
    assert [one.kind for one in operations.read(migration, ProjectState(), "postgresql")] == [c.DROP_TABLE]
    assert operations.statements(SQL({"mysql": "SELECT 1"}), "sqlite") is None


def test_database_lint__no_app_named__the_platforms_own_only_with_all():
    code, text = database("lint", "--json")
    assert code == 0
    mine = json.loads(text)["migrations"]
    code, text = database("lint", "--all", "--json")
    assert code in (1, 3)
    assert json.loads(text)["migrations"] > mine + 20
