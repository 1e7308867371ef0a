"""A clean checkout in a temporary directory, driven from outside the way its user drives it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from foundation import roles
from orm_app.models import User

REPOSITORY = Path(__file__).resolve().parents[2]
_NOT_A_USERS = (
    "BRAIN_",
    "DJANGO_",
    "PYTEST_",
    "DATABASE_URL",
    "REDIS_URL",
    "BROKER_URL",
    "VIRTUAL_ENV",
    "PYTHONDEVMODE",
)


def clean_environment(**more: str) -> dict[str, str]:
    """A new user's shell: nothing of this test run, and this run's virtual environment off the PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_A_USERS)}
    ours = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part != ours)
    return {**kept, **more}


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """What git would give somebody who clones this tree now: tracked files, and new ones that are not ignored."""
    home = Path(tempfile.mkdtemp(prefix="brain-e2e-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (REPOSITORY / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, home / name)
    yield home
    left = processes_below(home)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, 9)
    shutil.rmtree(home, ignore_errors=True)
    assert left == {}


def processes_below(directory: Path) -> dict[int, str]:
    """pid → command line of every process that runs in `directory` or was started from a file below it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if command and (str(directory) in command or where.startswith(str(directory))):
            found[int(entry.name)] = command
    return found


@pytest.fixture
def somebody(transactional_db: None) -> User:
    user = User.objects.create_user("ann", "ann@example.com", is_staff=True)
    roles.grant(user, roles.ADMIN)
    return user


@pytest.fixture
def cookie(somebody: User, live_server: Any) -> Any:
    """The cookie of an admin; made before the browser, in whose thread Django refuses to ask the database."""
    client = Client()
    client.force_login(somebody)
    name = settings.SESSION_COOKIE_NAME
    return {"name": name, "value": client.cookies[name].value, "url": live_server.url}
