"""`python -m tests.drills.gateway NAME [--quick]`: hold one drill in this process; its outcome as JSON on stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests import servers as private
from tests.drills import servers
from tests.drills.outcome import Broken, Outcome

from . import load
from .drill import Drill
from .rig import rig


def main() -> int:
    drills = load()
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
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


def hold(drill: Drill, quick: bool) -> Outcome:
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(private.scratch("drill"))
        url = stack.enter_context(servers.database(drill.database, home))
        store = stack.enter_context(servers.valkey(home))
        here = stack.enter_context(
            rig(
                drill.name,
                quick=quick,
                home=home,
                database_url=url,
                store=store,
                limit_s=drill.limit_s(quick),
            )
        )
        passed = False
        try:
            outcome = drill.hold(here)
            passed = outcome.passed
            return outcome
        finally:
            here.close()
            if not passed and "DRILL_KEEP" in os.environ:
                keep = Path(os.environ["DRILL_KEEP"], drill.name)
                shutil.copytree(home, keep, dirs_exist_ok=True, ignore=lambda *_: {"s"})


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
