"""Migrations → findings: which rules apply, and which the author allowed with a reason. Pure but for its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from orm_app.sql_statements import DIALECTS, MYSQL, POSTGRESQL, SQLITE

from . import rules_any, rules_mysql, rules_postgresql, rules_sqlite
from .changes import ERROR, WARNING, Change, Finding, Subject
from .rules_any import Said

_OF_DIALECT: dict[str, Callable[[Change, Subject], Iterator[Said]]] = {
    POSTGRESQL: rules_postgresql.said,
    MYSQL: rules_mysql.said,
    SQLITE: rules_sqlite.said,
}
RULES = frozenset({
    "add-check-validating", "add-exclusion", "add-foreign-key-validating", "add-index-blocking", "add-not-null",
    "add-unique-blocking", "add-unique-column", "add-unique-duplicates", "alter-type", "concurrently-in-transaction",
    "drop-column", "drop-index-blocking", "drop-table", "identifier-too-long", "json-type", "lock-table",
    "mixed-without-transaction", "mysql-blocking-alter", "mysql-say-algorithm", "no-sql-for-dialect", "reindex-blocking",
    "rename-column", "rename-table", "run-python-imports-models", "run-python-irreversible", "run-sql-irreversible",
    "schema-and-data", "set-not-null", "set-not-null-scan", "sqlite-cannot-alter", "stored-generated", "table-remake",
    "transaction-nesting", "truncate-or-cascade", "volatile-default",
})  # fmt: skip


def judge(subject: Subject, allowed: Mapping[str, str]) -> list[Finding]:
    """allowed: rule → reason. A reason that is missing, or a rule that does not exist, is a finding of its own."""
    found = dict.fromkeys(_said(subject))
    findings = [
        Finding(
            rule, level, subject.app, subject.name, subject.dialect, message, rewrite, allowed.get(rule, "")
        )
        for rule, level, message, rewrite in found
    ]
    return findings + _about_allowances(subject, allowed)


def together(findings: Sequence[Finding]) -> list[Finding]:
    """The same finding of several dialects as one, with the dialects' names joined."""
    merged: dict[Finding, list[str]] = {}
    for finding in findings:
        merged.setdefault(replace(finding, dialect=""), []).append(finding.dialect)
    return [
        replace(finding, dialect=", ".join(sorted(dialects, key=DIALECTS.index)))
        for finding, dialects in merged.items()
    ]


def worst(findings: Sequence[Finding]) -> str:
    """ "error", "warning" or "": of those that nobody allowed."""
    levels = {finding.level for finding in findings if not finding.allowed}
    return next((level for level in (ERROR, WARNING) if level in levels), "")


def _said(subject: Subject) -> Iterator[Said]:
    for change in subject.changes:
        yield from rules_any.said(change, subject)
        yield from _OF_DIALECT[subject.dialect](change, subject)
    yield from rules_any.said_of_all(subject)


def _about_allowances(subject: Subject, allowed: Mapping[str, str]) -> list[Finding]:
    found = []
    for rule, reason in allowed.items():
        text = ""
        if rule not in RULES:
            text = f"allows {rule}, which is no rule."
        elif not reason:
            text = f"allows {rule} without a reason."
        if text:
            fix = "Write `lint: allow RULE because REASON`, or lint_allow = {'RULE': 'REASON'}."
            found.append(Finding("allowance", ERROR, subject.app, subject.name, subject.dialect, text, fix))
    return found
