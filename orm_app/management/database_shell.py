"""`manage.py database shell`: the engine's own client, logged in; read-only where wanted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from foundation.commands import BrainCommand, Failed
from orm_app import backups, migrate

_INSTALL = {
    "psql": "Install PostgreSQL's client (apt install postgresql-client, brew install libpq).",
    "mysql": "Install the server's client (apt install mariadb-client, brew install mariadb).",
    "sqlite3": "Install it (apt install sqlite3); macOS has it.",
}


def define(command: BrainCommand) -> None:
    parser = command.verb("shell", _Shell(command).run, "The engine's own client: psql, mariadb or sqlite3.")
    parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="The alias.")
    parser.add_argument(
        "--read-only", action="store_true", help="Statements that write are refused: guards against a slip."
    )
    parser.add_argument(
        "-c", "--sql", help="Run this and leave. Without it: a prompt, or SQL from standard input."
    )
    parser.add_argument("parameters", nargs="*", help="More for the client itself, after --.")


class _Shell:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def run(self, database: str, read_only: bool, sql: str | None, parameters: list[str], **_: Any) -> int:
        connection: Any = connections[database]
        command, more = invocation(connection, is_read_only=read_only, sql=sql, parameters=parameters)
        if not read_only:
            with contextlib.suppress(DatabaseError):  # a shell is also for a database that is not well
                backups.record("database.shell", database, actor=migrate.operator(), source="cli", after={})
        connection.close()
        with _interrupts_are_the_clients():
            try:
                return subprocess.run(command, env=backups.environment(**more), check=False).returncode
            except FileNotFoundError:
                raise Failed(f"{command[0]} is not installed", _INSTALL.get(command[0], "")) from None


def invocation(
    connection: Any, *, is_read_only: bool, sql: str | None, parameters: list[str]
) -> tuple[list[str], dict[str, str]]:
    """The client's command line, and its environment beside ours: the password stands there, never on the line."""
    extra = list(parameters)
    if connection.vendor == "postgresql":
        extra += ["-v", "ON_ERROR_STOP=1", "-c", sql] if sql else []
        options = str(connection.settings_dict["OPTIONS"].get("options", ""))
        if is_read_only:
            options = f"{options} -c default_transaction_read_only=on".strip()
        command, env = _of_django(connection, extra)
        return command, env | ({"PGOPTIONS": options} if options else {})
    if connection.vendor == "mysql":
        extra += ["--init-command=SET SESSION TRANSACTION READ ONLY"] if is_read_only else []
        extra += [f"--execute={sql}"] if sql else []
        return _of_django(connection, extra)
    if connection.vendor == "sqlite":
        if connection.is_in_memory_db():
            raise Failed("a database in memory has no file that another program could open")
        command = [
            "sqlite3",
            *(["-readonly"] if is_read_only else []),
            *extra,
            str(connection.settings_dict["NAME"]),
        ]
        return command + ([sql] if sql else []), {}
    raise Failed(f"there is no shell for {connection.display_name} here", "Use its own client: mongosh.")


def _of_django(connection: Any, parameters: list[str]) -> tuple[list[str], dict[str, str]]:
    command, env = connection.client.settings_to_cmd_args_env(connection.settings_dict, parameters)
    return command, env or {}


@contextlib.contextmanager
def _interrupts_are_the_clients() -> Iterator[None]:
    """Ctrl-C ends a statement there, not us."""
    was = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, was)
