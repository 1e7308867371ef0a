"""Settings of the migrations that a drill kills: the tests' site, which can also end itself after a statement.

KILL_AFTER: by kill -9, right after that many statements have changed the schema, before anything else is done.
STATEMENTS: a file in which their number is left, when nothing kills it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

from tests.orm_app.migrated_site import *  # noqa: F403

_numbers = itertools.count(1)
_CHANGE = re.compile(r"\s*(?:CREATE|ALTER|DROP|RENAME)\b.*\bmigrated_", re.DOTALL)


def _counted(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    answer = execute(sql, params, many, context)
    if not _CHANGE.match(str(sql)):
        return answer
    number = next(_numbers)
    if number == int(os.environ.get("KILL_AFTER", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    if "STATEMENTS" in os.environ:
        Path(os.environ["STATEMENTS"]).write_text(str(number))
    return answer


def _watch(*, connection: Any, **_: object) -> None:
    if _counted not in connection.execute_wrappers:
        connection.execute_wrappers.append(_counted)


connection_created.connect(_watch, weak=False)
