"""The admin page of an alias' health: what a DBA looks at first, with reasons and hints, sizes and the biggest tables."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from foundation import figures
from orm_app import standing
from orm_app.checkup_findings import BAD, OK, WARN, Finding

from . import frame

_TONES = {OK: "good", WARN: "warn", BAD: "bad"}
_ORDER = {BAD: 0, WARN: 1, OK: 2}


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    answer = standing.checkup(alias)
    if answer.value is None:
        return {"error": answer.error}
    checkup = answer.value
    return {
        "error": "",
        "checkup": checkup,
        "tone": _TONES[checkup.state],
        "verdict": _verdict(checkup.findings),
        "rows": [
            (one, one.name.replace("_", " "), _TONES[one.level])
            for one in sorted(checkup.findings, key=_rank)
        ],
        "size": figures.size(checkup.size_bytes),
        "tables": [
            {
                "name": table.name,
                "rows": figures.NONE if table.rows is None else f"{table.rows:,}",
                "size": figures.size(table.size_bytes),
                "share": None
                if table.size_bytes is None
                else frame.percent(table.size_bytes, checkup.size_bytes or 0),
            }
            for table in checkup.tables
        ],
    }


def _rank(finding: Finding) -> int:
    return _ORDER[finding.level]


def _verdict(findings: list[Finding]) -> str:
    counts = {level: sum(one.level == level for one in findings) for level in _TONES}
    parts = [
        f"{counts[BAD]} bad" if counts[BAD] else "",
        f"{counts[WARN]} to look at" if counts[WARN] else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing stands out"


SECTION = frame.Section("health", "Health", found, every_s=5)
