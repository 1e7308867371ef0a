"""What all sides stand on: a folder, the two cores, the upstream, and a migrated site to copy ours from."""

from __future__ import annotations

import contextlib
import itertools
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import ROOT, Broken, environment
from tests import servers

from . import cores, upstream

SETTINGS = "benchmarks.gateway.brain.settings"
COMMAND_S = 300.0  # for one command of manage.py
OPEN_FILES = 16_384


class Ground:
    def __init__(self, home: Path, where: cores.Cores, behind: upstream.Upstream) -> None:
        self.home, self.cores, self.upstream = home, where, behind
        self._numbers = itertools.count()
        self._migrated: Path | None = None

    def folder(self, name: str) -> Path:
        made = self.home / f"{next(self._numbers)}-{name}"
        made.mkdir()
        return made

    def migrated(self) -> Path:
        """A data directory of our site with its tables and nothing in them."""
        if self._migrated is None:
            folder = self.folder("migrated")
            manage(our_environment(folder, "redis://127.0.0.1:1/0"), "migrate", "--verbosity", "0")
            self._migrated = folder
        return self._migrated


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """Everything that is started on it runs on the load's core, unless it is put elsewhere."""
    where = cores.two()
    _allow_open_files()
    with (
        servers.scratch("bench") as home,
        cores.on(where.load),
        upstream.running(home / "upstream") as behind,
    ):
        yield Ground(home, where, behind)


def our_environment(data_dir: Path, redis_url: str) -> dict[str, str]:
    return environment(
        DJANGO_SETTINGS_MODULE=SETTINGS,
        BRAIN_DATA_DIR=data_dir,
        BRAIN_DEMO=0,
        BRAIN_LOG_LEVEL="WARNING",
        REDIS_URL=redis_url,
        PYTHONPATH=ROOT,
    )


def manage(env: dict[str, str], *arguments: str) -> str:
    """The output of a command of manage.py. Raises Broken with what it said when it fails."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=COMMAND_S)
    if done.returncode:
        raise Broken(f"manage.py {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
