"""What a killed migration left, made by hand: the statement that was on its way, done or not."""

from __future__ import annotations

import contextlib

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections

from orm_app import migrate, migration_journal
from orm_app import migration_records as records

from .migrating import Package, alias_of, url_of

pytestmark = [pytest.mark.service, pytest.mark.django_db(transaction=True)]

TWO = (
    "migrations.RunSQL(['CREATE TABLE a (n INT)', 'INSERT INTO a VALUES (1)', 'CREATE TABLE b (n INT)'], [])"
)


@pytest.fixture
def package(tmp_path, monkeypatch, settings):
    package = Package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.orm_app.migrated_app"]
    settings.MIGRATION_MODULES = {"migrated": package.name}
    return package


@pytest.fixture(params=["mariadb", "postgresql", "sqlite"])
def alias(request, tmp_path, package, django_db_blocker):
    with contextlib.ExitStack() as stack, django_db_blocker.unblock():
        yield stack.enter_context(alias_of(url_of(request.param, request, tmp_path, stack)))


def left(alias, **values):
    connection = connections[alias]
    records.ensure(connection, records.progress_model())
    records.rows(connection, records.progress_model()).create(app="migrated", name="0001_initial", **values)


def query(alias, sql):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def test_killed_in_a_statement__done_or_not__the_next_run_ends_with_one_of_each(alias, package):
    package.write("0001_initial", TWO, body="atomic = False")
    query(alias, "CREATE TABLE a (n INT)")
    left(alias, attempted="CREATE TABLE a (n INT)")
    if connections[alias].vendor != "mysql":
        query(alias, "DROP TABLE a")  # there it is undone with its own record, or done with it
    call_command("migrate", "migrated", database=alias, verbosity=0)
    assert query(alias, "SELECT n FROM a") == [(1,)]
    assert query(alias, "SELECT n FROM b") == []
    assert migration_journal.unfinished(connections[alias]) == []


@pytest.mark.parametrize(
    ("before", "statement", "done"),
    [
        ("n INT", "ALTER TABLE a CHANGE n m INT", "m INT"),
        ("n INT", "ALTER TABLE a RENAME COLUMN n TO m", "m INT"),
        ("m INT, INDEX i (m)", "ALTER TABLE a RENAME INDEX i TO j", "m INT, INDEX j (m)"),
        ("m INT", "RENAME TABLE z TO a", "m INT"),
    ],
    ids=["change", "rename-column", "rename-index", "rename-table"],
)
@pytest.mark.parametrize("alias", ["mariadb"], indirect=True)
@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not-done"])
def test_killed_in_a_rename__done_or_not__the_next_run_ends_with_the_new_name(
    alias, package, before, statement, done, is_done
):
    package.write("0001_initial", f"migrations.RunSQL([{statement!r}], [])", body="atomic = False")
    table = "z" if statement.startswith("RENAME TABLE") and not is_done else "a"
    query(alias, f"CREATE TABLE {table} ({done if is_done else before})")
    left(alias, attempted=statement)
    call_command("migrate", "migrated", database=alias, verbosity=0)
    assert query(alias, "SELECT m FROM a") == []
    assert migration_journal.unfinished(connections[alias]) == []


@pytest.mark.parametrize("alias", ["mariadb"], indirect=True)
def test_killed_in_another_statement__a_name_is_missing__is_an_error(alias, package):
    statement = "ALTER TABLE a ADD INDEX i (missing)"
    package.write("0001_initial", f"migrations.RunSQL([{statement!r}], [])", body="atomic = False")
    query(alias, "CREATE TABLE a (n INT)")
    left(alias, attempted=statement)
    with pytest.raises(DatabaseError):
        call_command("migrate", "migrated", database=alias, verbosity=0)


def test_killed_between_statements__committed_ones_are_skipped(alias, package):
    package.write("0001_initial", TWO, body="atomic = False")
    query(alias, "CREATE TABLE a (n INT)")
    query(alias, "INSERT INTO a VALUES (1)")
    left(alias, statements='["CREATE TABLE a (n INT)", "INSERT INTO a VALUES (1)"]')
    call_command("migrate", "migrated", database=alias, verbosity=0)
    assert query(alias, "SELECT n FROM a") == [(1,)]
    assert migrate.applied(alias) == {("migrated", "0001_initial")}


def test_committed_operations_were_edited__refused(alias, package):
    package.write("0001_initial", TWO, body="atomic = False")
    left(alias, done='["CreateModel: Create model Thing"]')
    with pytest.raises(CommandError, match="not the first of the migration any more"):
        call_command("migrate", "migrated", database=alias, verbosity=0)


def test_first_statement_fails__nothing_is_committed_and_nothing_to_resume(alias, package):
    package.write("0001_initial", "migrations.RunSQL('SELECT nothing', '')", body="atomic = False")
    with pytest.raises(Exception, match="nothing"):
        call_command("migrate", "migrated", database=alias, verbosity=0)
    assert migration_journal.unfinished(connections[alias]) == []


def test_python_fails__its_rows_are_undone_and_it_is_not_counted(alias, package):
    head = 'def fill(apps, editor):\n    apps.get_model("migrated", "Thing").objects.using(editor.connection.alias).create(name="x")\n    {then}\n'
    thing = 'migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=9))])'
    python = "migrations.RunPython(fill, atomic=True)"
    package.write(
        "0001_initial",
        f"{thing}, {python}",
        body="atomic = False",
        head=head.format(then="raise ValueError('stop')"),
    )
    with pytest.raises(CommandError, match="broke in   2. Raw Python operation"):
        call_command("migrate", "migrated", database=alias, verbosity=0)
    package.write("0001_initial", f"{thing}, {python}", body="atomic = False", head=head.format(then=""))
    call_command("migrate", "migrated", database=alias, verbosity=0, resume=True)
    assert query(alias, "SELECT name FROM migrated_thing") == [("x",)]


def test_python_without_a_transaction_fails__told_that_it_begins_anew(alias, package):
    package.write(
        "0001_initial",
        "migrations.RunSQL('CREATE TABLE a (n INT)', ''), migrations.RunPython(stop)",
        body="atomic = False",
        head="def stop(apps, editor):\n    raise ValueError('stop')\n",
    )
    with pytest.raises(CommandError, match="begins anew, and what it committed itself stays"):
        call_command("migrate", "migrated", database=alias, verbosity=0)


def test_fake_initial__a_later_one_breaks__is_journalled_as_ever(alias, package):
    thing = 'migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True))])'
    package.write("0001_initial", thing, body="initial = True")
    package.write(
        "0002_more",
        "migrations.RunSQL('CREATE TABLE a (n INT)', ''), migrations.RunSQL('SELECT nothing', '')",
        after="0001_initial",
        body="atomic = False",
    )
    query(alias, "CREATE TABLE migrated_thing (id BIGINT PRIMARY KEY)")
    with pytest.raises(CommandError, match="committed  1. Raw SQL"):
        call_command("migrate", "migrated", database=alias, verbosity=0, fake_initial=True)
    assert migrate.applied(alias) == {("migrated", "0001_initial")}


def test_foreign_keys_wait_for_the_end__killed_before_it__they_are_made(alias, package):
    two = 'migrations.CreateModel("One", [("id", models.BigAutoField(primary_key=True))]), migrations.CreateModel("Two", [("id", models.BigAutoField(primary_key=True)), ("one", models.ForeignKey("migrated.One", models.CASCADE))])'
    package.write("0001_initial", f"{two}, migrations.RunSQL('SELECT nothing', '')", body="atomic = False")
    with pytest.raises(CommandError, match="broke in   3"):
        call_command("migrate", "migrated", database=alias, verbosity=0)
    package.write("0001_initial", f"{two}, migrations.RunSQL('SELECT 1', '')", body="atomic = False")
    call_command("migrate", "migrated", database=alias, verbosity=0, resume=True)
    with connections[alias].cursor() as cursor:
        found = connections[alias].introspection.get_constraints(cursor, "migrated_two")
    assert [one for one in found.values() if one["foreign_key"] and one["columns"] == ["one_id"]]
    assert [one for one in found.values() if one["index"] and one["columns"] == ["one_id"]]
