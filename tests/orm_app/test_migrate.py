"""`manage.py migrate` as processes on real databases: two at once, killed, broken half way, blocked by somebody's lock."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from urllib.parse import urlsplit

import pytest
from django.core.management import get_commands

from .migrating import ENGINES, Package, environment, finish, start, url_of

pytestmark = [pytest.mark.service, pytest.mark.slow]

MIGRATE = ["migrate", "--no-color", "migrated"]
UNTIL = 'import os, time\n\n\ndef slow(apps, schema_editor):\n    print("in the middle", flush=True)\n    while not os.path.exists({path!r}):\n        time.sleep(0.1)\n'
SLOW = 'import time\n\n\ndef slow(apps, schema_editor):\n    print("in the middle", flush=True)\n    time.sleep({s})\n'
THING = 'migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=9))])'
FIELD = 'migrations.AddField("thing", "{}", models.IntegerField(null=True))'


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def url(engine, request, tmp_path):
    with contextlib.ExitStack() as stack:
        yield url_of(engine, request, tmp_path, stack)


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path)


def ask(url: str, sql: str):
    """The rows, over a connection of our own."""
    parts = urlsplit(url)
    if url.startswith("postgres"):
        import psycopg

        with psycopg.connect(url) as connection:
            return connection.execute(sql).fetchall()
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(parts.path)) as connection:
            return connection.execute(sql).fetchall()
    import MySQLdb

    connection = MySQLdb.connect(
        host=parts.hostname, port=parts.port, user=parts.username, database=parts.path.strip("/")
    )
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def applied(url: str) -> list[str]:
    return [
        name for (name,) in ask(url, "SELECT name FROM django_migrations WHERE app = 'migrated' ORDER BY id")
    ]


def run(arguments, env):
    return finish(start(arguments, env))


def wait_for_line(process, text: str) -> str:
    seen = ""
    while text not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return seen


def test_command__is_ours_before_and_after_djangos_apps():
    assert get_commands()["migrate"] == "orm_app"


def test_two_at_once__one_waits_and_finds_nothing_to_do(url, package, tmp_path):
    go_on = tmp_path / "go_on"
    package.write("0001_initial", THING)
    package.write(
        "0002_slow", f"migrations.RunPython(slow, migrations.RunPython.noop), {FIELD.format('a')}",
        after="0001_initial", head=UNTIL.format(path=str(go_on)),
    )  # fmt: skip
    env = environment(url, package)
    first = start(MIGRATE, env)
    seen = wait_for_line(first, "in the middle")
    second = start(MIGRATE, env)
    output = wait_for_line(second, "Another migrate is running (")
    go_on.touch()
    code, rest = finish(second)
    output += rest
    first_code, first_output = finish(first)
    assert (first_code, code) == (0, 0), seen + first_output + output
    assert "No migrations to apply." in output
    assert applied(url) == ["0001_initial", "0002_slow"]


INDEX = 'AddIndexConcurrently("thing", models.Index(fields=["name"], name="by_name"))'
CONCURRENTLY = "from django.contrib.postgres.operations import AddIndexConcurrently\n"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_name'::regclass"


def test_two_at_once__the_first_builds_an_index_concurrently__the_waiting_one_is_not_in_its_way(
    request, package, tmp_path
):
    go_on = tmp_path / "go_on"
    package.write("0001_initial", THING)
    package.write(
        "0002_index", f"migrations.RunPython(slow), {INDEX}", after="0001_initial", body="atomic = False",
        head=CONCURRENTLY + UNTIL.format(path=str(go_on)),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        url = url_of("postgresql", request, tmp_path, stack)
        env = environment(url, package)
        first = start(MIGRATE, env)
        wait_for_line(first, "in the middle")
        second = start(MIGRATE, env)
        wait_for_line(second, "Another migrate is running (")
        go_on.touch()
        assert [finish(first)[0], finish(second)[0]] == [0, 0]
        assert ask(url, VALID) == [(True,)]


def test_killed_while_an_index_is_built_concurrently__the_next_run_builds_it_anew(request, package, tmp_path):
    package.write("0001_initial", THING)
    package.write("0002_index", INDEX, after="0001_initial", body="atomic = False", head=CONCURRENTLY)
    with contextlib.ExitStack() as stack:
        url = url_of("postgresql", request, tmp_path, stack)
        env = environment(url, package)
        assert run([*MIGRATE, "0001"], env)[0] == 0
        with writing(url):  # the index waits for it
            first = start([*MIGRATE, "--lock-timeout", "0"], env)
            deadline = time.monotonic() + 180
            while not ask(url, "SELECT 1 FROM pg_class WHERE relname = 'by_name'"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            first.kill()
            finish(first)
        code, output = run(MIGRATE, env)
        assert code == 0, output
        assert ask(url, VALID) == [(True,)]
        assert applied(url) == ["0001_initial", "0002_index"]


@contextlib.contextmanager
def writing(url: str):
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO migrated_thing (name) VALUES ('x')")
        yield


def test_lock_is_not_free_in_time__says_who_holds_it_and_how_to_wait_longer(url, package):
    package.write("0001_initial", f"{THING}, migrations.RunPython(slow)", head=SLOW.format(s=600))
    env = environment(url, package)
    first = start(MIGRATE, env)
    try:
        wait_for_line(first, "in the middle")
        code, output = run([*MIGRATE, "--wait", "0.5"], env)
        assert code == 1
        assert "holds the lock after" in output
        assert "--wait SECONDS" in output
    finally:
        first.kill()
        finish(first)


def test_killed_in_the_middle__the_next_run_goes_on(url, package):
    package.write(
        "0001_initial",
        f"{THING}, {FIELD.format('a')}, migrations.RunPython(slow), {FIELD.format('b')}",
        head=SLOW.format(s=600),
    )
    first = start(MIGRATE, environment(url, package))
    wait_for_line(first, "in the middle")
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    source = package.path / "0001_initial.py"
    source.write_text(source.read_text().replace("sleep(600)", "sleep(0)"))
    began = time.monotonic()
    code, output = run(MIGRATE, environment(url, package))
    assert code == 0, output
    assert time.monotonic() - began < 120
    assert applied(url) == ["0001_initial"]
    ask(url, "SELECT a, b FROM migrated_thing")
    if url.startswith("mysql"):
        assert "was interrupted: 2 of 4 operations are done. Going on." in output
        assert ask(url, "SELECT COUNT(*) FROM brain_migration_progress")[0][0] == 0


BREAKS = (
    "migrations.RunSQL([\"INSERT INTO migrated_thing (name) VALUES ('x')\", 'CREATE TABLE other (n INT)', {third}],"
    " migrations.RunSQL.noop)"
)


def test_breaks_half_way__transactional__nothing_is_left(package, tmp_path):
    url = f"sqlite:///{tmp_path}/m.sqlite3"
    package.write("0001_initial", f"{THING}, {BREAKS.format(third=repr('SELECT nothing'))}")
    code, _ = run(MIGRATE, environment(url, package))
    assert code == 1
    assert applied(url) == []
    assert ask(url, "SELECT name FROM sqlite_master WHERE name IN ('other', 'migrated_thing')") == []


@pytest.mark.parametrize("case", ["mariadb", "sqlite, atomic=False", "postgresql, atomic=False"])
def test_breaks_half_way__no_transaction__reports_and_resumes_behind_what_is_committed(
    case, request, tmp_path, package
):
    body = "atomic = False" if "atomic" in case else ""
    operations = f"{THING}, {BREAKS.format(third=repr('SELECT nothing'))}, {FIELD.format('a')}"
    source = package.write("0001_initial", operations, body=body)
    with contextlib.ExitStack() as stack:
        url = url_of(case.partition(",")[0], request, tmp_path, stack)
        env = environment(url, package)
        code, output = run(MIGRATE, env)
        assert code == 1
        assert "committed  1. Create model Thing" in output
        assert "broke in   2. Raw SQL operation (2 of its statements committed)" in output
        assert "not run    3. Add field a to thing" in output
        assert "`manage.py migrate --resume`" in output

        code, again = run(MIGRATE, env)  # it does not try by itself: somebody has to look
        assert code == 1
        assert "because" in again
        source.write_text(source.read_text().replace("SELECT nothing", "SELECT 1"))
        code, output = run([*MIGRATE, "--resume"], env)
        assert code == 0, output
        assert "1 of 3 operations are done. Going on." in output
        assert ask(url, "SELECT name, a FROM migrated_thing") in ([("x", None)], [["x", None]])
        assert applied(url) == ["0001_initial"]


def test_start_over__undone_by_hand__runs_from_the_first_operation(request, tmp_path, package):
    source = package.write("0001_initial", f"{THING}, {BREAKS.format(third=repr('SELECT nothing'))}")
    with contextlib.ExitStack() as stack:
        url = url_of("mariadb", request, tmp_path, stack)
        env = environment(url, package)
        assert run(MIGRATE, env)[0] == 1
        ask(url, "DROP TABLE migrated_thing, other")
        source.write_text(source.read_text().replace("SELECT nothing", "SELECT 1"))
        code, output = run([*MIGRATE, "--start-over", "migrated.0001_initial"], env)
        assert code == 0, output
        assert len(ask(url, "SELECT * FROM migrated_thing")) == 1
        code, output = run([*MIGRATE, "--start-over", "migrated.0001_initial"], env)
        assert code == 1
        assert "nothing to start over" in output


def test_rollback_without_transaction__broken_half_way__resumes_backwards(request, tmp_path, package):
    package.write("0001_initial", THING)
    source = package.write(
        "0002_more",
        f"migrations.RunSQL('SELECT 1', 'SELECT nothing'), {FIELD.format('a')}, {FIELD.format('b')}",
        after="0001_initial",
    )
    with contextlib.ExitStack() as stack:
        url = url_of("mariadb", request, tmp_path, stack)
        env = environment(url, package)
        assert run(MIGRATE, env)[0] == 0
        code, output = run(["migrate", "migrated", "0001"], env)
        assert code == 1
        assert "stands half way back" in output
        assert "broke in   3. Raw SQL operation" in output
        source.write_text(source.read_text().replace("SELECT nothing", "SELECT 1"))
        code, output = run(["migrate", "migrated", "0001", "--resume"], env)
        assert code == 0, output
        assert applied(url) == ["0001_initial"]


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_table_is_locked__gives_up_soon_and_tries_again(server, request, tmp_path, package):
    package.write("0001_initial", THING)
    package.write("0002_more", FIELD.format("a"), after="0001_initial")
    with contextlib.ExitStack() as stack:
        url = url_of(server, request, tmp_path, stack)
        env = environment(url, package)
        assert run([*MIGRATE, "0001"], env)[0] == 0
        with holding(url):
            code, output = run([*MIGRATE, "--lock-timeout", "1", "--lock-retries", "0"], env)
            assert code == 1
            assert "timeout" in output.lower()
            process = start([*MIGRATE, "--lock-timeout", "1", "--lock-retries", "9"], env)
            wait_for_line(process, "Trying again in")
        code, output = finish(process)
        assert code == 0, output
        assert applied(url) == ["0001_initial", "0002_more"]


@contextlib.contextmanager
def holding(url: str):
    """A transaction that has read the table and does not end."""
    parts = urlsplit(url)
    if url.startswith("postgres"):
        import psycopg

        with psycopg.connect(url) as connection:
            connection.execute("SELECT * FROM migrated_thing")
            yield
        return
    import MySQLdb

    connection = MySQLdb.connect(
        host=parts.hostname, port=parts.port, user=parts.username, database=parts.path.strip("/")
    )
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM migrated_thing")
        yield
