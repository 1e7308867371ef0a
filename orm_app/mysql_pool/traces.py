"""What a statement leaves behind in a session that is lent to somebody else next."""

from __future__ import annotations

import re
from typing import Literal

# Lists of what is harmless, as that of what is not has no end: SET, USE, LOCK TABLES, CREATE TEMPORARY TABLE, PREPARE,
# CALL, HANDLER, XA …
_NOTHING = re.compile(
    r"[\s(]*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|SAVEPOINT|RELEASE\s+SAVEPOINT|SHOW|EXPLAIN|DESCRIBE"
    r"|DESC|TRUNCATE)\b",
    re.IGNORECASE,
)
# `SET TRANSACTION` is for the next transaction alone, and a rollback ends that one too.
_TRANSACTION = re.compile(
    r"\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK|SET\s+TRANSACTION)\b", re.IGNORECASE
)
# But for a user variable, a named lock, a second statement.
_BUT = re.compile(r"(?<!@)@(?!@)|\bGET_LOCK\s*\(|;\s*[^\s;]", re.IGNORECASE)


def left_by(sql: object) -> Literal["nothing", "transaction", "session"]:
    """transaction: a rollback takes it back. session: nothing does. sql: with placeholders, as the cursor got it."""
    if not isinstance(sql, str) or (_is_suspect(sql) and _BUT.search(sql)):
        return "session"
    if _NOTHING.match(sql):
        return "nothing"
    return "transaction" if _TRANSACTION.match(sql) else "session"


def _is_suspect(sql: str) -> bool:
    """Asked of every statement, and ten times as fast as the search."""
    return "@" in sql or ";" in sql or "get_lock" in sql.lower()
