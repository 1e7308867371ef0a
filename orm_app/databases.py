"""A database URL → Django's DATABASES entry, tuned for its engine.

sqlite:///abs/path · sqlite://relative/path · postgres://user:pass@host:5432/name?sslmode=require · mysql://… ·
mongodb://user:pass@host1,host2:27017/name?replicaSet=rs0 ·
postgres://user:pass@host1:5432,host2:5432/name?target_session_attrs=read-write (whichever is the primary now)
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

Entry = dict[str, Any]

_POSTGRESQL, _MYSQL, _MONGODB = "orm_app.postgresql", "orm_app.mysql_pool", "django_mongodb_backend"

_CONNECT_TIMEOUT_S = 5
# A process needs one connection as soon as it asks anything; many small processes must not hold more than they use.
_POOL = {"min_size": 1, "max_size": 8, "timeout": 10, "max_lifetime": 1800}  # timeout, max_lifetime: seconds
_REPLICA_PATIENCE_S = 2  # there is another server that can answer
_POOL_MORE = ("max_idle", "max_waiting")  # seconds; callers. Theirs are the pools' own defaults
_POOL_PREFIX = "pool_"  # ?pool_max_size=20 → OPTIONS["pool"]["max_size"]

# Measured with four writer and two reader processes: 33 % "database is locked" by default, none with WAL + IMMEDIATE.
# A longer timeout alone changes nothing: a deferred transaction that turns into a writer fails at once.
_SQLITE_TIMEOUT_S = 20
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=134217728; "
    "PRAGMA journal_size_limit=27103364; PRAGMA cache_size=2000;"
)
# Strict even where a server's configuration is not: a value that does not fit is an error, never cut.
_MYSQL_STRICT = "SET sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_TRANS_TABLES')"
_MONGODB_TIMEOUTS = {"serverSelectionTimeoutMS": 5000, "connectTimeoutMS": 5000}
_MYSQL_NUMBERS = {"connect_timeout", "read_timeout", "write_timeout"}  # seconds


class BadURL(ValueError):
    """The database URL cannot be used. The message names the fix and never holds the password."""


def from_url(url: str, replica_of: str | None = None) -> Entry:
    """Raises BadURL. The query becomes OPTIONS (`sslmode`, `connect_timeout`, `charset` …).

    replica_of: the alias of its primary; a replica gets reads only (`orm_app.router`).
    """
    entry = _entry(url)
    if replica_of is None:
        return entry
    if "pool_timeout=" not in url and "pool" in entry["OPTIONS"]:
        entry["OPTIONS"]["pool"]["timeout"] = _REPLICA_PATIENCE_S
    if entry["ENGINE"] not in (_POSTGRESQL, _MYSQL):
        raise BadURL(
            "only postgres:// and mysql:// have replicas; MongoDB's driver knows its own (?readPreference=…)"
        )
    # MIRROR is Django's word: its test runner makes one test database of the two.
    return entry | {"REPLICA_OF": replica_of, "TEST": {"MIRROR": replica_of}}


def _entry(url: str) -> Entry:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise BadURL("the host cannot be read: write an IPv6 address as [::1]") from None
    if parts.fragment:
        raise BadURL("it holds a '#': percent-encode it as %23")
    match parts.scheme.lower():
        case "sqlite":
            return _sqlite(parts)
        case "postgres" | "postgresql":
            return _postgresql(parts)
        case "mysql" | "mariadb":
            return _mysql(parts)
        case "mongodb" | "mongodb+srv":
            return _mongodb(parts)
        case "":
            raise BadURL(
                "it has no scheme: write sqlite:///path, postgres://user:password@host/name or mysql://…"
            )
        case scheme:
            raise BadURL(f"unknown scheme {scheme!r}: use sqlite, postgres, mysql or mongodb")


def require_driver(entry: Entry) -> None:
    """Raises BadURL when the engine's Python driver is not installed: Django would end in a traceback at setup."""
    if entry["ENGINE"] == _MYSQL and find_spec("MySQLdb") is None:
        raise BadURL(
            "mysql needs mysqlclient: pip install -r requirements-mysql.txt "
            "(first: apt install build-essential pkg-config python3-dev libmariadb-dev, or brew install mysql-client)"
        )
    if entry["ENGINE"] == _MONGODB and find_spec("django_mongodb_backend") is None:
        raise BadURL("mongodb needs django-mongodb-backend: pip install -r requirements-mongo.txt")


def default_auto_field(entry: Entry) -> str:
    """What primary keys are in this database, for DEFAULT_AUTO_FIELD or an AppConfig's default_auto_field."""
    if entry["ENGINE"] == _MONGODB:
        return "django_mongodb_backend.fields.ObjectIdAutoField"
    return "django.db.models.BigAutoField"


def _sqlite(parts: SplitResult) -> Entry:
    options = _query(parts)
    timeout_s = _number("timeout", options.pop("timeout", str(_SQLITE_TIMEOUT_S)))
    if options:
        raise BadURL(f"sqlite takes ?timeout=seconds only, not {', '.join(sorted(options))}")
    name = _sqlite_name(parts)
    entry: Entry = {
        "ENGINE": "orm_app.sqlite",
        "NAME": name,
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": timeout_s, "init_command": _SQLITE_PRAGMAS},
        "CONN_MAX_AGE": 0,
    }
    if name != ":memory:":
        # Django's in-memory test database has a shared cache, whose locks wait for nobody: threads would meet
        # "table is locked", which the file never says.
        path = PurePosixPath(name)
        entry["TEST"] = {"NAME": str(path.with_name(f"test_{path.name}"))}
    return entry


def _sqlite_name(parts: SplitResult) -> str:
    # After the two slashes of a URL comes the path as it is, so that sqlite:////abs (four slashes, as other tools
    # write an absolute path) and sqlite:///abs are the same file.
    name = unquote(parts.netloc + parts.path)
    if name.strip("/") == ":memory:":
        return ":memory:"
    if not name.strip("/") or name.endswith("/"):
        raise BadURL(
            "the file is missing: write sqlite:///absolute/path.sqlite3 or sqlite://relative/path.sqlite3"
        )
    return "/" + name.lstrip("/") if name.startswith("/") else name


def _postgresql(parts: SplitResult) -> Entry:
    query = _query(parts)
    pool = _pool(query)
    parts, hosts = _one_of_several(parts)
    query |= hosts
    options: dict[str, Any] = {"connect_timeout": str(_CONNECT_TIMEOUT_S)} | query
    entry = _server(_POSTGRESQL, parts, socket=options.pop("host", ""))
    return entry | {"OPTIONS": options | {"pool": pool}}


def _one_of_several(parts: SplitResult) -> tuple[SplitResult, dict[str, str]]:
    """postgres://user@a:5432,b:5432/name, as libpq writes the servers of which `target_session_attrs` chooses one."""
    credentials, at, places = parts.netloc.rpartition("@")
    if "," not in places:
        return parts, {}
    split = [
        place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "")
        for place in places.split(",")
    ]
    hosts = {"host": ",".join(unquote(host) for host, _, _ in split)}
    if any(port for _, _, port in split):
        hosts["port"] = ",".join(port or "5432" for _, _, port in split)
    return parts._replace(netloc=f"{credentials}{at}"), hosts


def _pool(query: dict[str, str]) -> dict[str, int]:
    """OPTIONS["pool"], the same for both servers. Takes its parameters out of the query."""
    names = [name for name in query if name.startswith(_POOL_PREFIX)]
    given = {name[len(_POOL_PREFIX) :]: query.pop(name) for name in names}
    known = (*_POOL, *_POOL_MORE)
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = [_POOL_PREFIX + name for name in known]
        raise BadURL(f"unknown pool parameter {_POOL_PREFIX}{unknown[0]}: use {', '.join(names)}")
    pool = _POOL | {name: _number(_POOL_PREFIX + name, value) for name, value in given.items()}
    if pool["max_size"] < max(1, pool["min_size"]):
        raise BadURL("pool_max_size is smaller than pool_min_size, or than 1")
    return pool


def _mysql(parts: SplitResult) -> Entry:
    query = _query(parts)
    pool = _pool(query)
    options: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "isolation_level": "read committed",
        "init_command": _MYSQL_STRICT,
    }
    options |= {
        name: _number(name, value) if name in _MYSQL_NUMBERS else value for name, value in query.items()
    }
    if "ssl_ca" in options:
        options["ssl"] = {"ca": options.pop("ssl_ca")}
    entry = _server(_MYSQL, parts, socket=options.pop("unix_socket", ""))
    return entry | {"OPTIONS": options | {"pool": pool}}


def _mongodb(parts: SplitResult) -> Entry:
    """HOST stays a connection string, as only pymongo knows its options; without the password, which is shown nowhere."""
    credentials, _, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise BadURL("the host is missing: write mongodb://host:27017/name")
    name = _database(parts)
    user, _, password = credentials.partition(":")
    # The driver's own is 30 s. It takes the names in any case, and OPTIONS before the URL.
    given = {option.lower() for option in _query(parts)}
    options = {name: ms for name, ms in _MONGODB_TIMEOUTS.items() if name.lower() not in given}
    query = f"?{parts.query}" if parts.query else ""
    return {
        "ENGINE": _MONGODB,
        "NAME": name,
        "USER": unquote(user),
        "PASSWORD": unquote(password),
        # With the path: it names the database that knows the user, unless authSource says otherwise.
        "HOST": f"{parts.scheme.lower()}://{hosts}{parts.path}{query}",
        "OPTIONS": options,
        "CONN_MAX_AGE": 0,  # its client is a pool of its own: maxPoolSize
    }


def _server(engine: str, parts: SplitResult, socket: str) -> Entry:
    """What a server's entry has apart from OPTIONS. socket: a directory or file of a unix socket, instead of a host."""
    return {
        "ENGINE": engine,
        "NAME": _database(parts),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": socket or unquote(parts.hostname or ""),
        "PORT": _port(parts),
        # A connection belongs to a thread, and under ASGI every request has a new one: kept connections would leak.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
    }


def _database(parts: SplitResult) -> str:
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise BadURL("the database name is missing: write …host/name")
    return name


def _port(parts: SplitResult) -> str:
    try:
        return str(parts.port or "")
    except ValueError:
        raise BadURL(
            "the port is not a number: percent-encode / ? # @ and : in the user name and the password"
        ) from None


def _query(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query, keep_blank_values=True))


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise BadURL(f"{name} is not a whole number")
    return int(value)
