"""The list of the database's drills."""

from __future__ import annotations

from tests.drills.plain import Drill, lister

DRILLS: dict[str, Drill] = {}
drill = lister(DRILLS)
