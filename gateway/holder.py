"""The snapshot of one process: read from the database, kept on disk, swapped as a whole.

A database that is broken or absent leaves the last snapshot in use; a process that starts without one takes the copy
on disk. The copy holds what the rows hold: digests of keys, and secrets sealed under SECRET_KEY.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog
from django.db import Error as DatabaseProblem  # InterfaceError is no DatabaseError
from django.db import transaction
from django.utils import timezone

from orm_app import db

from . import callers, cuts, known_issuers, models, revocations
from . import rows as stored
from .conf import conf
from .living import Living
from .outages import Outage
from .pool import Target
from .snapshot import Entries, Snapshot, compile

log = structlog.get_logger(__name__)

_PARTS = {"version", "entries", "revoked"}  # of what is read and kept


class Holder:
    """`snapshot` may be read at any time; `refresh` blocks and belongs in a thread."""

    def __init__(self, file: Path | None = None) -> None:
        self.snapshot = Snapshot()
        self.living = Living()
        self.retired: list[Target] = []  # by the last refresh; their idle connections are to be closed
        self._file = file
        self._rows: dict[str, Any] = {}
        self._guard = threading.Lock()
        self._checked_at = 0.0
        self.known_at = time.monotonic()  # when it was last seen to be the newest

    def refresh_if_due(self) -> Snapshot:
        """For callers without a poller: looks at the version at most once in SNAPSHOT_POLL_S."""
        if time.monotonic() - self._checked_at >= conf().SNAPSHOT_POLL_S or self.snapshot.version < 0:
            self.refresh()
        return self.snapshot

    def refresh(self) -> bool:
        """Build and swap when the version or an address may have changed; whether it was swapped. Never raises for a
        database that fails."""
        with self._guard:
            self._checked_at = time.monotonic()
            try:
                if current_version() != self.snapshot.version or not self._rows:
                    return self._adopt(read(), save=True)
                self.known_at = self._checked_at
                self.living.keep_keys_fresh()
                if time.monotonic() - self.snapshot.resolved_at >= conf().RESOLVE_S:
                    return self._adopt(self._rows, save=False)
            except DatabaseProblem as error:
                log.warning("snapshot_kept", version=self.snapshot.version, error=type(error).__name__)
                if self.snapshot.version < 0:
                    return self._from_disk()
            return False

    def mark_used(self, digests: Iterable[bytes]) -> None:
        """Write down that these API keys were used just now. Blocks: call it in a thread."""
        used = [digest.hex() for digest in digests]
        with contextlib.suppress(DatabaseProblem):  # a date that is a little too old is no reason to complain
            models.ApiKey.objects.filter(digest__in=used).update(last_used_at=timezone.now())

    def _adopt(self, rows: dict[str, Any], *, save: bool) -> bool:
        before, now = self.snapshot, time.monotonic()
        try:
            entries, wall = entries_of(rows), timezone.now().timestamp()
            cut, kin = rows.get("cuts", ()), rows.get("kin", ())  # a copy on disk may be older than they are
            who = callers.read(entries, rows["revoked"], self.living.key_sources, wall, cut, kin)
            fresh = compile(entries, who, rows["version"], self.living, before, now=now, wall=wall)
        except (ValueError, KeyError, TypeError) as error:
            log.error("snapshot_kept", version=before.version, refused=rows.get("version"), error=str(error))
            return False
        self.retired = self.living.retire(fresh.services)
        self.snapshot, self._rows = fresh, rows
        if fresh.version != before.version:
            log.info("snapshot_loaded", version=fresh.version, routes=len(fresh.routes), keys=len(fresh.keys))
        _tell(fresh.outages, before.outages)
        if save and self._file is not None:
            _write(self._file, rows)
        return True

    def _from_disk(self) -> bool:
        if self._file is None:
            return False
        try:
            rows = orjson.loads(self._file.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("snapshot_copy_unusable", error=type(error).__name__)
            return False
        if not isinstance(rows, dict) or not rows.keys() >= _PARTS:
            log.warning("snapshot_copy_unusable", error="it is no copy of a configuration")
            return False
        log.warning("snapshot_from_disk", version=rows["version"])
        return self._adopt(rows, save=False)


def _tell(now: Sequence[Outage], before: Sequence[Outage]) -> None:
    """Each one once: a snapshot is made anew every RESOLVE_S."""
    was, still = {(one.kind, one.name, one.code) for one in before}, {(one.kind, one.name) for one in now}
    for one in now:
        if (one.kind, one.name, one.code) not in was:
            log.error("out_of_service", kind=one.kind, name=one.name, code=one.code, reason=one.reason)
    for one in before:
        if (one.kind, one.name) not in still:
            log.info("in_service_again", kind=one.kind, name=one.name)


def current_version() -> int:
    """0 before the first change. Raises django.db.Error."""
    return models.Configuration.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def read() -> dict[str, Any]:
    """All rows of one moment as JSON types: {"version", "entries": [[kind, name, fields]], "revoked", "cuts", "kin"}.
    Raises django.db.Error."""
    with one_moment():
        return {
            "version": current_version(),
            "entries": [[*entry, fields] for entry, fields in stored.current().items()],
            "revoked": [[one.issuer, one.jti, one.digest, one.expires_at] for one in revocations.living()],
            "cuts": [[one.issuer, one.subject, one.issued_until, one.expires_at] for one in cuts.living()],
            "kin": [sorted(names) for names in known_issuers.all_groups()],
        }


def one_moment() -> contextlib.AbstractContextManager[Any]:
    """All queries of the block see what was committed when it began: read committed, as the servers have it otherwise,
    would give half of a change that commits between two of them. In a transaction of the caller it is the caller's."""
    if transaction.get_connection().in_atomic_block:
        return contextlib.nullcontext()
    return db.transaction(isolation="repeatable read")


def entries_of(rows: dict[str, Any]) -> Entries:
    return {(kind, name): fields for kind, name, fields in rows["entries"]}


def _write(file: Path, rows: dict[str, Any]) -> None:
    """A disk that is full leaves the copy as it was; the edge goes on."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(orjson.dumps(rows))
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, file)
    except (OSError, TypeError) as error:  # TypeError: a value that orjson does not write
        log.warning("snapshot_copy_failed", error=getattr(error, "strerror", None) or str(error))
        with contextlib.suppress(OSError):
            fresh.unlink()
