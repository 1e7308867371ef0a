"""How thorough a run is. BRAIN_TEST_PROFILE=deep: four times the examples, and every process starts from nothing."""

from __future__ import annotations

import os

IS_DEEP = os.environ.get("BRAIN_TEST_PROFILE") == "deep"
USUAL_EXAMPLES = 100  # Hypothesis's own


def examples(count: int) -> int:
    """So many of a deep run's `count` examples."""
    return count if IS_DEEP else max(6, count // 4)
