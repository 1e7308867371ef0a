from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
import redis
from redis.connection import Connection

from cache_app import shared
from cache_app.addresses import Node as Address
from cache_app.tiered import TieredCache
from cache_app.tracking_cluster import ClusterTracker, discovery, primaries_of, state_and_epoch
from tests import servers
from tests.servers import ValkeyCluster

from .test_tiered import settle
from .tracked import KEYS, Heard, until

pytestmark = pytest.mark.slow
PING_S = 0.6


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with servers.valkey_cluster(node_timeout_s=60) as formed:
        yield formed


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tracker(cluster: ValkeyCluster, heard: Heard, prefix: str) -> Iterator[ClusterTracker]:
    made = ClusterTracker(discovery(_seeds(cluster), _dial), prefix, heard, ping_s=PING_S)
    made.start()
    until(lambda: made.is_live)
    yield made
    made.close()


def _seeds(cluster: ValkeyCluster) -> list[Address]:
    return [("127.0.0.1", node.port) for node in cluster.nodes]


def _dial(node: Address) -> Connection:
    return Connection(*node, protocol=3, socket_timeout=5, socket_connect_timeout=5)  # type: ignore[misc]


def _write_everywhere(cluster: ValkeyCluster, prefix: str, text: str) -> list[str]:
    keys = sorted(f"{prefix}{key}{text}" for key in KEYS)
    with redis.RedisCluster("127.0.0.1", cluster.primaries[1].port) as client:
        for key in keys:
            client.set(key, 1)
    return keys


def _is_primary(node: servers.Node) -> bool:
    with node.client() as client:
        return bool(client.info("replication")["role"] == "master")


def _first_pair(cluster: ValkeyCluster) -> tuple[servers.Node, servers.Node]:
    """Of the first third of the slots: who serves them, and who would take over."""
    pair = (cluster.primaries[0], cluster.replicas[0])
    return pair if _is_primary(pair[0]) else (pair[1], pair[0])


def _follows(node: servers.Node) -> bool:
    with node.client() as client:
        return client.info("replication").get("master_link_status") == "up"


@contextlib.contextmanager
def stopped(node: servers.Node) -> Iterator[None]:
    """As if its machine hung: the connections stay."""
    os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.pid, signal.SIGCONT)


def test_cluster__writes_on_every_primary__are_told(
    cluster: ValkeyCluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    assert sorted(tracker.state().values()) == [True] * 3
    keys = _write_everywhere(cluster, prefix, "x")
    until(lambda: sorted(heard.keys) == keys)


def test_cluster__replica_takes_over_as_it_is_told__is_found_and_heard(
    cluster: ValkeyCluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    old, new = _first_pair(cluster)
    before = heard.flushes
    with new.client() as client:
        client.execute_command("CLUSTER", "FAILOVER")
    until(lambda: tracker.state().get(f"127.0.0.1:{new.port}", False) and tracker.is_live)
    assert f"127.0.0.1:{old.port}" not in tracker.state()
    assert heard.flushes > before
    heard.keys.clear()
    keys = _write_everywhere(cluster, prefix, "y")
    until(lambda: sorted(set(heard.keys)) == keys)
    until(lambda: _follows(old))


def test_cluster__primary_hangs__memory_is_unused_until_another_serves(
    cluster: ValkeyCluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    old, new = _first_pair(cluster)
    cluster.replace_after(1.0)
    with stopped(old):
        until(lambda: not tracker.is_live)
        until(lambda: tracker.is_live)
        assert tracker.state()[f"127.0.0.1:{new.port}"]
        keys = _write_everywhere(cluster, prefix, "z")
        until(lambda: set(keys) <= set(heard.keys))
    until(lambda: _follows(old))  # the next test has a cluster again
    cluster.replace_after(60)


def test_tiered__on_a_cluster__is_answered_from_memory_until_another_writes(
    cluster: ValkeyCluster, own_prefix: str
) -> None:
    cache = _cache(cluster.url, own_prefix)
    keys = [f"{key}k" for key in KEYS]
    for key in keys:
        cache.set(key, [1], tags=["red"])
        settle(cache, key)
    assert sorted(cache.get_many(keys)) == sorted(keys)
    with redis.RedisCluster("127.0.0.1", cluster.primaries[1].port) as client:
        for key in keys:
            client.set(cache.full_key(key), b"[2]")
            until(lambda key=key: cache.get(key) == [2])  # type: ignore[misc]
    shared.close_all()


def test_tiered__behind_sentinels__follows_to_the_new_primary(own_prefix: str) -> None:
    with servers.valkey_sentinels(down_after_s=60) as group:
        cache = _cache(group.url, own_prefix, SOCKET_TIMEOUT=0.3)
        until(lambda: cache.set("a", [1]))
        settle(cache, "a")
        group.replace_after(0.5)
        with stopped(group.primary), group.replica.client() as client:
            until(lambda: _is_primary(group.replica))
            client.set(cache.full_key("a"), b"[2]")
            until(lambda: cache.get("a") == [2])
            until(lambda: cache.store.tracker.is_live)
            until(lambda: cache.set("a", [3]))
            settle(cache, "a")
            client.set(cache.full_key("a"), b"[4]")
            until(lambda: cache.get("a") == [4])
        shared.close_all()


def _cache(url: str, prefix: str, **more: float) -> TieredCache:
    options = {"TRACKER_PING_S": PING_S, "ON_DOWN": "ignore", "BREAKER_OPEN_S": 0.1}
    cache = TieredCache(url, {"KEY_PREFIX": prefix, "OPTIONS": options | more})
    cache.get("wake up")
    until(lambda: cache.store.tracker.is_live)
    return cache


def test_discovery__seed_is_gone__asks_the_next_and_later_those_it_was_told_of(
    cluster: ValkeyCluster,
) -> None:
    asked: list[Address] = []

    def dial(node: Address) -> Connection:
        asked.append(node)
        return _dial(node)

    gone, node = ("127.0.0.1", 1), _seeds(cluster)[1]
    discover = discovery([gone, node], dial)
    found = discover()
    assert len(found.connect) == 3
    assert found.epoch > 0
    assert asked == [gone, node]
    discover()
    assert asked[2:] != [gone]
    with pytest.raises(redis.ConnectionError):
        discovery([gone], dial)()


def test_primaries_of__map_of_a_growing_cluster__has_the_empty_and_leaves_out_the_gone() -> None:
    def node(host: bytes, role: bytes, health: bytes = b"online") -> dict[bytes, object]:
        return {b"endpoint": host, b"port": 7000, b"role": role, b"health": health}

    shards = [
        {b"slots": [0, 100], b"nodes": [node(b"a", b"master", b"fail"), node(b"b", b"replica")]},
        {b"slots": [], b"nodes": [node(b"new", b"master")]},
        {b"slots": [101, 200], b"nodes": [node(b"gone", b"master", b"fail"), node(b"?", b"master")]},
    ]
    slots = [[0, 100, [b"a", 7000, b"id"], [b"b", 7000, b"id"]], [101, 200, [None, 7000, b"id"]]]
    found = primaries_of(slots, shards, ("asked", 1))
    assert found == [("a", 7000), ("asked", 7000), ("new", 7000)]


@pytest.mark.parametrize("wrap", ["{}", "txt:{}"])
def test_state_and_epoch__of_info__are_read_in_every_wrapping(wrap: str) -> None:
    info = wrap.format("cluster_state:ok\r\ncluster_current_epoch:12\r\ncluster_my_epoch:3\r\n")
    assert state_and_epoch(info.encode()) == state_and_epoch(info) == ("ok", 12)
    assert state_and_epoch(b"") == ("", -1)
