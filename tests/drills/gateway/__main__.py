"""`python -m tests.drills.gateway NAME [--quick]`: hold one drill in this process; its outcome as JSON on stdout."""

from __future__ import annotations

import contextlib
import sys

from tests import servers as private
from tests.drills import servers
from tests.drills.holding import keep, main
from tests.drills.outcome import Outcome

from . import load
from .drill import Drill
from .rig import rig


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
            if not passed:
                keep(home, drill.name)


if __name__ == "__main__":
    try:
        sys.exit(main(__package__, __doc__, load(), hold))
    except KeyboardInterrupt:
        sys.exit(130)
