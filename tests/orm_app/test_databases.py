from __future__ import annotations

import importlib.util

import pytest

from orm_app import databases
from orm_app.databases import BadURL, from_url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///var/lib/brain/db.sqlite3", "/var/lib/brain/db.sqlite3"),
        ("sqlite:////var/lib/brain/db.sqlite3", "/var/lib/brain/db.sqlite3"),
        ("sqlite:///var/with%20space/db", "/var/with space/db"),
        ("sqlite://Data/db.sqlite3", "Data/db.sqlite3"),
        ("sqlite://db.sqlite3", "db.sqlite3"),
        ("sqlite://:memory:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
    ],
)
def test_from_url__sqlite__path_absolute_or_relative(url, name):
    assert from_url(url)["NAME"] == name


def test_from_url__sqlite__tuned_for_several_processes():
    options = from_url("sqlite:///a/db.sqlite3")["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] == 20
    assert "journal_mode=WAL" in options["init_command"]
    assert "synchronous=NORMAL" in options["init_command"]
    assert from_url("sqlite:///a/db.sqlite3?timeout=5")["OPTIONS"]["timeout"] == 5


@pytest.mark.django_db
def test_from_url__sqlite__the_pragmas_hold_on_a_real_connection():
    from django.db import connection

    if connection.vendor != "sqlite":
        pytest.skip("the test database is no SQLite")
    with connection.cursor() as cursor:
        got = {
            name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        }
    assert got == {"journal_mode": "wal", "synchronous": 1}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "PostgreSQL"])
def test_from_url__postgresql__parts_pool_and_no_kept_connections(scheme):
    entry = from_url(f"{scheme}://bra%40in:p%3A%2F%23w@db.example.com:5433/na%20me?sslmode=require")
    assert entry == {
        "ENGINE": "orm_app.postgresql",
        "NAME": "na me",
        "USER": "bra@in",
        "PASSWORD": "p:/#w",
        "HOST": "db.example.com",
        "PORT": "5433",
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": "5",
            "sslmode": "require",
            "pool": {"min_size": 1, "max_size": 8, "timeout": 10, "max_lifetime": 1800},
        },
    }


def test_from_url__postgresql__pool_and_options_from_the_query():
    entry = from_url(
        "postgres://h/n?pool_max_size=20&pool_min_size=0&connect_timeout=2&options=-c%20statement_timeout%3D5s"
    )
    assert entry["OPTIONS"]["pool"] | {"max_size": 20, "min_size": 0} == entry["OPTIONS"]["pool"]
    assert entry["OPTIONS"]["connect_timeout"] == "2"
    assert entry["OPTIONS"]["options"] == "-c statement_timeout=5s"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgres:///name", ""),
        ("postgres:///name?host=/var/run/postgresql", "/var/run/postgresql"),
        ("postgres://%2Fvar%2Frun%2Fpostgresql/name", "/var/run/postgresql"),
        ("postgres://[::1]:5432/name", "::1"),
        ("mysql:///name?unix_socket=/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock"),
    ],
)
def test_from_url__socket_or_ipv6__host(url, host):
    assert from_url(url)["HOST"] == host


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_from_url__mysql__strict_utf8mb4_read_committed(scheme):
    entry = from_url(f"{scheme}://u:p@h/n?read_timeout=30&ssl_ca=/etc/ca.pem")
    assert entry["ENGINE"] == "orm_app.mysql_pool"
    options = entry["OPTIONS"]
    assert options["charset"] == "utf8mb4"
    assert options["isolation_level"] == "read committed"
    assert "STRICT_TRANS_TABLES" in options["init_command"]
    assert (options["read_timeout"], options["ssl"]) == (30, {"ca": "/etc/ca.pem"})
    assert (entry["CONN_MAX_AGE"], entry["CONN_HEALTH_CHECKS"]) == (0, True)


def test_from_url__mysql_and_postgresql__one_pool_key():
    query = "?pool_max_size=20&pool_min_size=0&pool_max_idle=60&pool_max_waiting=100"
    wanted = {
        "min_size": 0, "max_size": 20, "timeout": 10, "max_lifetime": 1800, "max_idle": 60, "max_waiting": 100
    }  # fmt: skip
    for scheme in ("mysql", "postgres"):
        assert from_url(f"{scheme}://h/n{query}")["OPTIONS"]["pool"] == wanted
        assert from_url(f"{scheme}://h/n")["OPTIONS"]["pool"] == databases._POOL


def test_from_url__mongodb__connection_string_without_the_password_and_object_ids():
    entry = from_url("mongodb://bra%40in:hunter2%2F@a:27017,b:27018/shop?replicaSet=rs0&w=majority")
    assert entry == {
        "ENGINE": "django_mongodb_backend",
        "NAME": "shop",
        "USER": "bra@in",
        "PASSWORD": "hunter2/",
        "HOST": "mongodb://a:27017,b:27018/shop?replicaSet=rs0&w=majority",
        "OPTIONS": {"serverSelectionTimeoutMS": 5000, "connectTimeoutMS": 5000},
        "CONN_MAX_AGE": 0,
    }
    assert databases.default_auto_field(entry).endswith("ObjectIdAutoField")
    assert from_url("mongodb+srv://c.example.com/shop")["HOST"] == "mongodb+srv://c.example.com/shop"
    # OPTIONS stand before the URL, whose own value in any case must win.
    assert "serverSelectionTimeoutMS" not in from_url("mongodb://h/n?serverselectiontimeoutms=9")["OPTIONS"]


def test_default_auto_field__sql__whole_numbers():
    assert databases.default_auto_field(from_url("mysql://h/n")) == "django.db.models.BigAutoField"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no scheme"),
        ("/var/db.sqlite3", "no scheme"),
        ("oracle://u:hunter2@h/n", "unknown scheme 'oracle'"),
        ("sqlite://", "file is missing"),
        ("sqlite:///", "file is missing"),
        ("sqlite:///a/dir/", "file is missing"),
        ("sqlite:///a?cache=shared", "not cache"),
        ("sqlite:///a?timeout=soon", "timeout is not a whole number"),
        ("postgres://u:hunter2@h", "database name is missing"),
        ("postgres://u:hunter2@h:port/n", "port is not a number"),
        ("postgres://u:hunter2/x@h/n", "percent-encode"),
        ("postgres://u:hunter2#x@h/n", "#"),
        ("postgres://u:hunter2@[::1/n", "IPv6"),
        ("postgres://h/n?pool_size=3", "use pool_min_size"),
        ("postgres://h/n?pool_max_size=many", "pool_max_size is not a whole number"),
        ("postgres://h/n?pool_max_size=0", "smaller"),
        ("postgres://h/n?pool_min_size=9", "smaller"),
        ("mysql://h/n?pool_size=3", "use pool_min_size"),
        ("mysql://h/n?pool_max_size=0", "smaller"),
        ("mongodb://u:hunter2@h", "database name is missing"),
        ("mongodb:///n", "host is missing"),
        ("mysql://h/n?connect_timeout=x", "connect_timeout is not a whole number"),
    ],
)
def test_from_url__unusable__one_line_names_the_fix_without_the_password(url, says):
    with pytest.raises(BadURL) as caught:
        from_url(url)
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert "hunter2" not in text


def test_require_driver__mysql_without_mysqlclient__names_the_requirements(monkeypatch):
    monkeypatch.setattr(databases, "find_spec", lambda name: None)
    with pytest.raises(BadURL, match=r"requirements-mysql\.txt"):
        databases.require_driver(from_url("mysql://h/n"))
    with pytest.raises(BadURL, match=r"requirements-mongo\.txt"):
        databases.require_driver(from_url("mongodb://h/n"))
    databases.require_driver(from_url("postgres://h/n"))
    databases.require_driver(from_url("sqlite:///a/b"))


def test_require_driver__mysqlclient_is_there__no_complaint(monkeypatch):
    monkeypatch.setattr(databases, "find_spec", lambda name: importlib.util.find_spec("json"))
    databases.require_driver(from_url("mysql://h/n"))


def test_from_url__several_postgresql_servers__the_driver_gets_them_all():
    entry = from_url("postgres://u:p@a,b:5433/name?target_session_attrs=read-write")
    assert (entry["HOST"], entry["PORT"], entry["USER"]) == ("a,b", "", "u")
    assert entry["OPTIONS"]["port"] == "5432,5433"
    assert entry["OPTIONS"]["target_session_attrs"] == "read-write"
    assert "port" not in from_url("postgres://u@a,[::1]/name")["OPTIONS"]


def test_from_url__replica__says_of_whom():
    entry = from_url("mysql://u@host/name", replica_of="default")
    assert (entry["REPLICA_OF"], entry["TEST"]) == ("default", {"MIRROR": "default"})
    with pytest.raises(BadURL, match="only postgres:// and mysql:// have replicas"):
        from_url("sqlite:///x", replica_of="default")
