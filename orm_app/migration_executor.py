"""Django's executor, which knows how far it is: locked, within limits, tried again, and resumed where it broke.

migration in one transaction: its operations, its deferred SQL and its record commit together, or nothing does
migration without one (MySQL, atomic=False): a journal of what is committed; the next run goes on behind it
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, transaction
from django.db.migrations import Migration
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import RunPython

from . import checksums, migration_limits
from .migration_journal import Journal, signature
from .migration_limits import Limits
from .migration_lock import Held
from .sql_statements import DIALECTS

Step = tuple[Any, Any, Any]  # operation, the state it comes from, the state it leads to


class HalfApplied(CommandError):
    """Some operations of a migration are committed and the rest is not. The message says which, and how to go on."""


def _silent(*args: Any) -> None:
    """Nobody watches."""


@dataclass
class Run:
    """What the executor is told by the command. before: called with the executor and its plan, may raise."""

    limits: Limits = field(default_factory=Limits)
    may_resume: bool = False
    lock: Held = field(default_factory=Held)
    tell: Callable[[str], None] = _silent
    before: Callable[[MigrationExecutor, list[tuple[Migration, bool]]], None] = _silent
    on_operation: Callable[..., None] = _silent  # (migration, place from 0, operation, state before)
    sleep: Callable[[float], None] = time.sleep
    ran: list[tuple[str, str]] = field(default_factory=list)


class BrainExecutor(MigrationExecutor):
    """The watch (progress_callback) carries the Run; without one it works as Django's, and still cannot lose its way."""

    def __init__(self, connection: Any, progress_callback: Any = None) -> None:
        super().__init__(connection, progress_callback)
        self.run: Run = getattr(progress_callback, "run", None) or Run()

    def migrate(
        self,
        targets: Any,
        plan: Any = None,
        state: Any = None,
        fake: bool = False,
        fake_initial: bool = False,
    ) -> Any:
        plan = self.migration_plan(targets) if plan is None else plan
        self.run.before(self, plan)
        return super().migrate(targets, plan, state, fake, fake_initial)

    def apply_migration(
        self, state: Any, migration: Migration, fake: bool = False, fake_initial: bool = False
    ) -> Any:
        self.run.lock.check()
        # Only what is there already is Django's to note; the rest of a --fake-initial run breaks and goes on as ever.
        is_there = fake_initial and not fake and self.detect_soft_applied(state, migration)[0]
        if fake or is_there or self._is_foreign:
            state = super().apply_migration(state, migration, fake, fake_initial)
            checksums.store(self.connection, migration)
        else:
            self._tell("apply_start", migration)
            checksums.prepare(self.connection, migration)
            state = self._go(state, migration, is_backwards=False)
            self._tell("apply_success", migration)
        self.run.ran.append((migration.app_label, migration.name))
        return state

    def unapply_migration(self, state: Any, migration: Migration, fake: bool = False) -> Any:
        self.run.lock.check()
        if fake or self._is_foreign:
            state = super().unapply_migration(state, migration, fake)
            checksums.drop(self.connection, migration)
        else:
            self._tell("unapply_start", migration)
            state = self._go(state, migration, is_backwards=True)
            self._tell("unapply_success", migration)
        self.run.ran.append((migration.app_label, migration.name))
        return state

    @property
    def _is_foreign(self) -> bool:
        """MongoDB: no SQL, no tables for a journal; its backend knows Django's own executor."""
        return self.connection.vendor not in DIALECTS

    def _tell(self, action: str, migration: Migration) -> None:
        if self.progress_callback:
            self.progress_callback(action, migration, False)

    def _go(self, state: Any, migration: Migration, *, is_backwards: bool) -> Any:
        if self.connection.features.can_rollback_ddl and migration.atomic:
            return self._in_one_transaction(state, migration, is_backwards=is_backwards)
        return self._journalled(state, migration, is_backwards=is_backwards)

    # --- in one transaction ------------------------------------------------------------------------------------------
    def _in_one_transaction(self, state: Any, migration: Migration, *, is_backwards: bool) -> Any:
        pauses = migration_limits.pauses_s(self.run.limits)
        while True:
            try:
                # The operations change the state they are given: a second try needs the first one's.
                return self._once(state.clone(), migration, is_backwards=is_backwards)
            except DatabaseError as error:
                self._pause(error, pauses, f"{migration}")

    def _once(self, state: Any, migration: Migration, *, is_backwards: bool) -> Any:
        with self.connection.schema_editor(atomic=True) as editor:
            for place, (operation, before, after) in enumerate(steps(migration, state, is_backwards)):
                self._run_operation(editor, migration, place, (operation, before, after), is_backwards)
            # Django runs these on leaving, and records the migration after the commit: a kill between the two leaves
            # a migration that is applied and not known to be.
            deferred, editor.deferred_sql = editor.deferred_sql, []
            for statement in deferred:
                editor.execute(statement, None)
            self._record(migration, is_backwards)
        return state

    def _pause(self, error: DatabaseError, pauses: Iterator[float], what: str) -> None:
        """Raises the error when it will not pass, or was given its tries."""
        pause_s = next(pauses, None) if migration_limits.may_pass(error) else None
        if pause_s is None:
            raise error
        first_line = str(error).strip().partition("\n")[0]
        self.run.tell(f"{what}: {first_line}. Trying again in {pause_s:.1f} s.")
        self.run.sleep(pause_s)

    # --- without a transaction ---------------------------------------------------------------------------------------
    def _journalled(self, state: Any, migration: Migration, *, is_backwards: bool) -> Any:
        journal = Journal(self.connection, migration, is_backwards=is_backwards)
        self._refuse_unclear(journal, migration, is_backwards)
        journal.begin(is_backwards=is_backwards)
        try:
            self._run_journalled(journal, migration, state, is_backwards)
        except Exception as error:
            journal.broke(error)
            if journal.has_committed:
                raise HalfApplied(
                    report(migration, journal.done, journal.statements, str(error), is_backwards)
                ) from error
            raise
        # Recorded and forgotten together: killed between the two, the next run would find an applied one to resume.
        with transaction.atomic(self.connection.alias):
            self._record(migration, is_backwards)
            journal.close()
        return state

    def _refuse_unclear(self, journal: Journal, migration: Migration, is_backwards: bool) -> None:
        if not journal.has_committed:
            return
        said = report(migration, journal.done, journal.statements, journal.error, journal.is_backwards)
        if journal.is_backwards != is_backwards:
            raise HalfApplied(f"{said}\nFinish that direction first.")
        if journal.error and not self.run.may_resume:
            raise HalfApplied(said)
        operations = migration.operations[::-1] if is_backwards else migration.operations
        if journal.done != [signature(operation) for operation in operations][: len(journal.done)]:
            raise HalfApplied(
                f"{said}\nIts committed operations are not the first of the migration any more."
            )
        again = _runs_again(operations[len(journal.done) :][:1], migration)
        self.run.tell(
            f"{migration} was interrupted: {len(journal.done)} of {len(operations)} operations are done. Going on.{again}"
        )

    def _run_journalled(self, journal: Journal, migration: Migration, state: Any, is_backwards: bool) -> None:
        done = len(journal.done)
        with self.connection.schema_editor(atomic=False) as editor:
            plain = editor.execute
            editor.execute = lambda sql, params=(): journal.execute(
                sql, params, plain, lambda work: self._retried(work, f"{migration}")
            )
            editor.deferred_sql = list(journal.deferred)
            for place, step in enumerate(steps(migration, state, is_backwards)):
                if place < done:
                    continue
                finish = partial(journal.operation_done, step[0], editor)
                self._run_operation(editor, migration, place, step, is_backwards, finish)
            deferred, editor.deferred_sql = editor.deferred_sql, []
            for statement in deferred:
                editor.execute(statement, None)

    def _retried(self, work: Callable[[], None], what: str) -> None:
        pauses = migration_limits.pauses_s(self.run.limits)
        while True:
            try:
                return work()
            except DatabaseError as error:
                self._pause(error, pauses, what)

    # --- both --------------------------------------------------------------------------------------------------------
    def _run_operation(
        self, editor: Any, migration: Migration, place: int, step: Step, is_backwards: bool,
        finish: Callable[[], None] = _silent,
    ) -> None:  # fmt: skip
        operation, before, after = step
        self.run.on_operation(migration, place, operation, before)
        needs_own = not editor.atomic_migration and _is_atomic(operation, migration)
        with transaction.atomic(self.connection.alias) if needs_own else nullcontext():
            if is_backwards:
                operation.database_backwards(migration.app_label, editor, before, after)
            else:
                operation.database_forwards(migration.app_label, editor, before, after)
            finish()

    def _record(self, migration: Migration, is_backwards: bool) -> None:
        if not is_backwards:
            # As Django's `record_migration`, whose arguments are others in Django 6.
            for app_label, name in migration.replaces or [(migration.app_label, migration.name)]:
                self.recorder.record_applied(app_label, name)
            checksums.store(self.connection, migration)
            return
        for app_label, name in migration.replaces or ():
            self.recorder.record_unapplied(app_label, name)
        self.recorder.record_unapplied(migration.app_label, migration.name)
        checksums.drop(self.connection, migration)


def steps(migration: Migration, state: Any, is_backwards: bool) -> Iterator[Step]:
    """Forwards one at a time, changing `state`; backwards from the last, whose states must be known first."""
    if is_backwards:
        yield from _steps_backwards(migration, state)
        return
    for operation in migration.operations:
        before = state.clone()
        operation.state_forwards(migration.app_label, state)
        yield operation, before, state


def _steps_backwards(migration: Migration, state: Any) -> list[Step]:
    found: list[Step] = []
    after = state
    for operation in migration.operations:
        if not operation.reversible:
            raise IrreversibleError(f"Operation {operation} in {migration} is not reversible")
        before, after = after, after.clone()
        operation.state_forwards(migration.app_label, after)
        found.insert(0, (operation, after, before))
    return found


def report(
    migration: Migration, done: list[str], statements: list[str], error: str, is_backwards: bool
) -> str:
    """What is committed, what is not, and the two ways on."""
    operations = migration.operations[::-1] if is_backwards else migration.operations
    lines = [
        f"{migration} stands half way{' back' if is_backwards else ''}: its statements commit one by one here.",
        *(f"  committed  {number}. {_shown(text)}" for number, text in enumerate(done, 1)),
    ]
    for number, operation in enumerate(operations[len(done) :], len(done) + 1):
        partly = (
            f" ({len(statements)} of its statements committed)"
            if statements and number == len(done) + 1
            else ""
        )
        state = "broke in " if number == len(done) + 1 else "not run  "
        lines.append(f"  {state}  {number}. {operation.describe()}{partly}")
    if error:
        lines.append(f"  because    {error.strip().splitlines()[0] if error.strip() else error}")
    again = _runs_again(operations[len(done) :][:1], migration)
    lines.append(
        f"Go on: remove the cause, then `manage.py migrate --resume`; it skips what is committed.{again}"
    )
    lines.append(
        f"Or undo what is committed by hand, then `manage.py migrate --start-over {migration.app_label}.{migration.name}`."
    )
    return "\n".join(lines)


def _is_atomic(operation: Any, migration: Migration) -> bool:
    return bool(operation.atomic or (migration.atomic and operation.atomic is not False))


def _runs_again(next_ones: list[Any], migration: Migration) -> str:
    """Of Python without a transaction nobody knows how far it came."""
    for operation in next_ones:
        if isinstance(operation, RunPython) and not _is_atomic(operation, migration):
            return f" {operation.describe()} begins anew, and what it committed itself stays: see that it bears that."
    return ""


def _shown(signed: str) -> str:
    return signed.partition(": ")[2]
