"""Two edges over a real cluster of three primaries: what they share, and that a primary which dies is got over."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.crc import key_slot

from cache_app import connections as store
from cache_app import health
from gateway import board, bucket, changes, limiter, traffic
from gateway.conf import GatewayConf, conf
from gateway.errors import TrafficUnavailable
from gateway.limiter import Limiter
from gateway.policy import Policy
from tests import servers
from tests.servers import ValkeyCluster

from .client import eventually, request
from .conftest import RunningEdge, route, service, serving, target
from .odd_upstream import OddUpstream, running

pytestmark = pytest.mark.slow
PROBED = Policy(health_interval_s=0.2, health_timeout_s=1.0, slow_start_s=0.0, outlier_failures=0)
FIVE = (bucket.per_window("day", 5, 86_400),)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    before = conf()
    with servers.valkey_cluster(node_timeout_s=60) as formed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "default_url", lambda: formed.url)
        # Nothing is found by looking: what arrives was told.
        told = {"SNAPSHOT_POLL_S": 60.0, "TRAFFIC_FLUSH_S": 0.1, "LIMITER_TIMEOUT_S": 10.0}
        conf.bind(GatewayConf(ACCESS_LOG=False, **told))
        yield formed
        conf.bind(before)


@pytest.fixture(scope="module")
def behind() -> Iterator[OddUpstream]:
    with running() as (one,):
        yield one


@pytest.fixture(scope="module")
def edges(cluster: ValkeyCluster, behind: OddUpstream) -> Iterator[list[RunningEdge]]:
    def start() -> RunningEdge:
        to = service([target(behind.port)], policy=PROBED)
        routes = [route(f"/{name}", to, auth_required=False, limits=FIVE) for name in ("one", "two", "three")]
        routes.append(route("/open", to, auth_required=False))
        return stack.enter_context(serving(routes, "test:cluster:"))

    with contextlib.ExitStack() as stack:
        yield [start(), start()]


def statuses(edges: list[RunningEdge], path: str, times: int) -> list[int]:
    """Of requests to one edge and the other in turn."""
    return [edges[n % 2].ask(request(path, key=None)).status for n in range(times)]


def are_up(edges: list[RunningEdge]) -> bool:
    return all(edge.worker.limiter.is_store_up for edge in edges)


def arrival_s(edges: list[RunningEdge], monkeypatch: pytest.MonkeyPatch) -> float:
    """Until each edge looks for the change that is announced."""
    looked = [0, 0]

    def refresh(n: int) -> Callable[[], bool]:
        def look() -> bool:
            looked[n] += 1
            return False

        return look

    for n, edge in enumerate(edges):
        monkeypatch.setattr(edge.worker.holder, "refresh", refresh(n))
    told = time.monotonic()
    changes.announce(7)
    assert eventually(lambda: all(looked))
    return time.monotonic() - told


def test_edges__on_a_cluster__count_a_limit_together(edges: list[RunningEdge]) -> None:
    assert statuses(edges, "/one/x", 8) == [200] * 5 + [429] * 3
    assert are_up(edges)


def test_take__limits_of_two_owners__counted_in_one_script_by_all_processes(
    cluster: ValkeyCluster, prefix: str
) -> None:
    doors = [Limiter(prefix=prefix) for _ in range(2)]
    of = ("ip:10.0.0.1", "/r", FIVE, FIVE, "deny", True, "user:ann")
    taken = [doors[n % 2].take(doors[n % 2].accounts.of(*of)) for n in range(6)]
    assert [one.admitted for one in taken] == [True] * 5 + [False]
    assert all(door.is_store_up for door in doors)


def test_announce__on_a_cluster__every_edge_looks_at_once(
    edges: list[RunningEdge], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arrival_s(edges, monkeypatch) < 30.0


def test_prober__on_a_cluster__one_edge_probes_and_both_know(
    edges: list[RunningEdge], behind: OddUpstream
) -> None:
    assert eventually(lambda: all(edge.targets[0].health.state == "healthy" for edge in edges))
    watches = [list(edge.worker._prober._watches.values()) for edge in edges]
    assert eventually(lambda: sorted(one.held for some in watches for one in some) == [False, True])


def test_board__on_a_cluster__shows_both_processes(edges: list[RunningEdge]) -> None:
    assert eventually(lambda: [len(one.views) for one in board.read() or ()] == [2])
    assert eventually(lambda: all(edge.worker.limiter.accounts.nodes == 2 for edge in edges))


def test_traffic__on_a_cluster__of_both_edges_is_counted(edges: list[RunningEdge]) -> None:
    statuses(edges, "/open/x", 4)
    assert eventually(lambda: counted("/open") == 4)


def counted(name: str) -> int:
    wall = time.time()
    found = traffic.read(wall - 3_600, wall + 60, wall, route=name)
    return found.total.requests


def test_primary__killed__its_replica_serves_and_everything_goes_on(
    cluster: ValkeyCluster, edges: list[RunningEdge], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = store.link(store.default_url())
    owner = link.slots.owner(key_slot(f"{limiter.PREFIX}{{ip:127.0.0.1}}".encode()))
    (dead,) = [node for node in cluster.primaries if node.port == owner[1]]
    os.kill(dead.pid, signal.SIGKILL)
    assert eventually(lambda: health.check().degraded)
    assert health.check().ok
    assert statuses(edges, "/two/x", 2) == [200, 200]  # each edge counts for itself
    assert not any(edge.worker.limiter.is_store_up for edge in edges)

    cluster.replace_after(0.5)  # and not sooner: what was asked before was asked without it
    assert eventually(lambda: not health.check().degraded)
    assert eventually(lambda: set(statuses(edges, "/two/x", 2)) and are_up(edges))
    assert statuses(edges, "/three/x", 8) == [200] * 5 + [429] * 3
    assert arrival_s(edges, monkeypatch) < 30.0
    assert eventually(lambda: [len(one.views) for one in board.read() or ()] == [2])
    before = time.time()
    assert eventually(lambda: all(edge.targets[0].health.checked_at > before for edge in edges))
    statuses(edges, "/open/x", 4)
    assert eventually(lambda: counted("/open") == 8)


def test_cluster__every_node_dead__edges_serve_and_everybody_else_is_told_so(
    cluster: ValkeyCluster, edges: list[RunningEdge]
) -> None:
    client = store.client()
    client.set("known", 1)
    for node in cluster.nodes:
        with contextlib.suppress(ProcessLookupError):  # the one that has died already
            os.kill(node.pid, signal.SIGKILL)
    assert eventually(lambda: health.check().state == "down")
    with pytest.raises(redis.ConnectionError):  # redis-py has another family for it
        client.get("known")
    assert statuses(edges, "/open/x", 2) == [200, 200]
    assert statuses(edges, "/one/x", 2)[0] in (200, 429)
    assert board.read() is None
    with pytest.raises(TrafficUnavailable):
        counted("/open")
    changes.announce(8)


def test_sentinel__primary_killed__limits_and_changes_go_on_with_the_new_one(
    behind: OddUpstream, monkeypatch: pytest.MonkeyPatch, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(SNAPSHOT_POLL_S=60.0, LIMITER_RETRY_S=0.2)
    with servers.valkey_sentinels(down_after_s=60) as group, contextlib.ExitStack() as stack:
        monkeypatch.setattr(store, "default_url", lambda: group.url)
        routes = [
            route(f"/{name}", [target(behind.port)], auth_required=False, limits=FIVE) for name in ("x", "y")
        ]
        pair = [stack.enter_context(serving(routes, "test:sentinel:")) for _ in range(2)]
        assert statuses(pair, "/x/1", 6) == [200] * 5 + [429]
        os.kill(group.primary.pid, signal.SIGKILL)
        assert eventually(lambda: bool(statuses(pair, "/x/1", 2)) and not are_up(pair))
        group.replace_after(0.5)
        assert eventually(lambda: bool(statuses(pair, "/x/1", 2)) and are_up(pair))
        assert arrival_s(pair, monkeypatch) < 30.0
        assert statuses(pair, "/y/1", 6) == [200] * 5 + [429]
