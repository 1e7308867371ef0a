"""What a plan says, in words: steps, warnings, and an index where the plan itself names the column. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MANY_ROWS = 10_000  # a scan of less is as good as an index


@dataclass(frozen=True, slots=True)
class Step:
    """rows: expected; actual_*: after --analyze, of all loops together."""

    depth: int
    name: str
    rows: float | None = None
    cost: float | None = None
    actual_rows: float | None = None
    actual_ms: float | None = None


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

_STEP = re.compile(
    r"^(?P<indent>\s*)(?:->\s+)?(?P<name>\S.*?)\s+\(cost=[\d.]+\.\.(?P<cost>[\d.]+) rows=(?P<rows>\d+) width=\d+\)"
    r"(?:\s+\(actual time=[\d.]+\.\.(?P<ms>[\d.]+) rows=(?P<actual>[\d.]+) loops=(?P<loops>\d+)\))?"
)
_SCAN = re.compile(r"(?:Parallel )?Seq Scan on (?P<table>\S+)")
_REMOVED = re.compile(r"Rows Removed by Filter: (\d+)")
_DISK = re.compile(r"(?:external merge|external sort|Disk:)\s*(?:Disk:)?\s*(\d+)kB")
_CONDITION = re.compile(r"^\s*(?:Filter): (.*)$")
_ONE_COLUMN = re.compile(
    r"^\(*(?:(\w+)\.)?\"?(\w+)\"?\)?(?:::[\w ]+)?\)? (?:=|<|>|<=|>=) (?!ANY|ALL)[^ ]+(?:::[\w ]+)?\)*$"
)


def steps_of_postgresql(text: str) -> list[Step]:
    found = []
    for line in text.splitlines():
        if match := _STEP.match(line):
            loops = float(match["loops"] or 1)
            found.append(
                Step(
                    depth=(len(match["indent"]) + 5) // 6,
                    name=match["name"],
                    rows=float(match["rows"]),
                    cost=float(match["cost"]),
                    actual_rows=float(match["actual"]) * loops if match["actual"] else None,
                    actual_ms=float(match["ms"]) * loops if match["ms"] else None,
                )
            )
    return found


def warnings_of_postgresql(text: str, sizes: Mapping[str, float]) -> list[str]:
    """sizes: rows of the tables, as the statistics have them."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if scan := _SCAN.search(line):
            found += _scanned(scan["table"].strip('"'), lines[number + 1 :], sizes)
        if disk := _DISK.search(line):
            found.append(f"sorted on disk ({disk[1]} kB): raise work_mem, or give it an index in that order")
        if step := _STEP.match(line):
            found += _misjudged(step)
    return list(dict.fromkeys(found))


def _scanned(table: str, following: Sequence[str], sizes: Mapping[str, float]) -> list[str]:
    size = sizes.get(table, 0)
    if size < MANY_ROWS:
        return []
    condition, removed = "", None
    for line in following:
        if _STEP.match(line):
            break
        if match := _CONDITION.match(line):
            condition = match[1]
        if match := _REMOVED.search(line):
            removed = int(match[1])
    if not condition:
        return [f"reads all of {table} (about {size:,.0f} rows)"]
    text = f"reads all of {table} (about {size:,.0f} rows) and throws most away"
    if removed is not None:
        text = f"reads all of {table} and throws {removed:,} rows away"
    column = _ONE_COLUMN.match(condition)
    return [
        f"{text}: an index on {table} ({column[2]}) would find them" if column else f"{text}: {condition}"
    ]


def _misjudged(step: re.Match[str]) -> list[str]:
    if not step["actual"]:
        return []
    expected, actual = float(step["rows"]), float(step["actual"])
    if max(expected, actual) < 1_000 or max(expected, 1) / max(actual, 1) < 100 > max(actual, 1) / max(
        expected, 1
    ):
        return []
    return [f"{step['name']}: {expected:,.0f} rows expected, {actual:,.0f} found: run ANALYZE on its table"]


# --- MySQL -----------------------------------------------------------------------------------------------------------


def steps_of_mysql(rows: Iterable[Mapping[str, Any]]) -> list[Step]:
    found = []
    for row in rows:
        parts = [str(row.get("type") or row.get("select_type") or ""), str(row.get("table") or "")]
        if row.get("key"):
            parts.append(f"by {row['key']}")
        if row.get("extra"):
            parts.append(f"({row['extra']})")
        found.append(
            Step(0, " ".join(filter(None, parts)), _number(row.get("rows")), None, _number(row.get("r_rows")))
        )
    return found


def warnings_of_mysql(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        extra, table, size = str(row.get("extra") or ""), row.get("table"), _number(row.get("rows")) or 0
        if row.get("type") == "ALL" and size >= MANY_ROWS:
            found.append(f"reads all of {table} (about {size:,.0f} rows): no index fits its conditions")
        if row.get("type") == "index" and size >= MANY_ROWS:
            found.append(f"reads all of index {row.get('key')} of {table} (about {size:,.0f} rows)")
        if "filesort" in extra and size >= MANY_ROWS:
            found.append(f"sorts about {size:,.0f} rows (filesort): an index in that order would spare it")
        if "temporary" in extra and size >= MANY_ROWS:
            found.append(f"keeps about {size:,.0f} rows in a temporary table")
        if "join buffer" in extra.lower() and size >= MANY_ROWS:
            found.append(f"joins {table} without an index")
    return list(dict.fromkeys(found))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of EXPLAIN in columns."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


# --- SQLite ----------------------------------------------------------------------------------------------------------

_SQLITE_READ = re.compile(r"^(?:SCAN|SEARCH) (?:TABLE )?(?P<table>\S+)")
_SQLITE_SCAN = re.compile(r"^SCAN (?:TABLE )?(?P<table>\S+)(?P<rest>.*)$")
_AUTOMATIC = re.compile(r"SEARCH (?:TABLE )?(\S+).*AUTOMATIC (?:PARTIAL )?(?:COVERING )?INDEX \((\w+)=\?")


def steps_of_sqlite(rows: Iterable[Mapping[str, Any]]) -> list[Step]:
    depths: dict[int, int] = {0: -1}
    found = []
    for row in rows:
        depth = depths.get(row["parent"], -1) + 1
        depths[row["id"]] = depth
        found.append(Step(depth, str(row["detail"])))
    return found


def warnings_of_sqlite(steps: Iterable[Step], sizes: Mapping[str, float]) -> list[str]:
    found = []
    for step in steps:
        if automatic := _AUTOMATIC.search(step.name):
            table, column = automatic.groups()
            found.append(f"makes an index for this one statement: create one on {table} ({column})")
        scan = _SQLITE_SCAN.match(step.name)
        if scan and sizes.get(scan["table"], 0) >= MANY_ROWS:
            how = "an index" if "INDEX" in scan["rest"] else "all"
            found.append(f"reads {how} of {scan['table']} (about {sizes[scan['table']]:,.0f} rows)")
        if "TEMP B-TREE" in step.name and any(size >= MANY_ROWS for size in sizes.values()):
            found.append(f"sorts by itself ({step.name}): an index in that order would spare it")
    return list(dict.fromkeys(found))


def steps_text(steps: Iterable[Step]) -> str:
    return "\n".join(f"{'  ' * step.depth}{step.name}" for step in steps)


def scanned_tables(lines: Iterable[str]) -> set[str]:
    """Of PostgreSQL's plan: the tables that are read from end to end."""
    return {match["table"].strip('"') for line in lines if (match := _SCAN.search(line))}


def read_tables(steps: Iterable[Step]) -> set[str]:
    """Of SQLite's."""
    return {match["table"] for step in steps if (match := _SQLITE_READ.match(step.name))}


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
