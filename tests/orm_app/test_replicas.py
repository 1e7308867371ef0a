from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from prometheus_client import CollectorRegistry, generate_latest

from orm_app import asking, checkups, db, replica_probes, replicas, rereading, standing, status, work
from orm_app.middleware import UnitOfWorkMiddleware
from tests import servers
from tests.drills.processes import children_of

from . import replicated
from .replicated import CLONE, ONE, OTHER, OTHER_ONE, TWO, chosen, state, until_caught_up, until_usable

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def cluster(django_db_blocker: Any) -> Iterator[servers.PostgresCluster]:
    with (
        django_db_blocker.unblock(),
        replicated.started(servers.postgresql_cluster()) as made,
        replicated.site_of(made),
    ):
        yield made


@pytest.fixture
def site(cluster: servers.PostgresCluster, django_db_blocker: Any) -> Iterator[servers.PostgresCluster]:
    """Nothing is in the tables, and both replicas know."""
    with django_db_blocker.unblock():
        ContentType.objects.using(CLONE)._raw_delete(CLONE)
        until_caught_up(ONE, TWO, OTHER_ONE)
        yield cluster
        for alias in (CLONE, ONE, TWO, OTHER, OTHER_ONE):
            connections[alias].close()


def unit() -> Any:
    return work.unit("command", "test", "")


def write(name: str = "x") -> None:
    ContentType.objects.create(app_label="test", model=name)


def names() -> list[str]:
    return list(ContentType.objects.values_list("model", flat=True))


def source() -> str:
    return ContentType.objects.all().db


def test_reads__units_of_work__replicas_share_them_and_each_unit_stays_with_one(site: Any) -> None:
    seen = set()
    for _ in range(40):
        with unit():
            taken = {source() for _ in range(5)}
        assert len(taken) == 1
        seen |= taken
    assert seen == {ONE, TWO}


def test_reads__outside_a_unit__come_from_the_primary(site: Any) -> None:
    assert source() == CLONE
    with db.replica():
        assert source() in (ONE, TWO)


def test_reads__after_a_block_of_the_primary__see_what_it_saw(site: Any) -> None:
    with replicated.replay_paused(*site.standbys):
        write()
        with unit():
            assert names() == []
            with db.primary():
                assert names() == ["x"]
            assert names() == ["x"]


def test_reads__block_of_a_replica__stays_with_one(site: Any) -> None:
    seen = set()
    for _ in range(30):
        with db.replica():
            taken = {source() for _ in range(5)}
        assert len(taken) == 1
        seen |= taken
    assert seen == {ONE, TWO}


def test_reads__in_what_a_unit_left_behind__come_from_the_primary(site: Any) -> None:
    with unit():
        left = contextvars.copy_context()
        assert left.run(source) in (ONE, TWO)
    assert left.run(source) == CLONE


def test_primary__generator_closed_in_another_context__nobody_is_told(site: Any) -> None:
    def rows() -> Iterator[str]:
        with db.primary():
            yield source()

    with unit():
        reading = rows()
        assert contextvars.copy_context().run(next, reading) == CLONE
        reading.close()
        until_caught_up(ONE, TWO)
        assert source() in (ONE, TWO)


def test_reads__app_that_reads_from_the_primary__does(site: Any) -> None:
    with unit(), chosen(READ_FROM_PRIMARY=("contenttypes",)):
        assert source() == CLONE
        assert Session.objects.all().db == OTHER_ONE


def test_reads__after_a_write_of_the_unit__come_from_the_primary(site: Any) -> None:
    with replicated.replay_paused(*site.standbys):
        with unit():
            assert names() == []
            assert source() in (ONE, TWO)
            write()
            assert (names(), source()) == (["x"], CLONE)
            assert Session.objects.all().db == OTHER_ONE  # another cluster: not written
        with unit():
            assert names() == []
    with unit(), connections[CLONE].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert source() != CLONE
        cursor.execute("WITH gone AS (DELETE FROM django_content_type RETURNING id) SELECT * FROM gone")
        assert source() == CLONE


def test_reads__row_of_a_replica__its_relatives_are_read_there_and_it_is_saved_on_the_primary(
    site: Any,
) -> None:
    write()
    until_caught_up(ONE, TWO)
    with unit():
        found = ContentType.objects.get()
        assert found._state.db in (ONE, TWO)
        found.model = "y"
        found.save()
    assert ContentType.objects.using(CLONE).get().model == "y"


def test_reads__in_a_transaction__come_from_the_primary_and_later_ones_do_not_go_back_in_time(
    site: Any,
) -> None:
    with contextlib.ExitStack() as paused:
        paused.enter_context(replicated.replay_paused(*site.standbys))
        somebody_else = threading.Thread(target=write)
        somebody_else.start()
        somebody_else.join()
        with unit():
            with transaction.atomic(using=CLONE):
                assert (names(), source()) == (["x"], CLONE)
            assert (names(), source()) == (["x"], CLONE)
        with unit() as current:
            current.read_from_primary[CLONE] = time.monotonic()
            assert source() == CLONE
            paused.close()
            replicated.until(lambda: source() != CLONE)


def test_reads__one_waited_on_its_way_to_the_primary__later_ones_see_what_it_saw(site: Any) -> None:
    def late(execute: Any, *rest: Any) -> Any:
        began = time.monotonic()
        replicated.until(
            lambda: all(time.monotonic() - (state(one).lag_s or 0) > began for one in (ONE, TWO))
        )
        replicated.tell(
            site.primary, "INSERT INTO django_content_type (app_label, model) VALUES ('a', 'late')"
        )
        return execute(*rest)

    with replicated.replay_paused(*site.standbys), unit():
        with transaction.atomic(using=CLONE), connections[CLONE].execute_wrapper(late):
            assert names() == ["late"]
        assert (names(), source()) == (["late"], CLONE)


def test_query__a_standby_takes_a_read_back__later_ones_see_what_the_primary_showed(site: Any) -> None:
    class Conflict(Exception):
        sqlstate = "40001"

    def ask(queryset: Any) -> list[str]:
        if queryset.db != CLONE:
            raise OperationalError("canceling statement due to conflict with recovery") from Conflict()
        return list(queryset.values_list("model", flat=True))

    with replicated.replay_paused(*site.standbys):
        write()
        with unit():
            assert names() == []
            assert rereading.read(ContentType.objects.all(), ask) == ["x"]
            assert names() == ["x"]


async def test_reads__async_unit_and_its_threads__share_what_was_written(site: Any) -> None:
    async def task() -> str:
        return await sync_to_async(source)()

    with unit():
        assert await task() != CLONE
        async with db.transaction(using=CLONE):
            assert await task() == CLONE
            assert source() == CLONE  # on the loop's own thread, where db.raw chooses
        await sync_to_async(write)()
        assert set(await asyncio.gather(task(), task())) == {CLONE}
    with unit():
        async with db.primary():
            assert await task() == CLONE
        until_caught_up(ONE, TWO)
        assert await task() != CLONE


def test_using__named_alias__always_wins(site: Any) -> None:
    with unit(), db.primary():
        assert ContentType.objects.using(TWO).all().db == TWO
        assert db.query(ContentType).using(ONE).queryset.db == ONE
        assert source() == CLONE
    with unit():
        write()
        with db.replica():
            assert source() in (ONE, TWO)
        assert source() == CLONE


def test_two_requests__replay_is_paused__the_writer_sees_its_row_and_others_the_old_state(site: Any) -> None:
    answers: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            write()
        answers.append(",".join(names()) or "none")
        return HttpResponse(source())

    serve: Callable[[HttpRequest], Any] = UnitOfWorkMiddleware(view)
    requests = RequestFactory()
    with replicated.replay_paused(*site.standbys):
        posted = serve(requests.post("/"))
        cookie = posted.cookies["brain_last_write"]
        assert (cookie["max-age"], cookie["httponly"], cookie["samesite"]) == (10, True, "Lax")
        assert serve(requests.get("/")).content.decode() in (ONE, TWO)
        requests.cookies["brain_last_write"] = cookie.value
        got = serve(requests.get("/"))
        assert answers == ["x", "none", "x"]
        assert "brain_last_write" not in got.cookies  # it has written nothing itself
    until_caught_up(ONE, TWO)
    assert serve(requests.get("/")).content.decode() in (ONE, TWO)
    assert answers[-1] == "x"
    requests.cookies["brain_last_write"] = cookie.value + "x"
    assert serve(requests.get("/")).content.decode() in (ONE, TWO)


def test_request__that_may_write__reads_what_others_committed_before_it(site: Any) -> None:
    """Else it would store an old row's other fields over theirs."""

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(",".join(names()) + source())

    serve: Callable[[HttpRequest], Any] = UnitOfWorkMiddleware(view)
    requests = RequestFactory()
    with replicated.replay_paused(*site.standbys):
        write()
        assert serve(requests.get("/")).content.decode() in (ONE, TWO)
        for ask in (requests.post, requests.put, requests.patch, requests.delete):
            assert serve(ask("/")).content.decode() == f"x{CLONE}"


def test_cookie__process_that_has_not_asked_the_primary_yet__next_request_sees_all_until_then(
    site: Any,
) -> None:
    from orm_app import last_write

    before = time.monotonic()
    assert replicas.moment_here("nobody", 1.0) >= before
    assert last_write.parse("clone:1.5,other:") == {"clone": 1.5, "other": None}
    here = replicas.moment_here(CLONE, replicas.moment_of(CLONE))
    assert before <= here <= time.monotonic()


def test_cookie__nothing_was_written_or_it_is_off__none_is_set(site: Any) -> None:
    read = UnitOfWorkMiddleware(lambda request: HttpResponse(",".join(names())))
    assert not read(RequestFactory().get("/")).cookies  # type: ignore[union-attr]

    def view(request: HttpRequest) -> HttpResponse:
        write()
        return HttpResponse()

    with chosen(READ_YOUR_WRITES_S=0.0):
        assert not UnitOfWorkMiddleware(view)(RequestFactory().post("/")).cookies  # type: ignore[union-attr]


def test_lag__above_the_limit__out_until_it_has_caught_up(site: Any) -> None:
    first, _ = site.standbys
    with chosen(REPLICA_MAX_LAG_S=0.4):
        with replicated.replay_paused(first):
            write()
            replicated.until(lambda: not state(ONE).usable)
            found = state(ONE)
            assert "behind, more than 0.4 s" in found.reason
            assert found.lag_s is not None
            assert found.lag_s > 0.4
            replicated.until(lambda: all(_of_two() for _ in range(10)))
        until_usable(ONE, TWO)


def _of_two() -> bool:
    """Never ONE; the primary while a busy machine keeps TWO from being asked."""
    with unit():
        found = source()
    assert found != ONE
    return found == TWO


def test_metrics__a_replica_behind__its_lag_and_that_it_is_not_usable(site: Any) -> None:
    class Families:
        collect = staticmethod(replicas.families)

    registry = CollectorRegistry()
    registry.register(Families())  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    assert f'brain_database_replica_usable{{alias="{ONE}"}} 1.0' in text
    assert re.search(rf'brain_database_replica_lag_seconds{{alias="{OTHER_ONE}"}} \d+\.', text)


def test_failover__replicas_stop_one_by_one__the_others_the_primary_and_back(site: Any) -> None:
    first, second = site.standbys
    first.stop()
    replicated.until(lambda: not state(ONE).usable)
    with unit():
        assert (names(), source()) == ([], TWO)
        second.stop()
        replicated.until(lambda: not state(TWO).usable)
        assert (names(), source()) == ([], CLONE)
    first.start()
    until_usable(ONE)
    with unit():
        assert (names(), source()) == ([], ONE)
    second.start()
    until_usable(ONE, TWO, OTHER_ONE)


def test_failover__replica_hangs__its_silence_is_enough(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with frozen(site.standbys[0]), monkeypatch.context() as impatient:
        impatient.setattr(replicas, "_PATIENCE_S", 0.5)
        replicated.until(lambda: "has not answered" in state(ONE).reason)
        replicated.until(_of_two)
    until_usable(ONE)


def test_probe__server_hangs_behind_an_open_connection__down_in_time(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert standing.probe(ONE).ok
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    with frozen(site.standbys[0]):
        began = time.monotonic()
        found = standing.probe(ONE)
        assert (found.ok, found.detail) == (False, "no answer within 0.3 s")
        assert time.monotonic() - began < 30
    until_usable(ONE)


@contextlib.contextmanager
def frozen(standby: servers.PostgresNode) -> Iterator[None]:
    assert standby.process is not None
    pids = [standby.process.pid, *children_of(standby.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("way", ["query", "await"])
def test_query__replica_dies_before_anybody_has_noticed__asked_again_from_the_primary(
    site: Any, way: str
) -> None:
    first, _ = site.standbys
    write()
    until_caught_up(ONE, TWO)
    with chosen(REPLICA_PROBE_S=30.0), unit() as current:
        replicas.stop()  # the new probes wait for so long
        until_usable(ONE, TWO)
        current.sources[CLONE] = ONE
        assert names() == ["x"]
        first.stop()
        assert source() == ONE
        if way == "query":
            assert [one.model for one in db.query(ContentType).all()] == ["x"]
        else:
            found = asyncio.run(_awaited())
            assert [one.model for one in found] == ["x"]
        assert state(ONE).reason
        assert source() != ONE
    replicas.stop()  # or the probes would go on waiting
    first.start()
    until_usable(ONE, TWO, OTHER_ONE)


async def _awaited() -> Any:
    return await db.query(ContentType).all()


def test_queryset__replica_dies_before_anybody_has_noticed__one_read_fails_and_no_other(site: Any) -> None:
    first, _ = site.standbys
    with chosen(REPLICA_PROBE_S=30.0), unit() as current:
        replicas.stop()
        until_usable(ONE, TWO)
        current.sources[CLONE] = ONE
        assert names() == []
        first.stop()
        with pytest.raises(OperationalError):
            names()
        assert names() == []
    replicas.stop()
    first.start()
    until_usable(ONE, TWO, OTHER_ONE)


def test_primary_down__reads_go_on_from_the_replicas_unless_the_policy_says_no(site: Any) -> None:
    write()
    until_caught_up(ONE, TWO)
    with chosen(REPLICA_MAX_LAG_S=0.3):
        site.primary.stop()
        try:
            until = time.monotonic() + 0.6
            replicated.until(lambda: time.monotonic() > until)
            with unit():
                assert (names(), source() in (ONE, TWO)) == (["x"], True)
            with chosen(REPLICA_MAX_LAG_S=0.3, ON_PRIMARY_DOWN="primary"), unit():
                assert source() == CLONE
            replicas.stop()  # a process that starts now has never seen the primary
            until_usable(ONE, TWO)
            with unit():
                assert (names(), source() in (ONE, TWO)) == (["x"], True)
        finally:
            site.primary.start()
        until_usable(ONE, TWO, OTHER_ONE)


def test_states__entry_that_is_no_replica_of_its_primary__gets_no_reads(site: Any) -> None:
    url = site.primary.url
    entry = replicated.from_url(url, replica_of=OTHER)
    with replicated.aliases({"itself": entry}):
        replicated.until(lambda: state("itself").reason == "it is a primary itself")
        with unit():
            assert Session.objects.all().db == OTHER_ONE


def test_status__replica__no_migrations_of_its_own_and_why_it_gets_no_reads(site: Any) -> None:
    found = status.of(ONE)
    assert (found.state, found.pending_migrations) == ("ok", None)
    with replicated.replay_paused(*site.standbys), chosen(REPLICA_MAX_LAG_S=0.2):
        write()
        replicated.until(lambda: not state(ONE).usable)
        found = status.of(ONE)
    assert found.state == "degraded"
    assert "no reads: it is" in found.detail


def test_checkup__replica__well_without_migrations_of_its_own(site: Any) -> None:
    found = checkups.of(ONE)
    assert (found.state, [one for one in found.findings if one.level != "ok"]) == ("ok", [])
    assert "migrations" not in [one.name for one in found.findings]
    assert {"replica", "replication"} <= {one.name for one in found.findings}


def test_migrate__replica__refused_with_what_to_write(site: Any) -> None:
    with pytest.raises(CommandError, match=f"is a replica of {CLONE}.*--database {CLONE}"):
        call_command("migrate", database=ONE, verbosity=0)


def test_fork__child_of_a_process_that_looks__looks_itself(site: Any) -> None:
    with unit():
        assert source() != CLONE
    child = os.fork()
    if child == 0:  # no pytest from here on
        code = 1
        try:
            began = not replicas._watched.clusters
            replicated.until(lambda: state(ONE).usable, timeout_s=60)
            code = 0 if began else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert state(ONE).usable


def test_stop__threads_end_and_the_next_read_begins_anew(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas.stop()
    replicated.until(lambda: not [one for one in threading.enumerate() if one.name.startswith("probe-")])
    begun: list[replica_probes.Probe] = []
    with monkeypatch.context() as held, unit():
        held.setattr(replica_probes.Probe, "start", lambda probe: begun.append(probe))
        assert source() == CLONE
    for probe in begun:
        probe.start()
    until_usable(ONE, TWO)


def test_states__primary_has_answered_first__waits_for_the_replicas_too(site: Any) -> None:
    replicas.stop()
    for primary, its in ((CLONE, (ONE, TWO)), (OTHER, (OTHER_ONE,))):
        replicas.cluster(primary, its).answered_at = time.monotonic()
    assert "it has not been asked yet" not in [one.reason for one in replicas.states()]


def test_apps_without_replicas__nobody_looks(site: Any) -> None:
    with unit():
        assert Group.objects.all().db == "default"


def test_failover__standby_is_promoted__writes_find_it_and_what_follows_it_gets_reads_again(
    site: servers.PostgresCluster,
) -> None:
    """The last one: the old primary stays down."""
    promoted, other = site.standbys
    ports = f"127.0.0.1:{site.primary.port},127.0.0.1:{promoted.port}"
    url = f"postgres://brain@{ports}/brain?target_session_attrs=read-write"
    entry = replicated.from_url(other.url, replica_of="both")
    with (
        replicated.aliases({"both": replicated.from_url(url), "both_replica1": entry}),
        chosen(APPS={"contenttypes": "both"}),
    ):
        write("before")
        until_caught_up("both_replica1")
        site.primary.stop()
        site.promote(promoted)
        began = time.monotonic()
        connections["both"].close()  # as at the end of a request
        write("after")
        assert time.monotonic() - began < 60
        replicated.until(lambda: "receives nothing" in state("both_replica1").reason)
        with unit():
            assert (sorted(names()), source()) == (["after", "before"], "both")
        site.follow(other, promoted)
        until_caught_up("both_replica1")
        with unit():
            assert (sorted(names()), source()) == (["after", "before"], "both_replica1")
