"""`manage.py database …` in the test's own process."""

from __future__ import annotations

import io
from typing import Any

from django.core.management import load_command_class


def database(*argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    command: Any = load_command_class("orm_app", "database")
    out, err = io.StringIO(), io.StringIO()
    command.stdout._out, command.stderr._out = out, err
    code = 0
    try:
        command.run_from_argv(["manage.py", "database", *argv])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, out.getvalue(), err.getvalue()
