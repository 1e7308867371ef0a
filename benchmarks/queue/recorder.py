"""The recorder alone: events per second from a full stream into PostgreSQL. The goal is 30,000."""

from __future__ import annotations

from benchmarks.figures import Figure

from .plan import Plan


def figures(plan: Plan) -> list[Figure]:
    """None yet: what fills the stream and calls the recorder is written once it is there."""
    plan.note("recorder, events per second: not available yet (queue_app.broker.recorder is missing)")
    return []
