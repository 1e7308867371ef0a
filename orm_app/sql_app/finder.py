"""Python's import hook for `orm_app.sql_app.migrations`: one module for each declared migration.

Django looks for migrations as modules of a package (pkgutil, import_module) and only so; being found that way,
showmigrations, sqlmigrate, squashing and every other reader of migrations work unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PATH = "orm_app.sql_app migrations"  # no directory: the one entry of the package's __path__
_PACKAGE = "orm_app.sql_app.migrations"


class _Finder:
    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        from orm_app.sql_migrations import migration_manager

        for migration in migration_manager.declared():
            yield prefix + migration.key, False

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        from orm_app.sql_migrations import migration_manager

        key = fullname.rpartition(".")[2]
        if migration_manager.as_django(key) is None:
            return None
        return ModuleSpec(fullname, _Loader(key), origin="orm_app.Migration")

    def invalidate_caches(self) -> None:
        """Nothing is cached."""


class _Loader(Loader):
    def __init__(self, key: str) -> None:
        self._key = key

    def exec_module(self, module: ModuleType) -> None:
        from orm_app.sql_migrations import migration_manager

        module.Migration = migration_manager.as_django(self._key)  # type: ignore[attr-defined]


def _hook(path: str) -> Any:
    if path != PATH:
        raise ImportError(path)
    return _Finder()


def install() -> None:
    if _hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _hook)
        sys.path_importer_cache.pop(PATH, None)


def forget() -> None:
    """The chain has changed: whoever follows in it depends on another one now."""
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        del sys.modules[name]
