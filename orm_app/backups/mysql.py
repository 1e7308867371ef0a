"""MySQL and MariaDB: their dump program, gzipped, in sections; verified and restored through a schema beside it.

The file is plain SQL for the client (`gunzip < FILE | mariadb NAME`), in the order tables, routines and triggers, views,
events. Events are never loaded into a scratch schema: they would run there.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import secrets
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from django.db import DatabaseError

from . import clients, contents, mysql_login, scratch
from .contents import mysql_quoted as quoted
from .dumps import Dumped, Replaced
from .files import Progress
from .manifest import ARCHIVE, RESTORED, BackupFailed, Contents, Manifest, Table, differences, refuse

SUFFIX = "sql.gz"
TABLES, CODE, VIEWS, EVENTS = "tables", "routines and triggers", "views", "events"
SECTIONS = (TABLES, CODE, VIEWS, EVENTS)

_HEAD = b"-- brain backup, MySQL format 1, sections marked "
_COMPLETE = b"-- Dump completed"
_HAS_BEGUN = b"-- Table structure for table"  # written after its snapshot was taken
_LOCK_S, _LOCK_ATTEMPTS, _LOCK_WAIT_TIMEOUT = 2, 4, 1205
_COMMON = ("--skip-lock-tables", "--no-tablespaces", "--hex-blob", "--default-character-set=utf8mb4")
_NO_TABLES = ("--no-data", "--no-create-info", "--skip-triggers")


def version(connection: Any) -> str:
    [[found]] = contents.asking(connection)("SELECT VERSION()")
    return str(found)


def major(version: str) -> int:
    """10.11 is 1011: the second number counts here."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return int(found[1]) * 100 + int(found[2]) if found else 0


def account(connection: Any) -> str:
    [[found]] = contents.asking(connection)("SELECT CURRENT_USER()")
    return str(found)


def dump(connection: Any, path: Path, progress: Progress) -> Dumped:
    program = clients.find(programs(connection, "dump"), package="the server's client programs")
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(_opened(connection))
        login = stack.enter_context(mysql_login.file(connection))
        writer = stack.enter_context(contextlib.closing(clients.Writer(path, progress, is_gzip=True)))
        mark = _HEAD + secrets.token_hex(8).encode()
        writer.add(mark + b"\n")
        command = _Command(program, login, str(connection.settings_dict["NAME"]), _views(own))
        notes = _mixed_engines(own)
        with _quiet_moment(connection, own) as moment:
            if moment.problem:
                notes.append(moment.problem)
            _section(writer, mark, TABLES, command.of(TABLES), moment)
            found = None if moment.problem else contents.mysql(contents.asking(own), progress)
        for name in SECTIONS[1:]:
            if name != VIEWS or command.views:
                _section(writer, mark, name, command.of(name))
    return Dumped(clients.version(program), writer.sha256(), writer.size, found, tuple(notes))


def check(
    connection: Any, path: Path, known: Manifest, progress: Progress
) -> tuple[str, str, Contents | None]:
    """How it was verified, a remark, and what is in it. Raises BackupFailed."""
    _read_through(path, progress)
    try:
        with scratch.database(connection, create_sql(connection)) as name:
            found = _load(connection, path, name, (TABLES, CODE, VIEWS), progress)
    except scratch.NotAllowed as error:
        return ARCHIVE, f"only the archive was read, nothing was restored: {error}", None
    if known.contents is not None:
        refuse(differences(known.contents, found), path.name)
    return RESTORED, "", found


def present(connection: Any) -> list[tuple[str, int]]:
    """The tables that a restore replaces, with their rows."""
    ask = contents.asking(connection)
    return [(name, int(ask(f"SELECT COUNT(*) FROM {quoted(name)}")[0][0])) for name in base_tables(ask)]  # noqa: S608


def replace(
    connection: Any, path: Path, known: Manifest, progress: Progress, *, keep_owners: bool
) -> Replaced:
    """Loaded into a schema beside the live one, compared, then swapped with one RENAME TABLE."""
    from . import mysql_swap  # it stands on this module

    return mysql_swap.replace(connection, path, known, progress)


# --- dumping -------------------------------------------------------------------------------------------------------------
class _Command:
    def __init__(self, program: str, login: Path, name: str, views: Sequence[str]) -> None:
        self._begin = [program, f"--defaults-file={login}", *_COMMON]
        if "MariaDB" not in clients.version(program):
            self._begin += ["--set-gtid-purged=OFF", "--column-statistics=0"]
        self._name, self.views = name, views

    def of(self, section: str) -> list[str]:
        if section == TABLES:
            without = [f"--ignore-table={self._name}.{view}" for view in self.views]
            return [*self._begin, "--single-transaction", "--quick", "--skip-triggers", *without, self._name]
        if section == CODE:
            return [*self._begin, "--no-data", "--no-create-info", "--routines", "--triggers", self._name]
        if section == VIEWS:
            return [*self._begin, "--no-data", "--skip-triggers", self._name, *self.views]
        return [*self._begin, *_NO_TABLES, "--events", self._name]


class _Moment:
    """While nobody writes. problem: why there is none; then the dump has a snapshot of its own, which we cannot count."""

    def __init__(self, locker: Any, problem: str) -> None:
        self._locker, self.problem = locker, problem

    def passes(self) -> None:
        if self._locker is not None:
            locker, self._locker = self._locker, None
            run(locker, "UNLOCK TABLES")


@contextlib.contextmanager
def _quiet_moment(connection: Any, own: Any) -> Iterator[_Moment]:
    """All tables are locked for reading until our transaction and the program's have both begun: they see the same.
    `passes` ends the lock; the transaction of `own` stays open for the block."""
    names = base_tables(contents.asking(own))
    with _opened(connection) as locker:
        problem = _lock(locker, names) if names else ""
        run(own, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        run(own, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        moment = _Moment(locker if names and not problem else None, problem)
        try:
            yield moment
            moment.passes()
        finally:
            run(own, "ROLLBACK")


def _lock(locker: Any, names: Sequence[str]) -> str:
    """Why they could not be locked. Who waits for a lock keeps others from writing: so not long, and a few times."""
    run(locker, f"SET SESSION lock_wait_timeout = {_LOCK_S}")
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            run(locker, "LOCK TABLES " + ", ".join(f"{quoted(name)} READ" for name in names))
            return ""
        except DatabaseError as error:
            problem = f"rows could not be counted in the dump's moment: {_first_line(error)}"
            if error.args[0] != _LOCK_WAIT_TIMEOUT:
                return problem
            time.sleep(attempt + 1.0)
    return problem


def _section(
    writer: clients.Writer, mark: bytes, name: str, command: list[str], moment: _Moment | None = None
) -> None:
    writer.add(mark + b" " + name.encode() + b"\n")
    tail = b""
    with clients.Child(command, stdout=subprocess.PIPE) as child:
        head = b""
        for chunk in clients.chunks(_pipe(child.process.stdout)):
            writer.add(chunk)
            tail = (tail + chunk)[-200:]
            if moment is not None and len(head) < 65536:
                head += chunk
                if _HAS_BEGUN in head or len(head) >= 65536:
                    moment.passes()
        child.finish()
    if _COMPLETE not in tail:
        raise BackupFailed(f"{child.name} ended without saying that the dump is complete")


def dump_code(connection: Any, path: Path, views: Sequence[str]) -> None:
    """Everything but the tables, into `path`. Views whose tables are gone are left out: nobody can create them."""
    program = clients.find(programs(connection, "dump"), package="the server's client programs")
    with mysql_login.file(connection) as login, path.open("wb") as file:
        command = _Command(program, login, str(connection.settings_dict["NAME"]), views)
        for name in (CODE, EVENTS):
            with clients.Child(command.of(name), stdout=file) as child:
                child.finish()
        if views:
            with clients.Child([*command.of(VIEWS), "--force"], stdout=file) as child:
                child.process.wait()


def _mixed_engines(own: Any) -> list[str]:
    rows = contents.asking(own)(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB' ORDER BY 1"
    )
    names = ", ".join(str(name) for (name,) in rows)
    return (
        [f"not InnoDB, so not of one moment with the rest if written to meanwhile: {names}"] if names else []
    )


def _views(own: Any) -> list[str]:
    rows = contents.asking(own)(
        "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1"
    )
    return [str(name) for (name,) in rows]


def base_tables(ask: contents.Ask) -> list[str]:
    rows = ask(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1"
    )
    return [str(name) for (name,) in rows]


# --- reading -------------------------------------------------------------------------------------------------------------
def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each line with its section. Raises BackupFailed when the file is not whole."""
    section, mark, seen, is_complete = "", b"", [], True
    try:
        with gzip.open(path, "rb") as file:
            mark = file.readline().rstrip(b"\n")
            if not mark.startswith(_HEAD):
                raise BackupFailed(f"{path.name} is not a backup of ours")
            for line in file:
                if line.startswith(mark):
                    if not is_complete:
                        break
                    section, is_complete = line[len(mark) + 1 :].decode().strip(), False
                    seen.append(section)
                    continue
                is_complete = is_complete or line.startswith(_COMPLETE)
                yield section, line
    except (OSError, EOFError, zlib.error) as error:
        raise BackupFailed(f"{path.name} is damaged: {error}") from error
    if not is_complete or [name for name in SECTIONS if name not in (VIEWS, *seen)]:
        raise BackupFailed(f"{path.name} is cut off in its part {section!r}")


def _read_through(path: Path, progress: Progress) -> None:
    done = 0
    for _, line in lines(path):
        done += len(line)
        progress("reading the archive", done, None)


def _load(connection: Any, path: Path, name: str, sections: Sequence[str], progress: Progress) -> Contents:
    """Those sections into the schema `name`; what it holds then."""
    feed(connection, (line for section, line in lines(path) if section in sections), name, progress)
    with _opened(connection, name) as copy:
        return contents.mysql(contents.asking(copy), progress)


def load_tables(connection: Any, path: Path, name: str, progress: Progress) -> tuple[Table, ...]:
    return _load(connection, path, name, (TABLES,), progress).tables


def feed(connection: Any, sql: Iterator[bytes], name: str, progress: Progress) -> None:
    """SQL into the engine's client, in the schema `name`. Raises BackupFailed."""
    program = clients.find(programs(connection, "client"), package="the server's client programs")
    with mysql_login.file(connection) as login:
        command = [
            program,
            f"--defaults-file={login}",
            "--default-character-set=utf8mb4",
            "--binary-mode",
            name,
        ]
        with clients.Child(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            stdin, done = _pipe(child.process.stdin), 0
            try:
                for line in sql:
                    stdin.write(line)
                    done += len(line)
                    progress("restoring", done, None)
                stdin.flush()
            except BrokenPipeError:
                pass  # what it said about it comes next
            child.finish()


def programs(connection: Any, kind: str) -> list[str]:
    names = ["mariadb-dump", "mysqldump"] if kind == "dump" else ["mariadb", "mysql"]
    return names if "mariadb" in version(connection).lower() else names[::-1]


def create_sql(connection: Any) -> str:
    [[charset, collation]] = contents.asking(connection)(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA "
        "WHERE SCHEMA_NAME = DATABASE()"
    )
    return f"CREATE DATABASE {{name}} CHARACTER SET {charset} COLLATE {collation}"


@contextlib.contextmanager
def _opened(connection: Any, name: str | None = None) -> Iterator[Any]:
    with clients.opened(connection, name) as own:
        for sql in contents.MYSQL_SETTINGS:
            run(own, sql)
        yield own


def run(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    if file is None:
        raise BackupFailed("the program has no pipe")
    return file
