"""Probes on real sockets, and who makes them: one process of the fleet, another when it is gone, each one when the
store is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cache_app import connections as store
from gateway import prober
from gateway.dial import Dial
from gateway.health import HEALTHY, UNHEALTHY, UNKNOWN
from gateway.policy import Policy
from gateway.pool import FAILED, Service, Target
from gateway.prober import Prober, fault_of

INTERVAL_S = 0.05
QUICK = Policy(
    health_interval_s=INTERVAL_S, health_timeout_s=30.0, healthy_after=2, unhealthy_after=2, health_path="/up"
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is no store that is away."""
    monkeypatch.setattr(prober, "STORE_TIMEOUT_S", 30.0)


@pytest.fixture
def nobodys_port() -> Iterator[int]:
    """Of this test's own, so that nobody else comes to listen there."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


class Upstream:
    """Answers every request with `answer`; None: takes the connection and says nothing."""

    def __init__(self, answer: bytes | None = b"HTTP/1.1 204 No Content\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if self.answer is None:
                    await reader.read()
                else:
                    writer.write(self.answer)
                    await writer.drain()
        finally:
            writer.transport.abort()
            self.connections.discard(task)

    async def close(self, server: asyncio.Server) -> None:
        """The connections end by themselves: whoever probes has gone, or goes now."""
        server.close()
        async with asyncio.timeout(30):
            while self.connections:
                await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Upstream]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            await self.close(server)


def dial(port: int, **values: Any) -> Dial:
    return Dial(("127.0.0.1", port), host=b"up.test", **values)


def fleet_member(upstreams: list[Upstream], policy: Policy = QUICK) -> Service:
    """One process's own service over the same targets as the others'."""
    of = [Target("s", f"127.0.0.1:{one.port}", dial=dial(one.port)) for one in upstreams]
    return Service("s", of, random=random.Random(2).random, policy=policy)


@contextlib.asynccontextmanager
async def probing(*services: Service, prefix: str) -> AsyncIterator[list[asyncio.Task[None]]]:
    """A process for each service, probing until the block ends."""
    probers = [Prober(lambda one=one: [one], prefix=prefix, poll_s=0.02) for one in services]  # type: ignore[misc]
    tasks = [asyncio.create_task(one.run()) for one in probers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(30):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def until(claim: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not claim():
            await asyncio.sleep(0.005)


# --- one probe
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 \r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"x" * 100_000, "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "only interim answers"),
        (b"HTTP/1.1 2", "the connection was closed"),
        (None, "no answer within 0.05 s"),
    ],
)
async def test_fault_of__answers__in_words(answer: bytes | None, fault: str) -> None:
    policy = Policy(health_path="/up?deep=1", health_timeout_s=30.0 if answer else 0.05)
    async with Upstream(answer).running() as upstream:
        while not upstream.heads:  # the time may be over before the request has come
            assert await fault_of(dial(upstream.port), policy) == fault
    assert upstream.heads[0].startswith(b"GET /up?deep=1 HTTP/1.1\r\nHost: up.test\r\n")


async def test_fault_of__no_path__a_connection_is_enough(tmp_path: Path, nobodys_port: int) -> None:
    policy = Policy(health_timeout_s=30.0)
    async with Upstream(None).running() as upstream:
        assert await fault_of(dial(upstream.port), policy) == ""
    assert await fault_of(dial(nobodys_port), policy) == "connection refused"
    assert await fault_of(Dial(str(tmp_path / "nobody")), policy) == "no such file or directory"


async def test_fault_of__unix_socket__asked_like_any_other(tmp_path: Path) -> None:
    upstream, path = Upstream(), str(tmp_path / "s")
    server = await asyncio.start_unix_server(upstream.serve, path)
    assert await fault_of(Dial(path, host=b"unix.test"), Policy(health_path="/", health_timeout_s=30.0)) == ""
    await upstream.close(server)
    assert b"Host: unix.test" in upstream.heads[0]


def certificate(directory: Path) -> Path:
    """For up.test, signed by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "up.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("up.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "both.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    return path


async def test_fault_of__tls__verified_for_the_name_though_the_address_is_pinned(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(path)
    trusted = ssl.create_default_context(cafile=str(path))
    async with Upstream().running(served) as upstream, Upstream().running() as plain:
        for policy in (Policy(health_path="/", health_timeout_s=30.0), Policy(health_timeout_s=30.0)):
            assert await fault_of(dial(upstream.port, tls=trusted, server_name="up.test"), policy) == ""
            assert "other.test" in await fault_of(
                dial(upstream.port, tls=trusted, server_name="other.test"), policy
            )
            stranger = dial(upstream.port, tls=ssl.create_default_context(), server_name="up.test")
            assert (await fault_of(stranger, policy)).startswith("TLS: self")
        plainly = dial(plain.port, tls=trusted, server_name="up.test")
        assert await fault_of(plainly, Policy(health_timeout_s=0.05)) == "no answer within 0.05 s"


# --- the fleet
# ------------------------------------------------------------------------------------------------------------


async def test_prober__two_processes__one_probes_and_both_know(prefix: str) -> None:
    async with Upstream().running() as upstream:
        services = [fleet_member([upstream]) for _ in range(2)]
        async with probing(*services, prefix=prefix):
            await until(lambda: all(one.targets[0].health.state == HEALTHY for one in services))
            before, began = len(upstream.heads), asyncio.get_running_loop().time()
            await until(lambda: len(upstream.heads) >= before + 6)
            assert asyncio.get_running_loop().time() - began >= INTERVAL_S * 0.9 * 5
            upstream.answer = b"HTTP/1.1 500 No\r\n\r\n"
            await until(lambda: all(one.targets[0].health.state == UNHEALTHY for one in services))
            first, second = (one.targets[0].health for one in services)
            assert first.reason == second.reason == "status 500"
            assert first.next_at > first.checked_at > 1e9
            upstream.answer = b"HTTP/1.1 200 OK\r\n\r\n"
            await until(lambda: all(one.targets[0].health.state == HEALTHY for one in services))
            assert "slow start" in services[1].targets[0].why(asyncio.get_running_loop().time())


async def test_prober__stopped__leaves_its_leases_and_the_other_takes_over(prefix: str) -> None:
    async with Upstream().running() as upstream:
        services = [fleet_member([upstream]) for _ in range(2)]
        async with probing(services[0], prefix=prefix):
            await until(lambda: len(upstream.heads) >= 2)
            async with probing(services[1], prefix=prefix):
                await until(lambda: services[1].targets[0].health.state == HEALTHY)
        assert not store.client().keys(f"{prefix}*lease*")
        seen = len(upstream.heads)
        async with probing(services[1], prefix=prefix):
            await until(lambda: len(upstream.heads) > seen + 1)


async def test_prober__dead_without_a_word__replaced_when_its_lease_ends(prefix: str) -> None:
    async with Upstream().running() as upstream:
        one = fleet_member([upstream])
        lease = f"{prefix}{{probe}}:lease:s/127.0.0.1:{upstream.port}"
        began = asyncio.get_running_loop().time()
        store.client().set(lease, "the dead one", px=100)
        async with probing(one, prefix=prefix):
            await until(lambda: len(upstream.heads) > 0)
            assert asyncio.get_running_loop().time() - began >= 0.1

            def renewed() -> bool:
                holder, left_ms = store.client().get(lease), store.client().pttl(lease)
                assert left_ms <= INTERVAL_S * prober.LEASE_INTERVALS * 1000
                return holder not in (None, b"the dead one") and left_ms > 0

            await until(renewed)


async def test_prober__new_holder__goes_on_where_the_last_one_was(
    prefix: str, nobodys_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prober, "RESULT_INTERVALS", 1000.0)
    upstream = Upstream()
    upstream.port = nobodys_port
    first, second = fleet_member([upstream]), fleet_member([upstream])
    async with probing(first, prefix=prefix):
        await until(lambda: first.targets[0].health.state == UNHEALTHY)
        await until(lambda: told(prefix, upstream) == UNHEALTHY)
    one = Prober(lambda: [second], prefix=prefix)
    await one.look()
    assert (second.targets[0].health.state, second.targets[0].blocked) == (UNHEALTHY, True)
    assert second.targets[0].health.reason == "connection refused"


async def test_prober__many_targets__each_probed_and_judged_by_itself(prefix: str) -> None:
    good, bad = Upstream(), Upstream(b"HTTP/1.1 503 No\r\n\r\n")
    async with good.running(), bad.running():
        one = fleet_member([good, bad])
        async with probing(one, prefix=prefix):
            await until(lambda: [target.health.state for target in one.targets] == [HEALTHY, UNHEALTHY])
        assert {one.take(1.0, None, ()) for _ in range(6)} == {one.targets[0]}


async def test_prober__store_away__everybody_probes_and_shares_again_later(
    prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prober, "STORE_RETRY_S", 0.05)
    async with Upstream().running() as upstream:
        services = [fleet_member([upstream]) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(store, "default_url", lambda: f"unix://{tmp_path}/nobody?db=0")
            probers = [Prober(lambda one=one: [one], prefix=prefix, poll_s=0.02) for one in services]  # type: ignore[misc]
            tasks = [asyncio.create_task(one.run()) for one in probers]
            await until(lambda: all(one.targets[0].health.passes > 2 for one in services))
            assert all(watch.held for one in probers for watch in one._watches.values())
        await until(lambda: sum(watch.held for one in probers for watch in one._watches.values()) == 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_prober__good_probe__ends_an_ejection_in_every_process(prefix: str) -> None:
    async with Upstream().running() as upstream, Upstream().running() as other:
        services = [fleet_member([upstream, other]) for _ in range(2)]
        now = asyncio.get_running_loop().time()
        async with probing(*services, prefix=prefix):
            await until(lambda: all(one.targets[0].health.state == HEALTHY for one in services))
            for one in services:
                for _ in range(5):
                    one.targets[0].inflight += 1
                    one.settle(one.targets[0], 0, FAILED, 0.01, now)
            assert [one.targets[0].ejections for one in services] == [1, 1]
            await until(lambda: all(one.targets[0].ejected_until < now + 10 for one in services))


def told(prefix: str, upstream: Upstream) -> str | None:
    """The state that everybody reads."""
    result = store.client().get(f"{prefix}{{probe}}:health:s/127.0.0.1:{upstream.port}")
    return json.loads(result)["health"]["state"] if result else None


async def test_prober__same_result_read_again__ends_no_later_ejection(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prober, "RESULT_INTERVALS", 1000.0)
    async with Upstream().running() as upstream:
        services = [fleet_member([upstream]) for _ in range(2)]
        async with probing(services[0], prefix=prefix):
            await until(lambda: told(prefix, upstream) == HEALTHY)
        lease = f"{prefix}{{probe}}:lease:s/127.0.0.1:{upstream.port}"
        store.client().set(lease, "somebody else")
        a = services[1].targets[0]
        one = Prober(lambda: [services[1]], prefix=prefix)
        await one.look()
        assert a.health.state == HEALTHY
        a.ejected_until = later = asyncio.get_running_loop().time() + 100
        await one.look()
        assert a.ejected_until == later


async def test_prober__connection_alone__ends_an_ejection_only_if_it_had_failed(prefix: str) -> None:
    quiet = Policy(health_interval_s=INTERVAL_S, health_timeout_s=30.0, unhealthy_after=50)
    upstream = Upstream()
    async with upstream.running(), Upstream().running() as other:
        one = fleet_member([upstream, other], quiet)
        now = asyncio.get_running_loop().time()
        a = one.targets[0]
        a.ejected_until = now + 100
        async with probing(one, prefix=prefix):
            await until(lambda: a.health.passes > 2)
            assert a.ejected_until == now + 100
            a.health.failures = 1  # as if the last probe had found nobody
            await until(lambda: a.ejected_until < now + 50)


async def test_prober__target_leaves_or_health_is_switched_off__no_more_probes(prefix: str) -> None:
    async with Upstream(b"HTTP/1.1 500 No\r\n\r\n").running() as upstream:
        one = fleet_member([upstream])
        off = Service("s", one.targets, random=random.random, policy=Policy(health_enabled=False))
        in_use = [one]
        task = asyncio.create_task(Prober(lambda: in_use, prefix=prefix, poll_s=0.02).run())
        await until(lambda: one.targets[0].health.state == UNHEALTHY)
        in_use[:] = [off]
        await until(lambda: one.targets[0].health.state == UNKNOWN)
        seen = len(upstream.heads)
        await asyncio.sleep(INTERVAL_S * 2)
        assert len(upstream.heads) <= seen + 1
        assert one.targets[0].allows(0.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_prober__cancelled_during_a_probe__connection_closed_and_nothing_left_behind(
    prefix: str,
) -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.transport.abort()
        closed.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    upstream = Upstream()
    upstream.port = server.sockets[0].getsockname()[1]
    slow = Policy(health_interval_s=INTERVAL_S, health_timeout_s=30.0, health_path="/")
    one = fleet_member([upstream], slow)
    async with probing(one, prefix=prefix):
        await asyncio.wait_for(opened.wait(), 30.0)
        assert not closed.is_set()
    await asyncio.wait_for(closed.wait(), 30.0)
    assert not store.client().keys(f"{prefix}*lease*")
    server.close()


async def test_prober__result_of_another_version__left_alone(prefix: str) -> None:
    async with Upstream().running() as upstream:
        one = fleet_member([upstream])
        key = f"{prefix}{{probe}}:health:s/127.0.0.1:{upstream.port}"
        store.client().set(key.replace("health", "lease"), "somebody else")
        store.client().set(key, b'{"health": {"colour": "red"}, "proof": true}')
        await Prober(lambda: [one], prefix=prefix).look()
        store.client().set(key, b"not JSON")
        await Prober(lambda: [one], prefix=prefix).look()
    assert one.targets[0].health.state == UNKNOWN
