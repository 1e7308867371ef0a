"""The plan of a slow statement, from when it was slow: a plain EXPLAIN with its own parameters, soon after.

Parameters stay in memory until then; of the plan only what holds no value is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from django.db import Error, connections

from orm_app import explain

from . import normal, stored
from .finding import SLOW, Found

log = structlog.get_logger(__name__)

AGAIN_AFTER = timedelta(hours=1)
_MOST = 5  # of one flush
_TIMEOUT_S = 2.0


def keep(found: Sequence[Found]) -> None:
    """Raises what the default database raises; a plan that cannot be had is none."""
    wanted = [one for one in found if one.kind == SLOW and one.raw is not None]
    if not wanted:
        return
    known = stored.planned_since([one.fingerprint for one in wanted], datetime.now(UTC) - AGAIN_AFTER)
    slowest = sorted((one for one in wanted if one.fingerprint not in known), key=lambda one: -one.max_ms)
    for one in slowest[:_MOST]:
        text = _plan(one)
        if text:
            stored.keep_plan(one.fingerprint, text)


def _plan(one: Found) -> str:
    if one.raw is None or one.alias not in connections.settings:
        return ""
    sql, params = one.raw
    try:
        plan = explain.of(one.alias, sql, params, timeout_s=_TIMEOUT_S)
    except (Error, OSError, explain.CannotExplain, ValueError, TypeError) as error:
        log.debug("slow_query_without_plan", fingerprint=one.fingerprint, error=type(error).__name__)
        return ""
    finally:
        one.raw = None
    return normal.masked_plan(plan.text, connections[one.alias].vendor)
