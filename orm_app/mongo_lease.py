"""A lock as a document of MongoDB: whoever wrote it last holds it for a lease, and renews that while it works."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError

from . import mongo

COLLECTION = "brain_migration_lock"
_LEASE_S = 30.0
_KEY = {"_id": "migrate"}


class Lease:
    """Times are the server's: two machines' clocks may differ by more than a lease."""

    def __init__(self, connection: Any, lease_s: float = _LEASE_S) -> None:
        with mongo.errors_as_djangos():
            connection.ensure_connection()
        self._database = connection.database
        self._lease_s = lease_s
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()

    def takes(self) -> bool:
        from pymongo.errors import DuplicateKeyError

        now = self._now()
        ours = {"token": self._token, "until": now + timedelta(seconds=self._lease_s), "since": now}
        with mongo.errors_as_djangos():
            try:  # one that has run out is overwritten; beside one that has not, the insert meets its key
                self._leases.update_one(_KEY | {"until": {"$lte": now}}, {"$set": ours}, upsert=True)
            except DuplicateKeyError:
                return False
        threading.Thread(target=self._renew, name="migration-lease", daemon=True).start()
        return True

    def is_held(self) -> bool:
        with mongo.errors_as_djangos():
            found = self._leases.find_one(_KEY | {"token": self._token})
            return found is not None and found["until"] > self._now()

    def free(self) -> None:
        self._stop.set()
        # When the server is away it runs out by itself, and what broke the migrate must not be hidden by this.
        with suppress(DatabaseError), mongo.errors_as_djangos():
            self._leases.delete_one(_KEY | {"token": self._token})

    def holder(self) -> str:
        with mongo.errors_as_djangos():
            found = self._leases.find_one(_KEY)
        return f"since {found['since']:%H:%M:%S} UTC" if found else "another process"

    def _renew(self) -> None:
        from pymongo.errors import PyMongoError

        while not self._stop.wait(self._lease_s / 3):
            try:
                until = self._now() + timedelta(seconds=self._lease_s)
                self._leases.update_one(_KEY | {"token": self._token}, {"$set": {"until": until}})
            except PyMongoError:
                continue  # `is_held` says so when the lease has run out meanwhile

    def _now(self) -> datetime:
        found: datetime = self._database.command("hello")["localTime"]
        return found

    @property
    def _leases(self) -> Any:
        return self._database[COLLECTION]
