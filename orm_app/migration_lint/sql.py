"""A raw SQL statement → the changes it makes, by its words. Pure. What it does not know is OTHER_SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from orm_app.sql_statements import POSTGRESQL, tokens, without_comments

from . import changes as c
from .changes import Change

_NAME = r"(?:[\w$]+|\"[^\"]+\"|`[^`]+`)(?:\s*\.\s*(?:[\w$]+|\"[^\"]+\"|`[^`]+`))?"
_EXISTS = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_VOLATILE = re.compile(
    r"DEFAULT\s*\(?\s*(?:random|gen_random_uuid|uuid_generate_v\d\w*|uuidv\d|clock_timestamp|timeofday|nextval|uuid|rand)\s*\(",
    re.IGNORECASE,
)


def _match(pattern: str, text: str) -> re.Match[str] | None:
    return re.match(
        pattern.replace("NAME", _NAME).replace("EXISTS_", _EXISTS), text, re.IGNORECASE | re.DOTALL
    )


def read(statement: str, dialect: str) -> list[Change]:
    text = without_comments(statement, dialect)
    for reader in (_index, _alter, _table, _rows, _session):
        found = list(reader(text, dialect))
        if found:
            return found
    return [Change(c.OTHER_SQL, is_django=False, describes=_short(text))]


def _table(text: str, dialect: str) -> Iterator[Change]:
    if m := _match(r"CREATE\s+(?:TEMP(?:ORARY)?\s+|UNLOGGED\s+)?TABLE\s+EXISTS_(?P<t>NAME)", text):
        yield _sql(c.CREATE_TABLE, m["t"], text, if_exists="EXISTS" in m[0].upper())
    elif m := _match(r"DROP\s+TABLE\s+(?P<e>EXISTS_)(?P<t>NAME(?:\s*,\s*NAME)*)", text):
        for name in m["t"].split(","):
            yield _sql(c.DROP_TABLE, name, text, if_exists=bool(m["e"]), cascades=_ends(text, "CASCADE"))
    elif m := _match(r"RENAME\s+TABLE\s+(?P<t>NAME)\s+TO\s+(?P<n>NAME)", text):
        yield _sql(c.RENAME_TABLE, m["t"], text, to=_plain(m["n"]))
    elif m := _match(r"TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?(?P<t>NAME)", text):
        yield _sql(c.TRUNCATE, m["t"], text, cascades=_ends(text, "CASCADE"))
    elif _match(r"CREATE\s", text):
        yield _sql(c.CREATE_OTHER, "", text)
    elif _match(r"DROP\s", text):
        yield _sql(c.DROP_OTHER, "", text, cascades=_ends(text, "CASCADE"))


def _index(text: str, dialect: str) -> Iterator[Change]:
    if m := _match(
        r"CREATE\s+(?P<u>UNIQUE\s+)?(?:FULLTEXT\s+|SPATIAL\s+)?INDEX\s+(?P<k>CONCURRENTLY\s+)?EXISTS_(?P<n>NAME)?\s*"
        r"ON\s+(?:ONLY\s+)?(?P<t>NAME)", text,
    ):  # fmt: skip
        how = {"name": _plain(m["n"] or ""), "is_unique": bool(m["u"]), "is_concurrent": bool(m["k"])}
        yield _sql(c.ADD_INDEX, m["t"], text, **how)
    elif m := _match(
        r"DROP\s+INDEX\s+(?P<k>CONCURRENTLY\s+)?EXISTS_(?P<n>NAME)(?:\s+ON\s+(?P<t>NAME))?", text
    ):
        yield _sql(c.DROP_INDEX, m["t"] or "", text, name=_plain(m["n"]), is_concurrent=bool(m["k"]))
    elif _match(r"REINDEX\b", text):
        yield _sql(c.REINDEX, "", text, is_concurrent="CONCURRENTLY" in text.upper())


def _rows(text: str, dialect: str) -> Iterator[Change]:
    if m := _match(
        r"(?:INSERT\s+(?:\w+\s+)*?INTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|COPY)\s+(?:ONLY\s+)?(?P<t>NAME)",
        text,
    ):
        yield _sql(c.WRITE_ROWS, m["t"], text)
    elif _match(r"WITH\b.*\b(?:INSERT|UPDATE|DELETE)\b", text):
        yield _sql(c.WRITE_ROWS, "", text)


def _session(text: str, dialect: str) -> Iterator[Change]:
    if _match(r"(?:BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK(?!\s+TO))\b", text):
        yield _sql(c.TRANSACTION, "", text)
    elif m := _match(r"LOCK\s+TABLES?\s+(?:ONLY\s+)?(?P<t>NAME)", text):
        yield _sql(c.LOCK_TABLE, m["t"], text)


def _alter(text: str, dialect: str) -> Iterator[Change]:
    m = _match(r"ALTER\s+(?:ONLINE\s+|IGNORE\s+)*TABLE\s+EXISTS_(?:ONLY\s+)?(?P<t>NAME)\s+(?P<rest>.*)", text)
    if m is None:
        return
    actions = _by_commas(m["rest"], dialect)
    how = {"algorithm": _option("ALGORITHM", actions), "lock": _option("LOCK", actions)}
    for action in actions:
        if not _match(r"(?:ALGORITHM|LOCK)\s*=?\s*\w+$", action):
            found = _action(m["t"], action, text, how)
            yield found
            if found.kind == c.ADD_COLUMN and dialect == POSTGRESQL:
                yield from _with_column(found, text)


def _with_column(column: Change, text: str) -> Iterator[Change]:
    """What is written behind a column's type and looks at each row, or at the rows of another table."""
    for word, kind in ((r"\bREFERENCES\b", c.ADD_FOREIGN_KEY), (r"\bCHECK\s*\(", c.ADD_CHECK)):
        if re.search(word, column.type, re.IGNORECASE):
            yield _sql(kind, column.table, text, name=column.name)


def _action(table: str, action: str, text: str, how: dict[str, str]) -> Change:
    for pattern, make in _ACTIONS:
        if m := _match(pattern, action):
            kind, values = make(m)
            return _sql(kind, table, text, **how, **values)
    return _sql(c.OTHER_SQL, table, text, **how)


def _added_constraint(m: re.Match[str]) -> tuple[str, dict[str, object]]:
    word = m["kind"].upper().split()[0]
    kinds = {
        "FOREIGN": c.ADD_FOREIGN_KEY,
        "UNIQUE": c.ADD_UNIQUE,
        "CHECK": c.ADD_CHECK,
        "PRIMARY": c.ADD_PRIMARY_KEY,
    }
    # NOT VALID checks later; USING INDEX has an index that was built before.
    late = bool(re.search(r"\bNOT\s+VALID\b|\bUSING\s+INDEX\b", m.string, re.IGNORECASE))
    return kinds.get(word, c.ADD_EXCLUSION), {"name": _plain(m["n"] or ""), "is_concurrent": late}


def _added_column(m: re.Match[str]) -> tuple[str, dict[str, object]]:
    rest = m["rest"]
    return c.ADD_COLUMN, {
        "name": _plain(m["n"]),
        "type": rest,
        "is_null": not re.search(r"\bNOT\s+NULL\b|\bPRIMARY\s+KEY\b", rest, re.IGNORECASE),
        "has_database_default": bool(
            re.search(r"\bDEFAULT\b|\bGENERATED\b|\bSERIAL|AUTO_INCREMENT", rest, re.IGNORECASE)
        ),
        "is_volatile": bool(_VOLATILE.search(rest)),
        "is_generated": bool(re.search(r"\bSTORED\b|\bPERSISTENT\b", rest, re.IGNORECASE)),
        "is_unique": bool(re.search(r"\bUNIQUE\b|\bPRIMARY\s+KEY\b", rest, re.IGNORECASE)),
    }


def _changed_column(m: re.Match[str]) -> tuple[str, dict[str, object]]:
    old, new = _plain(m["n"]), _plain(m["to"])
    if old != new:
        return c.RENAME_COLUMN, {"name": old, "to": new}
    return c.ALTER_TYPE, {"name": old, "type": m["rest"]}


_ACTIONS: list[tuple[str, Callable[[re.Match[str]], tuple[str, dict[str, object]]]]] = [
    (
        r"ADD\s+(?:CONSTRAINT\s+EXISTS_(?P<n>NAME)\s+)?(?P<kind>FOREIGN\s+KEY|UNIQUE(?:\s+(?:KEY|INDEX))?|CHECK|"
        r"PRIMARY\s+KEY|EXCLUDE)\b",
        _added_constraint,
    ),
    (r"ADD\s+(?:FULLTEXT\s+|SPATIAL\s+)?(?:INDEX|KEY)\s+(?P<n>NAME)", lambda m: (c.ADD_INDEX, {"name": _plain(m["n"])})),
    (r"ADD\s+(?:COLUMN\s+)?EXISTS_(?P<n>NAME)\s+(?P<rest>.*)", _added_column),
    (r"DROP\s+(?:CONSTRAINT|FOREIGN\s+KEY|PRIMARY\s+KEY|CHECK)\b", lambda m: (c.DROP_CONSTRAINT, {})),
    (r"DROP\s+(?:INDEX|KEY)\s+EXISTS_(?P<n>NAME)", lambda m: (c.DROP_INDEX, {"name": _plain(m["n"])})),
    (r"DROP\s+(?:COLUMN\s+)?EXISTS_(?P<n>NAME)", lambda m: (c.DROP_COLUMN, {"name": _plain(m["n"])})),
    (r"RENAME\s+(?:TO|AS)\s+(?P<n>NAME)", lambda m: (c.RENAME_TABLE, {"to": _plain(m["n"])})),
    (r"RENAME\s+(?:INDEX|KEY|CONSTRAINT)\b", lambda m: (c.OTHER_SQL, {})),
    (
        r"RENAME\s+(?:COLUMN\s+)?(?P<n>NAME)\s+TO\s+(?P<to>NAME)",
        lambda m: (c.RENAME_COLUMN, {"name": _plain(m["n"]), "to": _plain(m["to"])}),
    ),
    (r"VALIDATE\s+CONSTRAINT\s+(?P<n>NAME)", lambda m: (c.VALIDATE, {"name": _plain(m["n"])})),
    (r"ALTER\s+(?:COLUMN\s+)?(?P<n>NAME)\s+SET\s+NOT\s+NULL", lambda m: (c.SET_NOT_NULL, {"name": _plain(m["n"])})),
    (r"ALTER\s+(?:COLUMN\s+)?(?P<n>NAME)\s+DROP\s+NOT\s+NULL", lambda m: (c.DROP_NOT_NULL, {"name": _plain(m["n"])})),
    (
        r"ALTER\s+(?:COLUMN\s+)?(?P<n>NAME)\s+(?:SET\s+DATA\s+)?TYPE\s+(?P<rest>.*)",
        lambda m: (c.ALTER_TYPE, {"name": _plain(m["n"]), "type": m["rest"]}),
    ),
    (r"ALTER\s+(?:COLUMN\s+)?(?P<n>NAME)\s+(?:SET|DROP)\s+DEFAULT", lambda m: (c.SET_DEFAULT, {"name": _plain(m["n"])})),
    (r"MODIFY\s+(?:COLUMN\s+)?(?P<n>NAME)\s+(?P<rest>.*)", lambda m: (c.ALTER_TYPE, {"name": _plain(m["n"]), "type": m["rest"]})),
    (r"CHANGE\s+(?:COLUMN\s+)?(?P<n>NAME)\s+(?P<to>NAME)\s+(?P<rest>.*)", _changed_column),
    (r"CONVERT\s+TO\s+CHARACTER\s+SET\s+(?P<rest>.*)", lambda m: (c.ALTER_TYPE, {"name": "*", "type": m["rest"]})),
]  # fmt: skip


def _option(word: str, actions: list[str]) -> str:
    for action in actions:
        if m := _match(rf"{word}\s*=?\s*(?P<v>\w+)$", action):
            return m["v"].upper()
    return ""


def _by_commas(text: str, dialect: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for token in tokens(text, dialect):
        depth += {"(": 1, ")": -1}.get(token.value, 0)
        if token.value == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token.value
    return [part.strip() for part in parts if part.strip()]


def _sql(kind: str, table: str, text: str, **values: object) -> Change:
    return Change(kind, _plain(table), is_django=False, describes=_short(text), **values)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    return re.sub(r"[\"`\s]", "", name)


def _ends(text: str, word: str) -> bool:
    return bool(re.search(rf"\b{word}\s*$", text, re.IGNORECASE))


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
