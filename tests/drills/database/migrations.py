"""`manage.py migrate`, killed while it works, and several of them at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills.outcome import Broken
from tests.orm_app.migrating import Package, environment, fresh_database

from .banks import Asked, File
from .drill import drill
from .servers import ENGINES
from .verdict import uneven

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

ROOT = Path(__file__).resolve().parents[3]
ROWS = 300
STEPS = ("fill", "square", "sql", "copy", "tail", "last")  # each leaves one line in the table migrated_log
NAMES = ("0001_tables", "0002_square", "0003_renamed", "0004_tail")
_LOCK_S = 3.0  # the next migrate may wait so long for the lock of one that was killed
_STARTED = "Running migrations:"

_HEAD = f"""
import time

def log(apps, editor, step):
    apps.get_model('migrated', 'Log').objects.using(editor.connection.alias).create(step=step)
    time.sleep(0.05)

def fill(apps, editor):
    rows = apps.get_model('migrated', 'Item').objects.using(editor.connection.alias)
    rows.bulk_create(rows.model(n=n) for n in range({ROWS}))
    log(apps, editor, 'fill')

def square(apps, editor):
    for row in apps.get_model('migrated', 'Item').objects.using(editor.connection.alias).order_by('n')[:50]:
        row.square = (row.square or 0) + row.n * row.n
        row.save()
    log(apps, editor, 'square')

def copy(apps, editor):
    using = editor.connection.alias
    notes = apps.get_model('migrated', 'Note').objects.using(using)
    for row in apps.get_model('migrated', 'Item').objects.using(using).order_by('n')[:100]:
        notes.create(text=f'note {{row.n}}')
    log(apps, editor, 'copy')

def last(apps, editor):
    log(apps, editor, 'last')
"""
_TABLES = """
    migrations.CreateModel('Log', [('id', models.BigAutoField(primary_key=True)), ('step', models.CharField(max_length=20))]),
    migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), ('n', models.IntegerField()), ('m', models.IntegerField(default=7))]),
    migrations.RunPython(fill),
    migrations.AddIndex('item', models.Index(fields=['n'], name='item_n')),
"""
_SQUARE = """
    migrations.AddField('item', 'square', models.IntegerField(null=True)),
    migrations.RunPython(square),
    migrations.AddField('item', 'label', models.CharField(max_length=20, default='none')),
    migrations.RunSQL("INSERT INTO migrated_log (step) VALUES ('sql')"),
    migrations.AddConstraint('item', models.UniqueConstraint(fields=['n'], name='item_n_once')),
"""
_RENAMED = """
    migrations.RenameField('item', 'm', 'kept'),
    migrations.CreateModel('Memo', [('id', models.BigAutoField(primary_key=True)), ('text', models.CharField(max_length=20))]),
    migrations.RenameModel('Memo', 'Note'),
    migrations.RunPython(copy),
    migrations.RemoveField('item', 'label'),
    migrations.RenameIndex('item', 'item_number', old_name='item_n'),
"""
_TAIL = """
    migrations.AddField('note', 'item', models.ForeignKey('migrated.Item', models.CASCADE, null=True)),
    migrations.RunSQL("INSERT INTO migrated_log (step) VALUES ('tail')"),
    migrations.AlterField('item', 'square', models.BigIntegerField(null=True)),
    migrations.RunPython(last),
"""


def _package(home: Path) -> Package:
    package = Package(home)
    package.write(NAMES[0], _TABLES, head=_HEAD)
    package.write(NAMES[1], _SQUARE, after=NAMES[0], head=_HEAD)
    package.write(NAMES[2], _RENAMED, after=NAMES[1], head=_HEAD)
    package.write(NAMES[3], _TAIL, after=NAMES[2], head=_HEAD, body="atomic = False")
    return package


# --- killed -----------------------------------------------------------------------------------------------------------
def _killed(rig: Rig, kind: str) -> Outcome:
    """kill -9 right after a statement that changes the schema, each of them in turn, then at random moments of the next
    runs. In the end every step was done once, all rows are right, and the lock of the dead was free at once."""
    kills_wanted = 5 if rig.quick else 20
    site = Site(rig, kind)
    whole = site.rehearsed()
    statements = random.sample(range(1, whole.statements + 1), whole.statements)
    kills = rounds = resumed = 0
    slowest_s = 0.0
    # Where each statement commits by itself, every one of them is a moment of its own.
    rounds_wanted = len(statements) if kind == "mariadb" and not rig.quick else 1
    while kills < kills_wanted or rounds < rounds_wanted:
        rounds += 1
        with site.database() as asked:
            moment: Moment | None = Moment(statement=statements[rounds % len(statements)])
            while True:
                run = site.migrate(moment)
                slowest_s = max(slowest_s, run.began_s)
                rig.claim("Another migrate" not in run.said, f"the lock was not free: {run.said[-300:]}")
                if run.code != -signal.SIGKILL:
                    break
                kills += 1
                resumed += _is_told(rig, kind, asked)
                moment = Moment(after_s=random.random() * whole.took_s) if kills % 2 else None
            rig.claim(run.code == 0, f"migrate ended with {run.code}: {run.said[-600:]}")
            if run.code:
                break
            _check(rig, asked, kind)
    rig.claim(slowest_s < whole.began_s * 3 + _LOCK_S, f"a migrate began after {slowest_s:.1f} s")
    note = f"{kills} kills in {rounds} migrations of {whole.statements} statements on the schema; {resumed} found in the journal"
    return rig.outcome(note)


@dataclass(frozen=True, slots=True)
class Run:
    code: int
    said: str
    began_s: float  # until it had the lock and a plan
    took_s: float  # from then on
    statements: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """A kill: so long after the migrate has begun, or after so many statements on the schema."""

    after_s: float | None = None
    statement: int = 0


class Site:
    """The command with a package of migrations, on one fresh database after another."""

    def __init__(self, rig: Rig, kind: str) -> None:
        self._rig, self._kind = rig, kind
        self._url, self._server = rig.url(kind)
        self._package = _package(rig.home)
        data = rig.home / "data"
        data.mkdir(mode=0o700)
        os.environ["BRAIN_DATA_DIR"] = str(data)
        self._number = 0
        self._now = ""

    @contextlib.contextmanager
    def database(self) -> Iterator[Asked]:
        if self._server is None:
            self._number += 1
            path = self._rig.home / f"m{self._number}.sqlite3"
            self._now = f"sqlite:///{path}"
            yield File(path)
            return
        with fresh_database(self._url) as self._now:
            yield self._server.on(self._now)

    def rehearsed(self) -> Run:
        """Nothing kills it."""
        with self.database() as asked:
            counted = self._rig.home / "statements"
            run = self.migrate(None, STATEMENTS=str(counted))
            if run.code:
                raise Broken(f"the migration does not work: {run.said[-1500:]}")
            _check(self._rig, asked, self._kind)
            return Run(run.code, run.said, run.began_s, run.took_s, int(counted.read_text()))

    def migrate(self, moment: Moment | None, **more: str) -> Run:
        if moment is not None and moment.statement:
            more["KILL_AFTER"] = str(moment.statement)
        process = self.start(**more)
        began = time.monotonic()
        said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith(_STARTED):
                break
        started = time.monotonic()
        if moment is not None and moment.after_s is not None:
            time.sleep(moment.after_s)
            process.kill()
        said.append(process.communicate(timeout=120)[0] or "")
        return Run(process.returncode, "".join(said), started - began, time.monotonic() - started)

    def start(self, **more: str) -> subprocess.Popen[str]:
        env = environment(self._now, self._package, **more) | {"PYTHONUNBUFFERED": "1"}
        env["DJANGO_SETTINGS_MODULE"] = f"{__package__}.migrated_site"
        command = [sys.executable, "manage.py", "migrate", "migrated", "--wait", "60"]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _is_told(rig: Rig, kind: str, asked: Asked) -> bool:
    """After a kill: where statements commit one by one, the journal knows of a migration that has begun."""
    tables = _tables(asked, kind)
    if "brain_migration_progress" not in tables:
        return False
    rows = asked.ask("SELECT name, error, done FROM brain_migration_progress")
    rig.claim(len(rows) <= 1, f"{len(rows)} migrations stand half way: {rows}")
    rig.claim(all(not error for _, error, _ in rows), f"a kill is no error: {rows}")
    recorded = {name for (name,) in asked.ask("SELECT name FROM django_migrations WHERE app = 'migrated'")}
    rig.claim(not recorded & {name for name, _, _ in rows}, f"applied, and in the journal: {rows}")
    if kind == "mariadb":
        started = "migrated_item" in tables
        rig.claim(
            not started or NAMES[0] in recorded or rows, "a table is there, and the journal knows nothing"
        )
    return bool(rows)


def _check(rig: Rig, asked: Asked, kind: str) -> None:
    """The schema and the rows as they must be at the end."""
    odd = uneven((step for (step,) in asked.ask("SELECT step FROM migrated_log")), STEPS)
    rig.claim(not odd, f"steps that were not done once: {', '.join(odd)}")
    rows = asked.ask("SELECT n, square, kept FROM migrated_item ORDER BY n")
    right = [(n, n * n if n < 50 else None, 7) for n in range(ROWS)]
    rig.claim([tuple(row) for row in rows] == right, f"{len(rows)} rows, or a wrong square")
    notes = asked.ask("SELECT text, item_id FROM migrated_note ORDER BY id")
    rig.claim([text for text, _ in notes] == [f"note {n}" for n in range(100)], f"{len(notes)} notes")
    tables = _tables(asked, kind)
    rig.claim("migrated_memo" not in tables, "the old name of a table is there")
    indexes = _indexes(asked, kind)
    rig.claim(
        {"item_number", "item_n_once"} <= indexes and "item_n" not in indexes, f"indexes: {sorted(indexes)}"
    )
    applied = [
        name for (name,) in asked.ask("SELECT name FROM django_migrations WHERE app = 'migrated' ORDER BY id")
    ]
    rig.claim(applied == list(NAMES), f"recorded: {applied}")
    if "brain_migration_progress" in tables:
        rig.claim(not asked.ask("SELECT 1 FROM brain_migration_progress"), "the journal is not empty")


def _tables(asked: Asked, kind: str) -> set[str]:
    schema = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
        "mariadb": "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    }
    return {name for (name,) in asked.ask(schema[kind])}


def _indexes(asked: Asked, kind: str) -> set[str]:
    sql = {
        "sqlite": "SELECT name FROM sqlite_master WHERE tbl_name = 'migrated_item' AND type = 'index'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'migrated_item'",
        "mariadb": "SELECT index_name FROM information_schema.statistics"
        " WHERE table_name = 'migrated_item' AND table_schema = DATABASE()",
    }
    found = {name for (name,) in asked.ask(sql[kind])}
    if kind == "sqlite":  # there a constraint is part of the table's text
        (text,) = asked.ask("SELECT sql FROM sqlite_master WHERE name = 'migrated_item'")[0]
        found |= {"item_n_once"} if "item_n_once" in text else set()
    return found


# --- at once ----------------------------------------------------------------------------------------------------------
def _at_once(rig: Rig, kind: str) -> Outcome:
    """Two, and eight, started in the same moment on an empty database: one works, the others wait and find nothing."""
    site = Site(rig, kind)
    started = worked = 0
    seconds = 0.0
    for count in (2, 8) if rig.quick else (2, 8, 2, 8, 2, 8):
        with site.database() as asked:
            began = time.monotonic()
            processes = [site.start() for _ in range(count)]
            said = [process.communicate(timeout=240)[0] for process in processes]
            seconds = max(seconds, time.monotonic() - began)
            wrong = [text for process, text in zip(processes, said, strict=True) if process.returncode]
            rig.claim(not wrong, f"{len(wrong)} of {count} failed: {(wrong or [''])[0][-500:]}")
            busy = [text for text in said if any(f"Applying migrated.{name}" in text for name in NAMES)]
            idle = [text for text in said if "No migrations to apply" in text]
            rig.claim(len(busy) == 1, f"{len(busy)} of {count} applied something")
            rig.claim(len(idle) == count - 1, f"{len(idle)} of {count} found nothing to do")
            _check(rig, asked, kind)
            started, worked = started + count, worked + len(busy)
    return rig.outcome(f"{started} started, {worked} of them worked; eight at once took {seconds:.0f} s")


def _register(kind: str) -> None:
    @drill(f"migrate-killed-{kind}", quick_s=240, full_s=700)
    def killed(rig: Rig) -> Outcome:
        return _killed(rig, kind)

    @drill(f"migrates-at-once-{kind}", quick_s=200, full_s=400)
    def at_once(rig: Rig) -> Outcome:
        return _at_once(rig, kind)


for _kind in (*ENGINES, "sqlite"):
    _register(_kind)
