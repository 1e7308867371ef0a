"""A database beside the one that was dumped, to restore into, dropped afterwards. What was killed leaves one: the next
removes it."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

PREFIX = "brain_verify_"
_OLD_S = 24 * 3600


class NotAllowed(Exception):
    """The account may not create a database."""


def new_name(prefix: str = PREFIX) -> str:
    return f"{prefix}{int(timezone.now().timestamp()):x}_{secrets.token_hex(3)}"


@contextlib.contextmanager
def database(connection: Any, create_sql: str) -> Iterator[str]:
    """create_sql: with {name}. Raises NotAllowed."""
    remove_old(connection)
    name = new_name()
    with connection.cursor() as cursor:
        try:
            cursor.execute(create_sql.format(name=name))
        except DatabaseError as error:
            raise NotAllowed(str(error).strip().splitlines()[0]) from error
    try:
        yield name
    finally:
        drop(connection, name)


def drop(connection: Any, name: str) -> None:
    with connection.cursor() as cursor:
        force = (
            " WITH (FORCE)" if getattr(connection, "pg_version", 0) >= 130000 else ""
        )  # a client that we killed
        cursor.execute(f"DROP DATABASE IF EXISTS {name}{force}")


def remove_old(connection: Any) -> None:
    """Only names of our own form, and only a day later: a younger one may be in use."""
    sql = (
        "SELECT datname FROM pg_database"
        if connection.vendor == "postgresql"
        else "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA"
    )
    now = timezone.now().timestamp()
    with connection.cursor() as cursor:
        cursor.execute(sql)
        names = [str(name) for (name,) in cursor.fetchall()]
    for name in names:
        made = re.fullmatch(r"brain_(?:verify|restore)_([0-9a-f]+)_[0-9a-f]{6}", name)
        if made and now - int(made[1], 16) > _OLD_S:
            with contextlib.suppress(DatabaseError):  # another account's
                drop(connection, name)
