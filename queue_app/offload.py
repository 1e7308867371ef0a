"""Payloads too large for a job's row: a compressed Blob of their own, and JSON's null in the row.

A payload is an object, so a null says without another column that it is elsewhere. The row stays small for whoever
reads jobs by the thousand; who needs the payload (the handler, a page about this one job) loads it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from . import payloads, secret_fields
from .models import Blob, Job

ELSEWHERE = "null"
_LEVEL = 1  # JSON shrinks to a third at once; what more levels gain costs ten times as long


class PayloadLost(Exception):
    """The job's row says that its payload is in a blob, and there is none."""


def store(texts: Iterable[tuple[UUID, str]]) -> None:
    """In the transaction of the jobs' rows."""
    Blob.objects.bulk_create([_blob(job_id, text) for job_id, text in texts], batch_size=10)


def replace(job_id: UUID, text: str | None) -> None:
    """The payload of a waiting job is another one now; None: it fits into the row."""
    Blob.objects.filter(job_id=job_id).delete()
    if text is not None:
        store([(job_id, text)])


def load(job_id: UUID) -> dict[str, Any]:
    """Raises PayloadLost."""
    body = Blob.objects.filter(job_id=job_id).values_list("body", flat=True).first()
    if body is None:
        raise PayloadLost(f"the payload of job {job_id} is not in its row and has no blob")
    return payloads.parse(zlib.decompress(body).decode())


def shown(job: Job) -> Any:
    """A job's payload, wherever it is, as people may see it: what is sealed is masked. None when it is lost."""
    try:
        return secret_fields.mask(load(job.id) if job.payload is None else job.payload)
    except PayloadLost:
        return None


def _blob(job_id: UUID, text: str) -> Blob:
    raw = text.encode()
    return Blob(job_id=job_id, body=zlib.compress(raw, _LEVEL), size_bytes=len(raw))
