"""`python -m tests.drills.database NAME [--quick]`: hold one drill in this process; its outcome as JSON on stdout."""

from __future__ import annotations

import sys

from tests import servers as private
from tests.drills.holding import keep, main
from tests.drills.outcome import Outcome

from . import load
from .drill import Drill
from .rig import Rig


def hold(drill: Drill, quick: bool) -> Outcome:
    with private.scratch("drill") as home, Rig(drill.name, home, quick=quick) as rig:
        passed = False
        try:
            outcome = drill.hold(rig)
            passed = outcome.passed
            return outcome
        finally:
            if not passed:
                keep(home, drill.name)


if __name__ == "__main__":
    try:
        sys.exit(main(__package__, __doc__, load(), hold))
    except KeyboardInterrupt:
        sys.exit(130)
