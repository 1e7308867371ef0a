from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import redis
from redis.connection import Connection

from cache_app.addresses import Node
from cache_app.tracking_cluster import ClusterTracker, discovery, primaries_of, state_and_epoch

from . import tracked
from .tracked import KEYS, Cluster, Heard, until

PING_S = 0.2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tracked.cluster("valkey") as formed:
        yield formed


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tracker(cluster: Cluster, heard: Heard, prefix: str) -> Iterator[ClusterTracker]:
    made = ClusterTracker(discovery(cluster.nodes[:1], _dial), prefix, heard, ping_s=PING_S)
    made.start()
    until(lambda: made.is_live)
    yield made
    made.close()


def _dial(node: Node) -> Connection:
    return Connection(*node, protocol=3, socket_timeout=1, socket_connect_timeout=1)  # type: ignore[misc]


def _write_everywhere(cluster: Cluster, prefix: str, text: str) -> list[str]:
    keys = sorted(f"{prefix}{key}{text}" for key in KEYS)
    with redis.RedisCluster(*cluster.nodes[1]) as client:
        for key in keys:
            client.set(key, 1)
    return keys


def test_cluster__writes_on_every_primary__are_told(
    cluster: Cluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    assert sorted(tracker.state().values()) == [True] * 3
    keys = _write_everywhere(cluster, prefix, "x")
    until(lambda: sorted(heard.keys) == keys)


def test_cluster__replica_takes_over_as_it_is_told__is_found_and_heard(
    cluster: Cluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    old = cluster.primary_of_first()
    new = 3 - old
    before = heard.flushes
    cluster.clients[new].execute_command("CLUSTER", "FAILOVER")
    name = f"127.0.0.1:{cluster.nodes[new][1]}"
    until(lambda: tracker.state().get(name, False) and tracker.is_live, within_s=10)
    assert f"127.0.0.1:{cluster.nodes[old][1]}" not in tracker.state()
    assert heard.flushes > before
    heard.keys.clear()
    keys = _write_everywhere(cluster, prefix, "y")
    until(lambda: sorted(set(heard.keys)) == keys)


def test_cluster__primary_stops__memory_is_unused_until_another_serves(
    cluster: Cluster, tracker: ClusterTracker, heard: Heard, prefix: str
) -> None:
    old = cluster.primary_of_first()
    pid = cluster.pids[cluster.nodes[old][1]]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert until(lambda: not tracker.is_live) < 2 * PING_S + 0.3
        name = f"127.0.0.1:{cluster.nodes[3 - old][1]}"
        until(lambda: tracker.is_live, within_s=15)
        assert tracker.state()[name]
        keys = _write_everywhere(cluster, prefix, "z")
        until(lambda: set(keys) <= set(heard.keys))
    finally:
        os.kill(pid, signal.SIGCONT)
        until(lambda: cluster.clients[old].info("replication")["role"] == "slave", within_s=15)
        until(lambda: cluster.clients[old].info("replication").get("master_link_status") == "up", within_s=15)


def test_discovery__seed_is_gone__asks_the_next_and_later_those_it_was_told_of(cluster: Cluster) -> None:
    asked: list[Node] = []

    def dial(node: Node) -> Connection:
        asked.append(node)
        return _dial(node)

    gone = ("127.0.0.1", 1)
    discover = discovery([gone, cluster.nodes[1]], dial)
    found = discover()
    assert len(found.connect) == 3
    assert found.epoch > 0
    assert asked == [gone, cluster.nodes[1]]
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
