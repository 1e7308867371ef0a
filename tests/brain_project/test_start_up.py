"""What a command, a worker and the system checks import when they start, and what they leave for others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["brain_project.urls", "unfold.admin", "rest_framework.views", "drf_spectacular.views", "requests"]
RUN = """
import sys, manage
sys.argv = ["manage.py", *{argv!r}]
try:
    manage.main()
except SystemExit:
    pass
import json; print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""
CHECKED = """
import django, json; django.setup()
from django.contrib import admin
from django.core.checks import run_checks
before = len(admin.site._registry)
{break_it}
found = run_checks(tags=["admin"])
print(json.dumps([before, len(admin.site._registry), [one.id for one in found]]))
"""


def python(code: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "BRAIN_DATA_DIR": str(folder),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "brain_project.settings",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("command", ["queue --help", "queue stats", "gateway routes", "database", "cache"])
def test_command__tells_something_and_ends__imports_neither_urls_nor_admin(
    command: str, tmp_path: Path
) -> None:
    ended = python(RUN.format(argv=command.split(), heavy=HEAVY), tmp_path)
    assert json.loads(ended.stderr.splitlines()[-1]) == []


def test_check__the_admin_s_pages__are_all_looked_at(tmp_path: Path) -> None:
    before, after, found = checked("", tmp_path)
    assert (before, found) == (0, [])
    assert after > 20


def test_check__a_page_of_the_admin_is_wrong__is_told_once(tmp_path: Path) -> None:
    wrong = "from queue_app.admin.alerts import AlertAdmin; AlertAdmin.list_display = ['nobody']"
    *_, found = checked(wrong, tmp_path)
    assert found == ["admin.E108"]


def checked(break_it: str, folder: Path) -> Any:
    ended = python(CHECKED.format(break_it=break_it), folder)
    return json.loads(ended.stdout.splitlines()[-1])


def test_command__misspelt_setting__is_told_before_it_does_anything(tmp_path: Path) -> None:
    (tmp_path / "shop_settings.py").write_text(
        "from brain_project.settings import *\nBRAIN = BRAIN | {'QUEUE': {'MAX_RETRYS': 1}}\n"
    )
    code = "import sys, manage; sys.argv = ['manage.py', 'queue', 'list']; manage.main()"
    ended = python(
        code,
        tmp_path,
        DJANGO_SETTINGS_MODULE="shop_settings",
        PYTHONPATH=str(tmp_path),
        BRAIN_ENV="development",
    )
    assert ended.returncode == 1
    assert "(brain.E001) Unknown key 'MAX_RETRYS'" in ended.stderr
