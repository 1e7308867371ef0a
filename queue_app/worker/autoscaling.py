"""Celery's autoscaler, which counts its own reserved tasks only, with the ledger's jobs that this worker holds."""

from __future__ import annotations

from celery.worker import autoscale


class Autoscaler(autoscale.Autoscaler):
    @property
    def qty(self) -> int:
        engine = getattr(self.worker, "queue_engine", None)
        return len(engine.held) + super().qty if engine is not None else super().qty
