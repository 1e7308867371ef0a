"""The words in which operations and SQL are described to the rules. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

ERROR, WARNING = "error", "warning"

# kinds of Change
CREATE_TABLE, DROP_TABLE, RENAME_TABLE = "create_table", "drop_table", "rename_table"
ADD_COLUMN, DROP_COLUMN, RENAME_COLUMN = "add_column", "drop_column", "rename_column"
ALTER_TYPE, SET_NOT_NULL, DROP_NOT_NULL, SET_DEFAULT = (
    "alter_type",
    "set_not_null",
    "drop_not_null",
    "set_default",
)
ADD_INDEX, DROP_INDEX, REINDEX = "add_index", "drop_index", "reindex"
ADD_FOREIGN_KEY, ADD_UNIQUE, ADD_CHECK, ADD_EXCLUSION = (
    "add_foreign_key",
    "add_unique",
    "add_check",
    "add_exclusion",
)
ADD_PRIMARY_KEY, DROP_CONSTRAINT, VALIDATE = "add_primary_key", "drop_constraint", "validate_constraint"
WRITE_ROWS, TRUNCATE, CREATE_OTHER, DROP_OTHER = "write_rows", "truncate", "create_other", "drop_other"
TRANSACTION, LOCK_TABLE, OTHER_SQL, PYTHON = "transaction", "lock_table", "other_sql", "python"
NO_TEXT = "no_text"  # a SQL migration that says nothing to this dialect

SCHEMA = {
    CREATE_TABLE, DROP_TABLE, RENAME_TABLE, ADD_COLUMN, DROP_COLUMN, RENAME_COLUMN, ALTER_TYPE, SET_NOT_NULL,
    DROP_NOT_NULL, SET_DEFAULT, ADD_INDEX, DROP_INDEX, ADD_FOREIGN_KEY, ADD_UNIQUE, ADD_CHECK, ADD_EXCLUSION,
    ADD_PRIMARY_KEY, DROP_CONSTRAINT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happens to a table. What is not known keeps its default, and no rule guesses."""

    kind: str
    table: str = ""
    name: str = ""  # of the column, index or constraint
    to: str = ""  # the new name or type
    type: str = ""  # a column's type, as the dialect writes it
    was: str = ""  # its type before
    is_null: bool = True  # may the column be NULL
    has_database_default: bool = (
        False  # in the schema, for good: old code that does not name the column may insert
    )
    has_fill: bool = False  # existing rows get a value (Django's own default, which it drops again)
    is_volatile: bool = False  # the default is another one for each row
    is_generated: bool = False  # a stored generated column
    is_unique: bool = False
    is_concurrent: bool = False  # CONCURRENTLY, or NOT VALID of a constraint
    is_widening: bool = False  # every value of the old type is one of the new type, stored alike
    is_reversible: bool = True
    imports_models: bool = False  # RunPython that reaches for the app's models of today
    if_exists: bool = False
    cascades: bool = False
    algorithm: str = ""  # of MySQL's ALTER TABLE: INPLACE, INSTANT, COPY
    lock: str = ""  # of MySQL's ALTER TABLE: NONE, SHARED
    is_django: bool = True  # an operation of Django's, not raw SQL
    describes: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A migration for one dialect, ready for the rules."""

    app: str
    name: str
    dialect: str
    is_atomic: bool
    changes: tuple[Change, ...]
    empty_tables: frozenset[str] = frozenset()  # made before in this run: nobody reads or writes them yet

    def is_new(self, table: str) -> bool:
        return bool(table) and table in made(self.changes, self.empty_tables)


def made(changes: Sequence[Change], before: Set[str] = frozenset()) -> set[str]:
    """The tables that these make, by each name that they have on the way."""
    found = set(before)
    for change in changes:
        if change.kind == CREATE_TABLE:
            found.add(change.table)
        elif change.kind == RENAME_TABLE and change.table in found:
            found.add(change.to)
    return found


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    level: str
    app: str
    migration: str
    dialect: str
    message: str
    rewrite: str
    allowed: str = field(default="")  # the reason why somebody allowed it; "" = nobody did
