"""What InnoDB copies or locks. Pure. Which change needs which algorithm: MySQL's manual, Online DDL Operations."""

from __future__ import annotations

from collections.abc import Iterator

from . import changes as c
from .changes import ERROR, WARNING, Change, Subject
from .rules_any import Said
from .types import is_widening

_NAME_CHARACTERS = 64
_TOOL = "On a large table use gh-ost or pt-online-schema-change."


def said(change: Change, subject: Subject) -> Iterator[Said]:
    for name in (change.name, change.to, change.table):
        if len(name.rpartition(".")[2]) > _NAME_CHARACTERS:
            yield (
                "identifier-too-long",
                ERROR,
                f"{name} has more than {_NAME_CHARACTERS} characters.",
                "Choose a shorter name.",
            )
    if subject.is_new(change.table):
        return
    where = f"{change.table}.{change.name}" if change.name else change.table
    if change.algorithm == "COPY" or change.lock in ("EXCLUSIVE", "SHARED"):
        yield (
            "mysql-blocking-alter", ERROR, f"{change.describes}: nobody can write to the table while it runs.",
            f"ALGORITHM=INSTANT, or ALGORITHM=INPLACE, LOCK=NONE. {_TOOL}",
        )  # fmt: skip
    match change.kind:
        case c.ALTER_TYPE if not is_widening(change.was, change.type, "mysql"):
            yield (
                "alter-type", ERROR, f"changes the type of {where}: copies the table, nobody can write to it meanwhile.",
                f"Add a new column, write both, copy the rows in batches, switch, drop. {_TOOL}",
            )  # fmt: skip
        case c.ADD_FOREIGN_KEY:
            yield (
                "add-foreign-key-validating", ERROR, f"adds a foreign key to {where}: copies the table and blocks writes.",
                "SET foreign_key_checks = 0 for the session lets it run INPLACE, unchecked: check the rows yourself. "
                "Or db_constraint=False.",
            )  # fmt: skip
        case c.ADD_UNIQUE | c.ADD_COLUMN if change.kind == c.ADD_UNIQUE or (
            change.is_unique and not (change.is_null and not change.has_fill)  # NULLs are not alike
        ):
            yield (
                "add-unique-duplicates", WARNING, f"makes {where} unique: fails at its end when two rows are alike.",
                "Look for duplicates first: SELECT …, COUNT(*) … GROUP BY … HAVING COUNT(*) > 1.",
            )  # fmt: skip
        case c.ADD_PRIMARY_KEY:
            yield (
                "alter-type",
                ERROR,
                f"changes the primary key of {where}: rebuilds the table and its indexes.",
                _TOOL,
            )
        case c.ADD_COLUMN if change.is_generated:
            yield (
                "stored-generated", ERROR, f"{where} is computed and stored: copies the table, nobody can write to it.",
                "Make it VIRTUAL, which is instant and can be indexed.",
            )  # fmt: skip
        case c.ADD_COLUMN if change.is_volatile:
            yield (
                "volatile-default", WARNING, f"{where} has another default for each row: rebuilds the table.",
                "Add it with null=True, then fill the rows in batches.",
            )  # fmt: skip
        case c.ADD_INDEX if "FULLTEXT" in change.describes.upper() or "SPATIAL" in change.describes.upper():
            yield (
                "add-index-blocking",
                ERROR,
                f"builds a full-text or spatial index on {change.table}: blocks writes.",
                _TOOL,
            )
    if _should_say_how(change):
        yield (
            "mysql-say-algorithm", WARNING, f"{change.describes}: MySQL chooses how, and may copy the table.",
            "Add `, ALGORITHM=INSTANT` or `, ALGORITHM=INPLACE, LOCK=NONE`: it fails at once instead of locking.",
        )  # fmt: skip


def _should_say_how(change: Change) -> bool:
    is_alter = change.describes.upper().startswith("ALTER") and change.kind in c.SCHEMA - {c.RENAME_TABLE}
    return not change.is_django and is_alter and not change.algorithm
