"""The restore of MySQL and MariaDB: beside the live schema, then one RENAME TABLE, and back again when it goes wrong.

The tables change places at once. Routines, triggers, views and events cannot be renamed into another schema: they are
replaced right before and after, and put back when something fails.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import DatabaseError

from . import clients, contents, mysql, scratch
from .contents import mysql_quoted as quoted
from .dumps import Replaced
from .files import Progress
from .manifest import BackupFailed, Contents, Manifest, differences, refuse

_LOCK_S = 30
NEW, OLD = "brain_restore_", "brain_old_"


def replace(connection: Any, path: Path, known: Manifest, progress: Progress) -> Replaced:
    live = str(connection.settings_dict["NAME"])
    new, old = scratch.new_name(NEW), scratch.new_name(OLD)
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(clients.opened(connection))
        for name in (new, old):
            _create(own, connection, name)
            stack.callback(scratch.drop, own, name)
        tables = mysql.load_tables(connection, path, new, progress)
        if known.contents is not None:
            refuse(differences(Contents(known.contents.tables), Contents(tables)), "what was restored")
        saved = stack.enter_context(_saved_code(connection))
        progress("swapping", 0, None)
        moved = _swap(own, live, new, old, saved, connection)
        try:
            mysql.feed(connection, _code(path), live, progress)
        except BaseException:
            _undo(own, live, new, old, moved, saved, connection)
            raise
    with clients.opened(connection) as fresh:
        return Replaced(contents.mysql(contents.asking(fresh), progress))


def _create(own: Any, connection: Any, name: str) -> None:
    try:
        mysql.run(own, mysql.create_sql(connection).format(name=name))
    except DatabaseError as error:
        user = str(connection.settings_dict.get("USER") or "the user")
        raise BackupFailed(
            f"a restore needs a second schema for a while, and the account may not create one: {error}",
            f"GRANT ALL ON `brain\\_%`.* TO {user}; then restore again.",
        ) from error


def _swap(
    own: Any, live: str, new: str, old: str, saved: Path, connection: Any
) -> tuple[list[str], list[str]]:
    """Returns the names that went and those that came."""
    went, came = _movable(own, live), _movable(own, new)
    _drop_code(own, live)
    try:
        _rename(own, [(live, old, name) for name in went] + [(new, live, name) for name in came])
    except BaseException as error:
        _put_back(connection, live, saved)
        if isinstance(error, DatabaseError):
            raise BackupFailed(
                f"the tables could not change places ({error}); they are as they were"
            ) from error
        raise
    return went, came


def _undo(
    own: Any, live: str, new: str, old: str, moved: tuple[list[str], list[str]], saved: Path, connection: Any
) -> None:
    went, came = moved
    _drop_code(own, live)
    _rename(own, [(live, new, name) for name in came] + [(old, live, name) for name in went])
    _put_back(connection, live, saved)


def _rename(own: Any, moves: list[tuple[str, str, str]]) -> None:
    if not moves:
        return
    mysql.run(own, f"SET SESSION foreign_key_checks = 0, lock_wait_timeout = {_LOCK_S}")
    each = (f"{quoted(a)}.{quoted(name)} TO {quoted(b)}.{quoted(name)}" for a, b, name in moves)
    mysql.run(own, "RENAME TABLE " + ", ".join(each))


def _movable(own: Any, schema: str) -> list[str]:
    with own.cursor() as cursor:
        cursor.execute(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s "
            "AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') ORDER BY 1",
            [schema],
        )
        return [str(name) for (name,) in cursor.fetchall()]


_CODE_SQL = (
    "SELECT 'VIEW', TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s "
    "UNION ALL SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s "
    "UNION ALL SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s "
    "UNION ALL SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s"
)


def _code_of(own: Any, schema: str) -> list[tuple[str, str]]:
    with own.cursor() as cursor:
        cursor.execute(_CODE_SQL, [schema] * 4)
        return [(str(kind), str(name)) for kind, name in cursor.fetchall()]


def _drop_code(own: Any, schema: str) -> None:
    for kind, name in _code_of(own, schema):
        mysql.run(own, f"DROP {kind} IF EXISTS {quoted(schema)}.{quoted(name)}")


@contextlib.contextmanager
def _saved_code(connection: Any) -> Iterator[Path]:
    """Routines, triggers, views and events of the live schema, to be put back. Empty where there are none."""
    with tempfile.NamedTemporaryFile(prefix="brain-code-") as file, clients.opened(connection) as own:
        found = _code_of(own, str(connection.settings_dict["NAME"]))
        if found:
            mysql.dump_code(connection, Path(file.name), [name for kind, name in found if kind == "VIEW"])
        yield Path(file.name)


def _put_back(connection: Any, live: str, saved: Path) -> None:
    if saved.stat().st_size:
        with saved.open("rb") as file:
            mysql.feed(connection, iter(file), live, lambda step, done, total: None)


def _code(path: Path) -> Iterator[bytes]:
    return (line for section, line in mysql.lines(path) if section != mysql.TABLES)
