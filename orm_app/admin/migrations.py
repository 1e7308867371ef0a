"""The admin page of an alias' migrations. It applies none: see docs/databases.md, "Admin and API"."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from foundation import figures
from orm_app import migration_standing
from orm_app.migration_journal import Broken
from orm_app.migration_lint.changes import ERROR, Finding
from orm_app.migration_plan import PlannedMigration
from orm_app.migration_standing import APPLIED, EDITED, GONE, PENDING, Row, Standing

from . import frame

_TONES = {APPLIED: "good", PENDING: "warn", EDITED: "bad", GONE: "bad"}
_QUOTED = re.compile(
    r"(?P<name>\b(?:key|column|table|index|constraint|field|database) )?'[^']*'", re.IGNORECASE
)
_FEW = 3  # planned migrations that are shown opened
_MOST_SQL = 200  # statements of one migration


def found(request: HttpRequest, alias: str) -> dict[str, Any]:
    answer = migration_standing.asked(alias)
    standing = answer.value
    if standing is None:
        return {"error": answer.error}
    return {
        "error": "",
        "standing": standing,
        "apps": _apps(standing.rows),
        "planned": [_planned(one, standing) for one in standing.planned],
        "is_short": len(standing.planned) <= _FEW,
        "unfinished": [_unfinished(one, standing) for one in standing.unfinished],
        "command": f"./brain database migrate --database {alias}",
    }


def _apps(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Those first where there is something to do."""
    by_app: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_app[row.app].append(row)
    found = [_app(app, mine) for app, mine in by_app.items()]
    return sorted(found, key=lambda one: (not one["open"], one["app"]))


def _app(app: str, rows: list[Row]) -> dict[str, Any]:
    now = timezone.now()
    counts = {state: sum(row.state == state for row in rows) for state in _TONES}
    last = max((row.applied_at for row in rows if row.applied_at), default=None)
    return {
        "app": app,
        "counts": counts,
        "open": len(rows) - counts[APPLIED],
        "is_odd": bool(counts[EDITED] or counts[GONE]),
        "tone": next((_TONES[state] for state in (EDITED, GONE, PENDING) if counts[state]), "good"),
        "last": last,
        "ago": figures.ago(max(0.0, (now - last).total_seconds())) if last else figures.NONE,
        "rows": [(row, _TONES[row.state]) for row in rows],
    }


def _planned(one: PlannedMigration, standing: Standing) -> dict[str, Any]:
    findings = [
        finding for finding in standing.findings if (finding.app, finding.migration) == (one.app, one.name)
    ]
    return {
        "one": one,
        "how": "one transaction" if one.is_atomic else "statement by statement: it can break half way",
        "operations": [(part, _sql(part.sql)) for part in one.operations],
        "findings": [(finding, _tone(finding)) for finding in findings],
        "counts": _counts(findings),
    }


def _sql(statements: tuple[str, ...]) -> str:
    more = len(statements) - _MOST_SQL
    shown = [*statements[:_MOST_SQL], *([f"-- and {more} more"] if more > 0 else [])]
    return "\n".join(shown)


def _counts(findings: list[Finding]) -> list[tuple[str, str]]:
    """What stands in a migration's heading: "2 errors", with its tone."""
    tones = Counter(_tone(finding) for finding in findings)
    names = {"bad": "error", "warn": "warning", "none": "allowed"}
    return [
        (f"{tones[tone]} {name}{'s' if tones[tone] > 1 and tone != 'none' else ''}", tone)
        for tone, name in names.items()
        if tones[tone]
    ]


def _tone(finding: Finding) -> str:
    return "none" if finding.allowed else "bad" if finding.level == ERROR else "warn"


def _unfinished(one: Broken, standing: Standing) -> dict[str, Any]:
    name, on = ".".join(one.key), f"--database {standing.alias}"
    target = f" {one.key[0]} {migration_standing.before(standing, one.key)}" if one.is_backwards else ""
    return {
        "one": one,
        "name": name,
        "error": without_values(one.error),
        "go_on": f"./brain database migrate{target} {on}{' --resume' if one.error else ''}",
        "begin_anew": f"./brain database migrate {on} --start-over {name}",
    }


def without_values(error: str) -> str:
    """The first line of a server's error. It quotes rows' values as it quotes names: the names stay."""
    first = error.strip().partition("\n")[0]
    return _QUOTED.sub(lambda found: found[0] if found["name"] else "'…'", first)


SECTION = frame.Section("migrations", "Migrations", found, every_s=0)
