"""`manage.py gateway history|rollback`: what was changed, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foundation.commands import BrainCommand, Failed
from gateway import history
from gateway.entries import Change
from gateway.errors import RollbackRefused
from gateway.management import telling
from gateway.models import Revision

_NAMED = 3  # changes of a revision that the list names


class HistoryVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        shown = self._command.verb(
            "history", self.history, "The changes of the configuration, or one of them."
        )
        shown.add_argument("version", nargs="?", type=int, help="show what this version changed")
        shown.add_argument(
            "--limit", type=int, default=20, help="list so many, the newest first (default 20)"
        )
        back = self._command.verb(
            "rollback", self.rollback, "Bring the configuration back to what it was right after a version."
        )
        back.add_argument("version", type=int)

    def history(self, *, version: int | None, limit: int, **options: Any) -> None:
        if version is None:
            self._list(max(limit, 0))
            return
        revision = history.revisions().filter(version=version).first()
        if revision is None:
            hint = "`manage.py gateway history` lists those that are kept."
            raise Failed(f"version {version} is not kept, or was never made", hint=hint)
        made = [Change(**change) for change in revision.changes]
        self._command.line(
            f"version {version}: {revision.made_at:%Y-%m-%d %H:%M:%S} UTC by {revision.actor} ({revision.source})"
        )
        telling.changes(self._command, made, "nothing")

    def rollback(self, *, version: int, **options: Any) -> None:
        before = history.newest()
        try:
            after = history.rollback(version, **self._trace())
        except RollbackRefused as error:
            hint = "Nothing was changed. `manage.py gateway history` lists the versions that are kept."
            raise Failed(str(error), hint=hint) from error
        changed = history.changes_between(after - 1, after) if after > before else []
        telling.changes(
            self._command, changed, f"nothing to change: the configuration is as after version {version}"
        )
        self._command.document({"version": after, "changes": [change.shown() for change in changed]})
        if changed:
            self._command.line(f"version {after}: as after version {version}")

    def _list(self, limit: int) -> None:
        found = list(history.revisions()[:limit])
        back = history.rollbacks(revision.version for revision in found)
        rows = [
            (
                r.version,
                r.made_at.isoformat(timespec="seconds"),
                r.actor,
                r.source,
                back.get(r.version),
                _summary(r),
            )
            for r in found
        ]
        self._command.table(("version", "made_at", "actor", "source", "back_to", "changes"), rows)


def _summary(revision: Revision) -> str:
    named = [str(Change(**change)) for change in revision.changes[:_NAMED]]
    more = len(revision.changes) - len(named)
    return "; ".join([*named, *([f"{more} more"] if more else [])])
