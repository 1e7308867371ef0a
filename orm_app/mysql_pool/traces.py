"""Which statements leave something behind in a session that a rollback does not take back."""

from __future__ import annotations

import re

# A list of what is harmless, as that of what is not has no end: SET, USE, LOCK TABLES, CREATE TEMPORARY TABLE, PREPARE,
# CALL, HANDLER, XA … `SET TRANSACTION` is for the next transaction alone, and a rollback ends that one too.
_HARMLESS = re.compile(
    r"[\s(]*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|SAVEPOINT|RELEASE\s+SAVEPOINT|ROLLBACK|COMMIT"
    r"|SHOW|EXPLAIN|DESCRIBE|DESC|TRUNCATE|BEGIN|START\s+TRANSACTION|SET\s+TRANSACTION)\b",
    re.IGNORECASE,
)
# A user variable, a named lock, a second statement.
_BUT = re.compile(r"(?<!@)@(?!@)|\bGET_LOCK\s*\(|;\s*[^\s;]", re.IGNORECASE)


def leaves_traces(sql: object) -> bool:
    """sql: with placeholders, as it was given to the cursor; what is not a string may do anything."""
    return not isinstance(sql, str) or _HARMLESS.match(sql) is None or _BUT.search(sql) is not None
