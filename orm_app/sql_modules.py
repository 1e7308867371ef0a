"""An app's `sql/` folder → ordinary migration modules beside its others, one for each number without one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from django.apps import apps
from django.db.migrations.loader import MigrationLoader

from . import sql_files
from .sql_files import Script
from .sql_operations import SQLFiles

FOLDER = "sql"


class CannotWrite(LookupError):
    """The app has no folder of SQL, or several last migrations. The message says which."""


@dataclass(frozen=True, slots=True)
class Module:
    """A migration that is to be written."""

    app: str
    name: str
    path: Path
    text: str


def missing(app: str) -> list[Module]:
    """What `make-sql` would write for this app. Raises CannotWrite, BadFiles."""
    folder = Path(apps.get_app_config(app).path) / FOLDER
    if not folder.is_dir():
        raise CannotWrite(f"{folder} does not exist: put 001_name.up.sql and 001_name.down.sql there")
    loader = MigrationLoader(None, ignore_no_migrations=True)
    known = _known(loader, app)
    last = _last(loader, app)
    directory = _directory(app)
    found: list[Module] = []
    for script in sql_files.scan(folder):
        if script.stem not in known:
            name = f"{_number(last):04d}_{script.name}"
            found.append(
                Module(app, name, directory / f"{name}.py", _text(app, script, last, folder, directory))
            )
            last = name
    return found


def write(modules: list[Module]) -> None:
    for module in modules:
        module.path.parent.mkdir(exist_ok=True)
        (module.path.parent / "__init__.py").touch()
        module.path.write_text(module.text, encoding="utf-8")


def _known(loader: MigrationLoader, app: str) -> set[str]:
    return {
        operation.stem
        for (label, _), migration in loader.disk_migrations.items()
        if label == app
        for operation in migration.operations
        if isinstance(operation, SQLFiles)
    }


def _last(loader: MigrationLoader, app: str) -> str | None:
    leaves = [name for label, name in loader.graph.leaf_nodes(app)]
    if len(leaves) > 1:
        raise CannotWrite(
            f"{app} has several last migrations ({', '.join(leaves)}): run makemigrations --merge first"
        )
    return leaves[0] if leaves else None


def _number(last: str | None) -> int:
    match = re.match(r"\d+", last or "")
    return int(match[0]) + 1 if match else 1


def _directory(app: str) -> Path:
    name, _ = MigrationLoader.migrations_module(app)
    if name is None:
        raise CannotWrite(f"MIGRATION_MODULES says that {app} has no migrations")
    try:
        return Path(str(import_module(name).__file__)).parent
    except ModuleNotFoundError:
        return Path(apps.get_app_config(app).path) / "migrations"


def _text(app: str, script: Script, last: str | None, folder: Path, directory: Path) -> str:
    needs = ([(app, last)] if last else []) + script.depends_on
    # Relative to the module, so that the project can be moved.
    is_beside = directory.parent == folder.parent
    place = f'Path(__file__).resolve().parents[1] / "{FOLDER}"' if is_beside else repr(str(folder))
    lines = [
        f'"""{script.stem}, from its SQL files. `manage.py database make-sql {app}` wrote it."""',
        "",
        "from pathlib import Path",
        "",
        "from django.db import migrations",
        "",
        "from orm_app.sql_operations import SQLFiles",
        "",
        "",
        "class Migration(migrations.Migration):",
        *([] if script.is_atomic else ["    atomic = False"]),
        f"    dependencies = {needs!r}",
        f'    operations = [SQLFiles({place}, "{script.stem}")]',
        "",
    ]
    if not is_beside:
        lines = [line for line in lines if "pathlib" not in line]
    return "\n".join(lines)
