from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.orm_app.documents_app.databases import fresh, require_driver

ROOT = Path(__file__).parents[2]


@pytest.mark.service
def test_program__on_the_four_engines__prints_the_same_on_each(
    tmp_path: Path, postgresql_url: str, mariadb_url: str, mongodb_url: str
) -> None:
    require_driver()
    urls = [f"sqlite://{tmp_path}/four.sqlite3", postgresql_url, mariadb_url, fresh(mongodb_url)]
    done = _run(*urls, BRAIN_DATA_DIR=str(tmp_path))
    first, *others = done.stdout.split("\n\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert others == ["postgres: the same\nmysql: the same\nmongodb: the same\n"]
    assert "refused: ann has not got 500.00; cyd 20.00, bob 50.00, ann 70.00" in first
    assert first.endswith("deleted 1 customer, and with it her orders: 1 is left")


def test_compared__one_prints_something_else__shown_and_exit_code_1(capsys: Any) -> None:
    from examples.four_engines.__main__ import compared

    assert compared({"sqlite://a": "1\n", "postgres://b/c": "1\n", "mongodb://d/e": "2\n"}) == 1
    assert capsys.readouterr().out == "sqlite:\n1\n\npostgres: the same\nmongodb:\n2\n\n"


def test_program__a_server_is_away__one_line_and_no_traceback(tmp_path: Path) -> None:
    urls = (
        f"sqlite://{tmp_path}/four.sqlite3",
        f"sqlite://{tmp_path}/no/such/directory.sqlite3",
        "oracle://a/b",
    )
    done = _run(*urls, BRAIN_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "not compared: sqlite oracle\n")
    assert "Traceback" not in done.stderr
    assert "error: sqlite: unable to open database file\n" in done.stderr
    assert "error: oracle: DATABASE_URLS: unknown scheme 'oracle'" in done.stderr


def _run(*urls: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("BRAIN_", "DJANGO_"))}
    command = [sys.executable, "-m", "examples.four_engines", *urls]
    return subprocess.run(command, cwd=ROOT, env=env | variables, capture_output=True, text=True, timeout=300)
