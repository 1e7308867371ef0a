"""Fresh databases on the private servers, migrations written by a test, and migrate as a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.db import connections
from django.db.models.signals import post_migrate

from orm_app.databases import from_url
from tests import warm

ROOT = Path(__file__).parents[2]
ENGINES = ["sqlite", "postgresql", "mariadb"]

HEAD = "from django.db import migrations, models\n\n\n"


@contextlib.contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """The URL of an empty database on the server of `url`, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    _ask(url, f"CREATE DATABASE {name}" + (" CHARACTER SET utf8mb4" if url.startswith("mysql") else ""))
    try:
        yield url.rpartition("/")[0] + f"/{name}"
    finally:
        _ask(url, f"DROP DATABASE {name}" + (" WITH (FORCE)" if url.startswith("postgres") else ""))


def _ask(url: str, sql: str) -> None:
    parts = urlsplit(url)
    if url.startswith("postgres"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql)
        return
    import MySQLdb

    connection = MySQLdb.connect(host=parts.hostname, port=parts.port, user=parts.username)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)


@contextlib.contextmanager
def alias_of(url: str) -> Iterator[str]:
    from tests.conftest import _restore_role_groups

    alias = f"m_{uuid.uuid4().hex[:8]}"
    # It fills the groups' table after each migrate; ours is not made here.
    was_connected = post_migrate.disconnect(dispatch_uid="tests.role_groups")
    filled = connections.configure_settings({"default": from_url(url), alias: from_url(url)})
    connections.settings[alias] = filled[alias]
    try:
        yield alias
    finally:
        connections[alias].close()
        if hasattr(connections[alias], "close_pool"):
            connections[alias].close_pool()
        del connections[alias]
        del connections.settings[alias]
        if was_connected:
            post_migrate.connect(_restore_role_groups, dispatch_uid="tests.role_groups")


def url_of(engine: str, request: Any, tmp_path: Path, stack: contextlib.ExitStack) -> str:
    if engine == "sqlite":
        return f"sqlite:///{tmp_path}/m.sqlite3"
    return stack.enter_context(fresh_database(request.getfixturevalue(f"{engine}_url")))


class Package:
    """A migrations package in a directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.name = f"migrated_{uuid.uuid4().hex[:8]}"
        self.directory = directory
        self.path = directory / self.name
        self.path.mkdir()
        (self.path / "__init__.py").touch()

    def write(self, name: str, operations: str, *, after: str = "", head: str = "", body: str = "") -> Path:
        """operations: the Python text of the list; head: above the class; body: within it."""
        text = f"{HEAD}{head}\n\nclass Migration(migrations.Migration):\n"
        before = f"('migrated', '{after}')" if after else ""
        text += f"    dependencies = [{before}]\n"
        text += f"    {body}\n    operations = [{operations}]\n"
        path = self.path / f"{name}.py"
        path.write_text(text)
        for module in [module for module in sys.modules if module.startswith(f"{self.name}.")]:
            del sys.modules[module]
        importlib.invalidate_caches()
        return path


def environment(url: str, package: Package | None = None, **more: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("BRAIN_", "DATABASE_"))}
    env |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.orm_app.migrated_site"}
    env |= {"BRAIN_DATA_DIR": os.environ["BRAIN_DATA_DIR"], "PYTHONWARNINGS": "ignore"}
    if package:
        env |= {"MIGRATED_PACKAGE": package.name, "PYTHONPATH": str(package.directory)}
    return env | more


def start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "manage.py", *arguments]
    return warm.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[str], timeout_s: float = 300.0) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return process.returncode, output
