"""Who acts when a command does."""

from __future__ import annotations

import getpass


def trace() -> dict[str, str]:
    """As `audit.by`."""
    return {"actor": getpass.getuser(), "source": "cli"}
