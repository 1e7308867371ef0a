"""Which change of a column's type leaves the rows as they are. Pure."""

from __future__ import annotations

import re

_SIZED = re.compile(r"(?P<base>[a-z ]+?)\s*\((?P<first>\d+)(?:\s*,\s*(?P<second>\d+))?\)", re.IGNORECASE)
_SAME = {"character varying": "varchar", "decimal": "numeric"}
# Up to here the length of a value of four bytes a character fits into one byte; beyond, InnoDB copies the table.
_ONE_BYTE_LENGTH = 63


def is_widening(was: str, to: str, dialect: str) -> bool:
    """was, to: such as varchar(50), text, numeric(10, 2). Unknown ("") is no."""
    old, new = _read(was), _read(to)
    if old is None or new is None:
        return False
    if old == new:
        return True
    if old[0] == new[0] == "varchar" and new[1] >= old[1]:
        return dialect != "mysql" or (old[1] <= _ONE_BYTE_LENGTH) == (new[1] <= _ONE_BYTE_LENGTH)
    if dialect != "postgresql":
        return False
    if old[0] == "varchar":
        return new[0] in ("text", "varchar") and (new[0] == "text" or new[1] == 0)
    return old[0] == new[0] == "numeric" and new[1] >= old[1] and new[2] == old[2]


def _read(text: str) -> tuple[str, int, int] | None:
    text = text.strip().lower()
    if match := _SIZED.match(text):
        base = match["base"].strip()
        return _SAME.get(base, base), int(match["first"]), int(match["second"] or 0)
    word = re.match(r"[a-z]+", text)
    return (_SAME.get(word[0], word[0]), 0, 0) if word else None
