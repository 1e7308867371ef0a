"""MongoDB through django-mongodb-backend: what it does in another way than a SQL database.

The one module that imports the driver, and only inside functions: it is an optional package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.core.exceptions import EmptyResultSet, ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, NotSupportedError, OperationalError, connections, models
from django.db.transaction import Atomic, TransactionManagementError

ENGINE = "django_mongodb_backend"
AUTO_FIELD = "django_mongodb_backend.fields.ObjectIdAutoField"
# Of the driver's errors, which go on with what it knows of every server.
_DETAILS = (" (configured timeouts:", ", Timeout:", ", Topology Description:", ", full error:")
_DUPLICATE = 11000
_COMMITS = 3  # tries: the server may have committed already when its answer was lost, and says so


def is_on(alias: str) -> bool:
    """Of the settings: a connection belongs to a thread, and this is asked in the loop's too."""
    return bool(connections.settings.get(alias, {}).get("ENGINE") == ENGINE)


def key_field(*, is_primary: bool) -> Any:
    """Django's field for OBJECTID. Raises ImproperlyConfigured without the package."""
    try:
        from django_mongodb_backend.fields import ObjectIdAutoField, ObjectIdField
    except ImportError as error:
        raise ImproperlyConfigured(
            "OBJECTID needs django-mongodb-backend: pip install -r requirements-mongo.txt"
        ) from error
    return ObjectIdAutoField if is_primary else ObjectIdField


@contextmanager
def errors_as_djangos() -> Iterator[None]:
    """The backend hands some of the driver's errors on as they are, and others as a DatabaseError without a text."""
    from pymongo.errors import PyMongoError

    try:
        yield
    except PyMongoError as error:
        raise django_error(error) from error
    except DatabaseError as error:
        if not str(error) and isinstance(error.__cause__, PyMongoError):
            raise type(error)(reason(error.__cause__)) from error.__cause__
        raise


def errors_as_djangos_on(alias: str) -> AbstractContextManager[None]:
    return errors_as_djangos() if is_on(alias) else nullcontext()


def django_error(error: Any) -> DatabaseError:
    from pymongo.errors import ConnectionFailure

    codes = {getattr(error, "code", None), *(one.get("code") for one in _write_errors(error))}
    if _DUPLICATE in codes:
        return IntegrityError(reason(error))
    return (OperationalError if isinstance(error, ConnectionFailure) else DatabaseError)(reason(error))


def reason(error: BaseException) -> str:
    """The driver's text without what it knows of each server; of many writes at once the first that failed."""
    text = next((str(one.get("errmsg")) for one in _write_errors(error)), str(error))
    for begin in _DETAILS:
        text = text.partition(begin)[0]
    return text or type(error).__name__


def _write_errors(error: Any) -> list[dict[str, Any]]:
    return list((getattr(error, "details", None) or {}).get("writeErrors", ()))


def ping(connection: Any, timeout_s: float) -> None:
    """Raises OperationalError when the server does not answer in time."""
    import pymongo

    with errors_as_djangos(), pymongo.timeout(timeout_s):
        connection.ensure_connection()
        connection.connection.admin.command("ping")


def version(connection: Any) -> str:
    with errors_as_djangos():
        connection.ensure_connection()
        return str(connection.connection.server_info()["version"])


def hosts(entry: Mapping[str, Any]) -> str:
    """The servers of a DATABASES entry; its query may hold secrets."""
    found: str = str(entry.get("HOST") or "").partition("://")[2].partition("/")[0].partition("?")[0]
    return found.rpartition("@")[2]


def pipeline(queryset: Any) -> str:
    """What the query sends, as a person would write it into the shell. Does not ask the server."""
    from bson import json_util

    query = queryset.query
    compiler = query.get_compiler(queryset.db)
    compiler.pre_sql_setup()
    needs_columns = query.annotations or not query.default_cols or query.distinct
    try:
        stages = compiler.build_query(compiler.columns if needs_columns else None).get_pipeline()
    except EmptyResultSet:  # it is known to be empty, and not sent
        stages = [{"$match": {"$expr": False}}]
    return f"db.{compiler.collection_name}.aggregate({json_util.dumps(stages)})"


def explain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`analyze=True` as on the other engines: MongoDB calls it a verbosity."""
    found = dict(options)
    if found.pop("analyze", False):
        found.setdefault("verbosity", "executionStats")
    return found


def is_transient(error: BaseException) -> bool:
    has_label = getattr(error, "has_error_label", None)
    return bool(has_label and has_label("TransientTransactionError"))


# --- rows -----------------------------------------------------------------------------------------------------------
def upsert(
    model: type[models.Model], rows: list[Any], alias: str, unique: Sequence[str], update: Sequence[str]
) -> None:
    """By the server's own upsert. A row whose key has a None is new: it is equal to nothing."""
    from pymongo import InsertOne, UpdateOne

    connection: Any = connections[alias]
    keys, changing = (_columns(model, names) for names in (unique, update))
    writes: list[Any] = []
    for row in rows:
        document = _document(row, connection)
        if any(document.get(name) is None for name in keys):
            writes.append(InsertOne(document))
            continue
        fresh = {name: value for name, value in document.items() if name not in {*keys, *changing}}
        change = {"$set": {name: document[name] for name in changing}} | (
            {"$setOnInsert": fresh} if fresh else {}
        )
        writes.append(UpdateOne({name: document[name] for name in keys}, change, upsert=True))
    with errors_as_djangos():
        connection.ensure_connection()
        collection = connection.database[model._meta.db_table]
        collection.bulk_write(writes, session=connection.session)


def _document(row: models.Model, connection: Any) -> dict[str, Any]:
    """As the backend's own INSERT makes it; the key is left to the server."""
    document: dict[str, Any] = {}
    for field in row._meta.local_concrete_fields:
        value = field.get_db_prep_save(field.pre_save(row, add=True), connection=connection)
        if value is None and field.primary_key:
            continue
        if value is None and not field.null:
            raise IntegrityError(f"{row._meta.label}.{field.name} may not be NULL")
        document[field.column] = value
    return document


def _columns(model: type[models.Model], names: Sequence[str]) -> list[str]:
    return [str(model._meta.get_field(name).column) for name in names]


# --- transactions ---------------------------------------------------------------------------------------------------
def atomic(alias: str, *, savepoint: bool = True, durable: bool = False) -> Atomic:
    """Django's atomic; on MongoDB, where that one does nothing, ours."""
    return (MongoAtomic if is_on(alias) else Atomic)(alias, savepoint, durable)


def atomic_where_possible(alias: str) -> Atomic:
    """For rows that belong together: a MongoDB server without transactions stores them one after the other."""
    connection: Any = connections[alias]
    if is_on(alias) and not connection.in_atomic_block_mongo and not has_transactions(connection):
        return Atomic(alias, False, False)
    return atomic(alias, savepoint=False)


def is_in_block(alias: str) -> bool:
    """Of MongoDB: in a transaction of the server's."""
    connection: Any = connections[alias]
    return bool(connection.in_atomic_block_mongo)


def has_transactions(connection: Any) -> bool:
    """A replica set or a sharded cluster; of any size. Asked once."""
    with errors_as_djangos():
        return bool(connection.features._supports_transactions)


class MongoAtomic(Atomic):
    """The outermost one is a transaction of the server's. One inside it joins: MongoDB has no savepoints, so an
    exception that leaves it takes all of the transaction with it, and going on after that is an error at the end."""

    using: str

    def __enter__(self) -> None:
        connection: Any = connections[self.using]
        is_outermost = not connection.in_atomic_block_mongo
        if is_outermost:
            if not has_transactions(connection):
                raise NotSupportedError(
                    f"{hosts(connection.settings_dict)} has no transactions: a MongoDB server alone has none, a replica "
                    "set has (of one member too)"
                )
            connection.start_transaction_mongo()
            connection.in_atomic_block_mongo = True
        try:
            super().__enter__()
        except BaseException:
            if is_outermost:
                _abandon(connection)
            raise
        connection._brain_blocks = getattr(connection, "_brain_blocks", 0) + 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        connection: Any = connections[self.using]
        connection._brain_blocks -= 1
        is_broken = connection.needs_rollback
        super().__exit__(kind, error, trace)
        if connection._brain_blocks:
            return
        if kind is not None or is_broken:
            _abandon(connection)
        else:
            _commit(connection)
        if kind is None and is_broken:
            raise TransactionManagementError(
                "a block inside this transaction, or a write of it, failed and its error was caught: everything was "
                "rolled back. MongoDB has no savepoints"
            )


def _commit(connection: Any) -> None:
    session, connection.in_atomic_block_mongo = connection.session, False
    try:
        with errors_as_djangos():
            _commit_session(session)
    except BaseException:
        _abandon(connection)
        raise
    session.end_session()
    connection.session = None
    # Django refuses hooks inside a block of its own, which is open when atomic() stands around ours.
    was_inside, connection.in_atomic_block = connection.in_atomic_block, False
    try:
        connection.run_and_clear_commit_hooks()
    finally:
        connection.in_atomic_block = was_inside


def _commit_session(session: Any) -> None:
    from pymongo.errors import PyMongoError

    for left in reversed(range(_COMMITS)):
        try:
            session.commit_transaction()
            return
        except PyMongoError as error:
            if not left or not error.has_error_label("UnknownTransactionCommitResult"):
                raise


def _abandon(connection: Any) -> None:
    """Never raises the driver's error over the one that brought us here: the server drops what is not committed."""
    from pymongo.errors import PyMongoError

    connection.in_atomic_block_mongo = False
    session, connection.session = connection.session, None
    connection.run_on_commit = []
    if session is None:
        return
    try:
        if session.in_transaction:
            session.abort_transaction()
    except PyMongoError:
        pass
    finally:
        session.end_session()
