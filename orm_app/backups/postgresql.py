"""PostgreSQL: pg_dump's custom format, within a snapshot that we count in too; put back in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from psycopg.conninfo import make_conninfo

from . import clients, contents, scratch
from .dumps import Dumped, Replaced
from .files import Progress
from .manifest import ARCHIVE, RESTORED, BackupFailed, Contents, Manifest, differences, refuse

SUFFIX = "pgdump"
_PACKAGE = "PostgreSQL's client programs (postgresql-client)"
_LOCK_S = 30
_NOT_LIBPQ = (
    "dbname",
    "password",
    "passfile",
    "cursor_factory",
    "context",
    "prepare_threshold",
    "client_encoding",
)


def version(connection: Any) -> str:
    [[found]] = contents.asking(connection)("SHOW server_version")
    return str(found)


def major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def account(connection: Any) -> str:
    [[found]] = contents.asking(connection)("SELECT current_user")
    return str(found)


def dump(connection: Any, path: Path, progress: Progress) -> Dumped:
    server = major(version(connection))
    program = clients.find(["pg_dump"], at_least=server, package=_PACKAGE)
    # --snapshot: pg_dump and we see the same moment, while others write.
    with clients.opened(connection) as own, _login(connection) as conninfo:
        ask = _session(own)
        ask.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        [[snapshot]] = ask("SELECT pg_export_snapshot()")
        sequences = contents.postgresql_sequences(ask)
        command = [program, "--format=custom", "--no-password", f"--snapshot={snapshot}"]
        command += [f"--lock-wait-timeout={_LOCK_S * 1000}", f"--dbname={conninfo}"]
        writer = clients.Writer(path, progress)
        with contextlib.closing(writer), clients.Child(command, stdout=subprocess.PIPE) as child:
            for chunk in clients.chunks(_pipe(child.process.stdout)):
                writer.add(chunk)
            child.finish()
        found = contents.postgresql(ask, progress, sequences)
        ask.run("ROLLBACK")
    return Dumped(clients.version(program), writer.sha256(), writer.size, found)


def check(
    connection: Any, path: Path, known: Manifest, progress: Progress
) -> tuple[str, str, Contents | None]:
    """How it was verified, a remark, and what is in it. Raises BackupFailed."""
    program = _pg_restore(connection, known)
    _listed(program, path)
    try:
        with scratch.database(connection, _create_sql(connection)) as name:
            with clients.opened(connection, name) as copy, _login(connection, name) as conninfo:
                command = [program, "--no-password", "--exit-on-error", "--no-owner", "--no-privileges"]
                command += ["--no-comments"]
                progress("restoring into a scratch database", 0, None)
                with clients.Child([*command, f"--dbname={conninfo}", str(path)]) as child:
                    child.finish()
                found = contents.postgresql(_session(copy), progress)
                copy.close()
            if known.contents is not None:
                refuse(differences(known.contents, found), path.name)
            return RESTORED, "", found
    except scratch.NotAllowed as error:
        return ARCHIVE, f"only the archive was read, nothing was restored: {error}", None
    except BackupFailed as error:
        if "permission denied to create extension" in str(error):
            return ARCHIVE, f"only the archive was read, it could not be restored: {error}", None
        raise


def replace(
    connection: Any, path: Path, known: Manifest, progress: Progress, *, keep_owners: bool
) -> Replaced:
    """One transaction of psql: what is there goes, the dump comes, its tables are compared, and then it commits."""
    program = _pg_restore(connection, known)
    psql = clients.find(["psql"], at_least=1, package=_PACKAGE)
    with (
        _login(connection) as conninfo,
        tempfile.TemporaryFile() as answers,
        clients.secret_file(_wanted(_listed(program, path))) as wanted,
    ):
        read = [program, "--exit-on-error", "--file=-", f"--use-list={wanted}"]
        read += [] if keep_owners else ["--no-owner", "--no-privileges"]
        command = [psql, "-XqAtw", "-F", _Psql.FIELD, "-v", "ON_ERROR_STOP=1", "-d", conninfo]
        with clients.Child(command, stdin=subprocess.PIPE, stdout=answers) as child:
            session = _Psql(child, answers)
            session.send(f"BEGIN; SET lock_timeout = '{_LOCK_S}s'; {_DROP_ALL}\n")
            with clients.Child([*read, str(path)], stdout=subprocess.PIPE) as reader:
                done = 0
                for chunk in clients.chunks(_pipe(reader.process.stdout)):
                    done += len(chunk)
                    progress("restoring", done, None)
                    session.feed(chunk)
                reader.finish()
            # No empty statement in between: psql 15 reads past everything that follows one behind the data of a COPY.
            session.send("\n" + ";\n".join(contents.POSTGRESQL_SETTINGS) + ";\n")
            found = contents.postgresql(session, progress)
            if known.contents is not None:
                refuse(differences(known.contents, found), "what was restored (it is taken back)")
            session("COMMIT")
            child.finish()
    return Replaced(found)


def present(connection: Any) -> list[tuple[str, int]]:
    """The tables that a restore replaces, with their rows."""
    ask = contents.asking(connection)
    return [(name, int(ask(count)[0][0])) for name, count in contents.postgresql_counts(ask)]


def _pg_restore(connection: Any, known: Manifest) -> str:
    newest = max(major(version(connection)), major(known.tool.rpartition(") ")[2] or "0"))
    return clients.find(["pg_restore"], at_least=newest, package=_PACKAGE)


def _listed(program: str, path: Path) -> str:
    """The archive's table of contents. Raises BackupFailed when it cannot be read."""
    with clients.Child([program, "--list", str(path)], stdout=subprocess.PIPE) as child:
        found = b"".join(clients.chunks(_pipe(child.process.stdout)))
        child.finish()
    return found.decode(errors="replace")


def _wanted(listed: str) -> str:
    """Extensions stay as they are, and their comments belong to who made them: often not the account that restores."""
    return "\n".join(line for line in listed.splitlines() if " COMMENT - EXTENSION " not in line) + "\n"


def _create_sql(connection: Any) -> str:
    """CREATE DATABASE {name}, in the encoding and the order of the one that was dumped."""
    [[encoding, collate, ctype]] = contents.asking(connection)(
        "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = current_database()"
    )
    as_text = [str(one).replace("'", "''") for one in (encoding, collate, ctype)]
    return (
        "CREATE DATABASE {name} TEMPLATE template0 "
        f"ENCODING '{as_text[0]}' LC_COLLATE '{as_text[1]}' LC_CTYPE '{as_text[2]}'"
    )


def _session(connection: Any) -> Any:
    ask = contents.asking(connection)

    class Session:
        def __call__(self, sql: str) -> Sequence[Sequence[Any]]:
            return ask(sql)

        def run(self, sql: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql)

    session = Session()
    for sql in contents.POSTGRESQL_SETTINGS:
        session.run(sql)
    return session


@contextlib.contextmanager
def _login(connection: Any, name: str | None = None) -> Iterator[str]:
    """A connection string without the password, which stands in a file while the block runs."""
    settings = connection.settings_dict
    options = settings.get("OPTIONS", {})
    given = {key: value for key, value in connection.get_connection_params().items() if key not in _NOT_LIBPQ}
    given = {key: value for key, value in given.items() if isinstance(value, str | int)}
    given["dbname"] = name or settings["NAME"] or ""
    if options.get("passfile"):
        given["passfile"] = options["passfile"]
    if options.get("assume_role"):
        given["options"] = f"{given.get('options', '')} -c role={options['assume_role']}".strip()
    given = {key: value for key, value in given.items() if value != ""}
    if not settings.get("PASSWORD"):
        yield make_conninfo(**given)
        return
    password = str(settings["PASSWORD"]).replace("\\", "\\\\").replace(":", "\\:")
    with clients.secret_file(f"*:*:*:*:{password}\n") as passfile:
        yield make_conninfo(**given | {"passfile": str(passfile)})


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    if file is None:
        raise BackupFailed("the program has no output")
    return file


class _Psql:
    """A psql that is fed by us and asked like a cursor. Nothing is committed unless we say so: at the end of its
    input it leaves, and the server takes back what was not committed."""

    FIELD = "\x1f"
    _END = "brain-end"
    _POLL_S = 0.01

    def __init__(self, child: clients.Child, answers: IO[bytes]) -> None:
        self._child, self._answers, self._read, self._asked = child, answers, 0, 0

    def send(self, sql: str) -> None:
        self.feed(sql.encode())

    def feed(self, text: bytes) -> None:
        stdin = self._child.process.stdin
        if stdin is None:
            raise BackupFailed("psql takes no input")
        try:
            stdin.write(text)
        except BrokenPipeError:
            self._ended()

    def _ended(self) -> NoReturn:
        self._child.process.wait()
        said = self._child.said()
        hint = (
            "Something has a transaction open: see `manage.py database locks`."
            if "lock timeout" in said
            else ""
        )
        raise BackupFailed(f"psql failed, and nothing was changed: {said or 'it said nothing'}", hint)

    def __call__(self, sql: str) -> Sequence[Sequence[Any]]:
        self._asked += 1
        end, begin = f"{self._END}-{self._asked}", f"{self._END}-before-{self._asked}"
        self.send(f"SELECT '{begin}';\n{sql};\nSELECT '{end}';\n")
        with contextlib.suppress(BrokenPipeError):
            if self._child.process.stdin is not None:
                self._child.process.stdin.flush()
        lines = self._until(end)
        return [line.split(self.FIELD) for line in lines[lines.index(begin) + 1 : -1]]

    def _until(self, end: str) -> list[str]:
        while True:
            has_ended = self._child.process.poll() is not None
            # Its offset is psql's too: pread leaves it alone.
            size = os.fstat(self._answers.fileno()).st_size
            text = os.pread(self._answers.fileno(), size - self._read, self._read).decode()
            lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
            if end in lines:
                self._read = size
                return lines
            if has_ended:
                self._ended()
            time.sleep(self._POLL_S)


# What belongs to an extension stays. Names are put together by the server (%I, regprocedure, regtype).
_DROP_ALL = """
DO $brain$
DECLARE it record;
BEGIN
  FOR it IN SELECT n.nspname FROM pg_namespace n WHERE left(n.nspname, 3) <> 'pg_'
      AND n.nspname NOT IN ('information_schema', 'public') AND NOT EXISTS (SELECT 1 FROM pg_depend d
        WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
      AND NOT EXISTS (SELECT 1 FROM pg_extension e WHERE e.extnamespace = n.oid) LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', it.nspname);
  END LOOP;
  FOR it IN SELECT n.nspname, c.relname, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
        WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND left(n.nspname, 3) <> 'pg_'
      AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT 1 FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
      ORDER BY c.relkind = 'S' LOOP
    EXECUTE format('DROP %s IF EXISTS %I.%I CASCADE', it.kind, it.nspname, it.relname);
  END LOOP;
  FOR it IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT 1
        FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i')) LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', it.name);
  END LOOP;
  FOR it IN SELECT pubname FROM pg_publication LOOP
    EXECUTE format('DROP PUBLICATION %I', it.pubname);
  END LOOP;
  FOR it IN SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
      WHERE t.typtype IN ('e', 'd', 'r') AND left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT 1 FROM pg_depend d
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e') LOOP
    EXECUTE format('DROP TYPE IF EXISTS %I.%I CASCADE', it.nspname, it.typname);
  END LOOP;
END $brain$;
"""
