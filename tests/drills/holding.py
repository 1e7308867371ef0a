"""Holds one drill in this process, and prints its outcome as JSON."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tests import servers as private

from .outcome import Broken, Outcome
from .runner import Drill

D = TypeVar("D", bound=Drill)


def main(
    package: str, description: str | None, drills: Mapping[str, D], hold: Callable[[D, bool], Outcome]
) -> int:
    """hold: one drill, with what it needs; its second argument is --quick."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("name", choices=drills, metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    drill = drills[options.name]
    try:
        outcome = hold(drill, options.quick)
    except private.Missing as missing:
        outcome = Outcome(drill.name, 0, 0, 0, None, passed=True, skipped=f"{missing} is not installed")
    except Exception as error:
        if not isinstance(error, Broken):
            traceback.print_exc()
        note = f"it could not be held: {type(error).__name__}: {error}"
        outcome = Outcome(drill.name, 0, 0, 0, None, passed=False, note=note)
    print(json.dumps(asdict(outcome)))
    return 0 if outcome.passed else 1


def keep(home: Path, name: str) -> None:
    """The files of a drill that failed, where DRILL_KEEP says; without the sockets."""
    if "DRILL_KEEP" in os.environ:
        to = Path(os.environ["DRILL_KEEP"], name)
        shutil.copytree(home, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("s"))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
