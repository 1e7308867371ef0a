from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, connections

from orm_app import replicas, work
from orm_app.databases import from_url
from tests import servers

from . import replicated
from .replicated import CLONE, ONE, chosen, state, until_caught_up

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def nodes(django_db_blocker: Any) -> Iterator[tuple[servers.MariaNode, servers.MariaNode]]:
    with django_db_blocker.unblock(), replicated.started(servers.mariadb_replicated()) as (primary, replica):
        entries = {CLONE: from_url(primary.url), ONE: from_url(replica.url, replica_of=CLONE)}
        with replicated.aliases(entries), replicated.patient(), chosen(APPS={"contenttypes": CLONE}):
            with connections[CLONE].schema_editor() as editor:
                editor.create_model(ContentType)
            try:
                yield primary, replica
            finally:
                replicas.stop()


def test_reads__replication_stops_and_goes_on__old_rows_never_after_a_read_from_the_primary(
    nodes: tuple[servers.MariaNode, servers.MariaNode], django_db_blocker: Any
) -> None:
    _, replica = nodes
    with django_db_blocker.unblock():
        until_caught_up(ONE)
        replica.as_root("STOP SLAVE SQL_THREAD")
        with work.unit("command", "test", ""):
            assert list(ContentType.objects.values_list("model", flat=True)) == []
            assert ContentType.objects.all().db == ONE
            ContentType.objects.create(app_label="test", model="x")
            assert list(ContentType.objects.values_list("model", flat=True)) == ["x"]
        with chosen(APPS={"contenttypes": CLONE}, REPLICA_MAX_LAG_S=0.5):
            replicated.until(lambda: "behind, more than 0.5 s" in state(ONE).reason)
        replica.as_root("START SLAVE SQL_THREAD")
        until_caught_up(ONE)
        with work.unit("command", "test", ""):
            assert ContentType.objects.get().model == "x"
            assert ContentType.objects.all().db == ONE


def test_replica__no_log_position__gets_no_reads(
    nodes: tuple[servers.MariaNode, servers.MariaNode], django_db_blocker: Any
) -> None:
    """A server that follows nobody, here the primary: without this each of them would look fresh."""
    entry = from_url(nodes[0].url, replica_of=CLONE)
    with django_db_blocker.unblock(), replicated.aliases({"alone": entry}):
        replicated.until(lambda: "no GTID position" in state("alone").reason)


def test_replica__killed_connection__one_read_fails_and_the_next_takes_the_primary(
    nodes: tuple[servers.MariaNode, servers.MariaNode], django_db_blocker: Any
) -> None:
    _, replica = nodes
    with django_db_blocker.unblock(), work.unit("command", "test", ""):
        until_caught_up(ONE)
        with chosen(APPS={"contenttypes": CLONE}, REPLICA_PROBE_S=30.0), connections[ONE].cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            replica.as_root(f"KILL {cursor.fetchone()[0]}")
            with pytest.raises(OperationalError):
                cursor.execute("SELECT 1")
            assert state(ONE).reason
            assert ContentType.objects.all().db == CLONE
        connections[ONE].close()
    replicas.stop()
