"""The customer's snippet, on the three engines, through Django's own commands."""

from __future__ import annotations

import contextlib
import io

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from orm_app import Migration, migration_manager
from orm_app import sql_migrations as declared

from .migrating import ENGINES, alias_of, url_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch):
    """Each test declares its own."""
    before = dict(migration_manager._declared)
    migration_manager._declared.clear()
    yield
    migration_manager._declared.clear()
    migration_manager._declared.update(before)
    declared._forget_modules()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.service) for name in ENGINES])
def alias(request, tmp_path, django_db_blocker):
    with contextlib.ExitStack() as stack, django_db_blocker.unblock():
        yield stack.enter_context(alias_of(url_of(request.param, request, tmp_path, stack)))


@pytest.fixture
def sqlite(tmp_path, django_db_blocker):
    with django_db_blocker.unblock(), alias_of(f"sqlite:///{tmp_path}/m.sqlite3") as alias:
        yield alias


def create_users():
    # The customer's text, unchanged.
    migration = Migration(
        version="001",
        name="create_users_table",
        up_sql="CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR(50))",
        down_sql="DROP TABLE users"
    )  # fmt: skip
    return migration


def tables(alias):
    return connections[alias].introspection.table_names()


def rows(alias, sql):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def shown(alias):
    out = io.StringIO()
    call_command("showmigrations", "sql", database=alias, stdout=out, no_color=True)
    return out.getvalue()


def test_apply_migrations__sync__the_table_counts_its_ids_and_django_shows_the_migration(alias):
    create_users()
    assert "[ ] 001_create_users_table" in shown(alias)
    assert migration_manager.apply_migrations(using=alias) == ["001_create_users_table"]
    assert "[X] 001_create_users_table" in shown(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO users (username) VALUES ('john_doe')")
        cursor.execute("INSERT INTO users (username) VALUES ('ann')")
    assert rows(alias, "SELECT id, username FROM users ORDER BY id") == ((1, "john_doe"), (2, "ann")) or rows(
        alias, "SELECT id, username FROM users ORDER BY id"
    ) == [(1, "john_doe"), (2, "ann")]
    assert migration_manager.apply_migrations(using=alias) == []
    [state] = migration_manager.status(using=alias)
    assert (state.version, state.is_applied, state.is_edited) == ("001", True, False)
    assert migration_manager.rollback(using=alias) == ["001_create_users_table"]
    assert "users" not in tables(alias)
    assert "[ ] 001_create_users_table" in shown(alias)


async def test_apply_migrations__awaited__the_same(sqlite):
    from asgiref.sync import sync_to_async

    create_users()
    assert await migration_manager.apply_migrations(using=sqlite) == ["001_create_users_table"]
    assert "users" in await sync_to_async(tables)(sqlite)
    assert await migration_manager.rollback(using=sqlite) == ["001_create_users_table"]


def test_apply_and_rollback__target_lies_the_other_way__nothing_is_taken_back_or_applied(sqlite, monkeypatch):
    create_users()
    for number in (2, 3):
        Migration(
            version=f"00{number}",
            name="more",
            up_sql=f"CREATE TABLE more_{number} (id INTEGER)",
            down_sql=f"DROP TABLE more_{number}",
        )
    assert len(migration_manager.apply_migrations(using=sqlite)) == 3
    assert migration_manager.apply_migrations("001", using=sqlite) == []
    # Another process went past the target while this one waited for the lock.
    monkeypatch.setattr("orm_app.migrate.applied", lambda using: set())
    with pytest.raises(CommandError, match=r"take sql.003_more, sql.002_more back"):
        migration_manager.apply_migrations("001", using=sqlite)
    monkeypatch.undo()
    assert {"users", "more_2", "more_3"} <= set(tables(sqlite))
    assert migration_manager.rollback(to="001", using=sqlite) == ["003_more", "002_more"]
    with pytest.raises(CommandError, match="not applied"):
        migration_manager.rollback(to="003", using=sqlite)
    assert "more_2" not in tables(sqlite)


def test_migrate_command__declared__in_the_order_of_their_versions_and_back(sqlite):
    Migration(
        version="10",
        name="third",
        up_sql="ALTER TABLE users ADD COLUMN b INTEGER",
        down_sql="ALTER TABLE users DROP COLUMN b",
    )
    Migration(
        version="2",
        name="second",
        up_sql="ALTER TABLE users ADD COLUMN a INTEGER",
        down_sql="ALTER TABLE users DROP COLUMN a",
    )
    create_users()
    call_command("migrate", "sql", database=sqlite, verbosity=0)
    columns = [row[1] for row in rows(sqlite, "PRAGMA table_info(users)")]
    assert columns == ["id", "username", "a", "b"]
    call_command("migrate", "sql", "001", database=sqlite, verbosity=0)
    assert [row[1] for row in rows(sqlite, "PRAGMA table_info(users)")] == ["id", "username"]
    assert migration_manager.apply_migrations("2", using=sqlite) == ["2_second"]


def test_sqlmigrate__declared__prints_the_sql_of_the_database(sqlite):
    create_users()
    out = io.StringIO()
    call_command("sqlmigrate", "sql", "001", database=sqlite, stdout=out, no_color=True)
    assert "CREATE TABLE users (id INTEGER PRIMARY KEY" in out.getvalue()


def test_router__says_no__nothing_runs_there(sqlite):
    create_users()
    with override_settings(DATABASE_ROUTERS=["tests.orm_app.test_sql_migrations.Elsewhere"]):
        migration_manager.apply_migrations(using=sqlite)
    assert "users" not in tables(sqlite)


class Elsewhere:
    def allow_migrate(self, db, app_label, **hints):
        return False if app_label == "sql" else None


def test_app_lives_elsewhere__its_migration_runs_there_and_not_in_default(sqlite):
    declared = "from orm_app import Migration\nMigration(version='1', name='made', up_sql='CREATE TABLE made (x INT)')"
    exec(declared, {"__name__": "queue_app.sql_migrations"})
    Migration(version="2", name="hinted", up_sql="CREATE TABLE hinted (x INT)", hints={"app": "gateway"})
    with override_settings(BRAIN={"DATABASE": {"APPS": {"queue_app": "default", "gateway": sqlite}}}):
        migration_manager.apply_migrations(using=sqlite)
    assert {"made", "hinted"}.intersection(tables(sqlite)) == {"hinted"}


def test_edited_after_applied__refused_with_the_way_out__and_accepted(sqlite):
    create_users()
    migration_manager.apply_migrations(using=sqlite)
    migration_manager.withdraw("001")
    Migration(
        version="001", name="create_users_table", down_sql="DROP TABLE users",
        up_sql="CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR(80))",
    )  # fmt: skip
    assert migration_manager.status(using=sqlite)[0].is_edited
    with pytest.raises(CommandError, match="edited after it was applied") as error:
        migration_manager.apply_migrations(using=sqlite)
    assert "--accept-checksum sql.001_create_users_table" in str(error.value)
    with pytest.raises(CommandError, match="not an edited migration"):
        migration_manager.apply_migrations(using=sqlite, accept_checksum=["sql.002_x"])
    assert (
        migration_manager.apply_migrations(using=sqlite, accept_checksum=["sql.001_create_users_table"]) == []
    )
    assert migration_manager.apply_migrations(using=sqlite) == []
    from foundation.models import AuditEntry

    entry = AuditEntry.objects.get(action="database.accept_checksum")
    assert entry.after["migrations"] == ["sql.001_create_users_table"]
    assert entry.after["was"] != entry.after["now"]


def test_statement_fails__transactional_database__nothing_of_the_migration_remains(sqlite):
    Migration(
        version="1", name="broken", up_sql="CREATE TABLE a (x INT); CREATE TABLE a (x INT)", down_sql=""
    )
    with pytest.raises(Exception, match="already exists"):
        migration_manager.apply_migrations(using=sqlite)
    assert "a" not in tables(sqlite)
    assert not migration_manager.status(using=sqlite)[0].is_applied


def test_without_down_sql__rollback__says_so(sqlite):
    Migration(version="1", name="one_way", up_sql="CREATE TABLE a (x INT)")
    migration_manager.apply_migrations(using=sqlite)
    with pytest.raises(Exception, match="not reversible"):
        migration_manager.rollback(using=sqlite)


def test_declaring__twice_the_same_is_one__another_content_is_refused():
    create_users()
    create_users()
    assert len(migration_manager.declared()) == 1
    with pytest.raises(ValueError, match="version 001 is declared already"):
        Migration(version="001", name="other", up_sql="SELECT 1")
    with pytest.raises(ValueError, match="version begins with a digit"):
        Migration(version="v1", name="x", up_sql="SELECT 1")


def test_app_is_not_installed__says_what_to_add(settings):
    settings.INSTALLED_APPS = [
        app for app in settings.INSTALLED_APPS if app != "orm_app.sql_app.apps.SQLMigrationsConfig"
    ]
    create_users()
    with pytest.raises(ImproperlyConfigured, match=r"orm_app\.sql_app"):
        migration_manager.apply_migrations()
