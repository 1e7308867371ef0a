"""`python -m tests.drills.cache NAME [--quick]`: hold one drill in this process; its outcome as JSON on stdout."""

from __future__ import annotations

import sys

from tests.drills.holding import main
from tests.drills.plain import holder

from . import load
from .rig import Rig

if __name__ == "__main__":
    try:
        sys.exit(main(__package__, __doc__, load(), holder(Rig)))
    except KeyboardInterrupt:
        sys.exit(130)
