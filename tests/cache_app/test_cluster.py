"""On a real Valkey cluster of three primaries and three replicas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import LazySettings
from django.core.cache import caches

from cache_app import connections
from cache_app.cluster import (
    HOPS,
    AsyncClusterLink,
    Pause,
    Send,
    SendMany,
    Slots,
    pipelined,
    refreshed,
    routed,
    slot_of,
)
from cache_app.link import all_read
from cache_app.redis_store import RedisStore
from cache_app.steps import drive
from cache_app.store import NEW, StoreFailed
from tests import servers
from tests.servers import ValkeyCluster

from .halves import Both

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with servers.valkey_cluster(node_timeout_s=60) as formed:
        yield formed


@pytest.fixture
def both(cluster: ValkeyCluster, half: asyncio.Runner | None) -> Both:
    return Both(RedisStore(cluster.url), half)


def until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# --- every operation -----------------------------------------------------------------------------------------------------


def test_store__a_round_of_everything__keeps_its_word_over_all_nodes(both: Both, prefix: str) -> None:
    keys = [f"{prefix}{n}" for n in range(300)]
    both.set_many([(key, b"%d" % n, 60.0) for n, key in enumerate(keys)])
    assert both.get_many([*keys, f"{prefix}none"]) == [*(b"%d" % n for n in range(300)), None]
    assert set(both.scan(f"{prefix}*")) == set(keys)
    assert both.incr(keys[7], 5) == 12
    assert 30 < both.ttl_s(keys[7]) <= 60
    assert both.set(keys[0], b"x", None, only=NEW) is False
    assert both.expire(keys[1], None) is True
    assert both.delete_many([*keys[:50], f"{prefix}none"]) == 50
    assert both.delete_matching(f"{prefix}*") == 250
    assert both.get(keys[100]) is None


def test_versions__keys_of_many_slots__are_made_and_raised(both: Both, prefix: str) -> None:
    tags = [f"{prefix}tag:{n}" for n in range(40)]
    first = both.versions(tags)
    both.raise_versions(tags[::2])
    second = both.versions(tags)
    assert [now > before for before, now in zip(first, second, strict=True)] == [True, False] * 20


def test_get_many__value_of_another_type__is_none_as_with_mget(
    both: Both, cluster: ValkeyCluster, prefix: str
) -> None:
    both.set(f"{prefix}a", b"1", None)
    both.run("SADD", f"{prefix}b", "member")
    assert both.get_many([f"{prefix}a", f"{prefix}b"]) == [b"1", None]


def test_clear__of_one_prefix__leaves_the_others_on_every_node(both: Both, prefix: str) -> None:
    mine, theirs = ([f"{prefix}{who}:{n}" for n in range(60)] for who in ("mine", "theirs"))
    both.set_many([(key, b"1", None) for key in mine + theirs])
    assert both.delete_matching(f"{prefix}mine:*") == 60
    assert both.get_many(theirs) == [b"1"] * 60
    both.delete_many(theirs)


def test_backend__on_a_cluster__values_tags_structures_and_raw_client(
    cluster: ValkeyCluster, settings: LazySettings, own_prefix: str
) -> None:
    nodes = ",".join(f"valkey://127.0.0.1:{node.port}" for node in cluster.nodes[:2])
    ours = {"BACKEND": "cache_app.redis.BrainRedisCache", "LOCATION": nodes, "KEY_PREFIX": own_prefix}
    settings.CACHES = settings.CACHES | {"clustered": ours | {"OPTIONS": {"CLUSTER": True}}}
    cache = caches["clustered"]
    cache.set_many({f"k{n}": [n] for n in range(30)})
    assert cache.get_many([f"k{n}" for n in range(30)]) == {f"k{n}": [n] for n in range(30)}
    cache.set("page", {"a": 1}, tags=("x", "y"))
    assert cache.get("page") == {"a": 1}
    cache.invalidate_tags("y")
    assert cache.get("page") is None
    cache.sadd("{s}1", 1, 2)
    cache.sadd("{s}2", 2, 3)
    assert cache.sinter("{s}1", "{s}2") == {2}
    with pytest.raises(redis.ResponseError):
        cache.sinter("s1", "s2")  # of two slots: only the caller can help that
    assert isinstance(cache.client.get_client(), redis.RedisCluster)
    with cache.lock("job") as lock:
        assert lock.owned()
        assert cache.lock("job").try_acquire() is False
    assert cache.lock("job").locked() is False
    cache.clear()
    assert cache.keys("*") == []


async def test_aget__two_hundred_tasks_over_all_slots__get_their_own(
    cluster: ValkeyCluster, prefix: str
) -> None:
    store = RedisStore(cluster.url)
    await store.aset_many([(f"{prefix}{n}", b"%d" % n, 60.0) for n in range(200)])
    found = await asyncio.gather(*(store.aget(f"{prefix}{n}") for n in range(200)))
    assert found == [b"%d" % n for n in range(200)]


def test_aincr__a_thousand_at_once__none_is_lost(cluster: ValkeyCluster, prefix: str) -> None:
    store = RedisStore(cluster.url)

    async def count() -> None:
        await store.aset(prefix, b"0", 60.0)
        await asyncio.gather(*(store.aincr(prefix, 1) for _ in range(1000)))

    asyncio.run(count())
    assert store.get(prefix) == b"1000"


def test_client__of_a_cluster__is_redis_pys_own_for_both_worlds(
    cluster: ValkeyCluster, prefix: str, half: asyncio.Runner | None
) -> None:
    if half is None:
        connections.client(cluster.url).set(prefix, "1")
        assert connections.client(cluster.url).get(prefix) == b"1"
        return

    async def ask() -> object:
        await connections.aclient(cluster.url).set(prefix, "2")
        return await connections.aclient(cluster.url).get(prefix)

    assert half.run(ask()) == b"2"


def test_client__no_node_answers__is_redis_connection_error() -> None:
    with pytest.raises(redis.ConnectionError):
        connections.client(f"redis+cluster://127.0.0.1:{servers.free_port()}")


def test_pools__of_a_cluster__dial_each_primary(cluster: ValkeyCluster) -> None:
    pools = RedisStore(cluster.url).pools()
    assert len(pools) == 3
    for name, pool in pools.items():
        with redis.Redis(connection_pool=pool) as client:
            assert client.info("server")["tcp_port"] == int(name.rpartition(":")[2])
        pool.disconnect()


def test_fork__child_of_a_used_cluster__dials_for_itself(cluster: ValkeyCluster, prefix: str) -> None:
    store = RedisStore(cluster.url)
    keys = [f"{prefix}{n}" for n in range(6)]
    store.set_many([(key, b"0", 60.0) for key in keys])
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            for key in keys * 10:
                store.incr(key, 1)
            answer = 0
        finally:
            os._exit(answer)
    for key in keys * 10:
        store.incr(key, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get_many(keys) == [b"20"] * 6


# --- slots move ----------------------------------------------------------------------------------------------------------


def test_moved__slot_has_a_new_owner__the_command_follows(
    cluster: ValkeyCluster, both: Both, prefix: str
) -> None:
    """The map is old: MOVED. Then in the middle of the move: ASK for what has gone over already."""
    key = f"{{{prefix}}}a"
    both.set(key, b"1", None)
    slot = slot_of(("GET", key))
    source, target = _owner_and_other(cluster, slot)
    with source.client() as old, target.client() as new:
        ids = {
            node: client.execute_command("CLUSTER", "MYID") for node, client in ((source, old), (target, new))
        }
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        old.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 60_000)
        assert both.get(key) == b"1"  # ASK
        assert both.incr(key, 1) == 2
        assert both.get_many([key, f"{{{prefix}}}none"]) == [b"2", None]
        assert both.set(f"{{{prefix}}}new", b"n", 60.0) is True
        for client in (new, old):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert both.get(key) == b"2"  # MOVED
        assert both.incr(key, 1) == 3
        assert both.get_many([key, f"{{{prefix}}}new"]) == [b"3", b"n"]
        assert both.delete_many([key, f"{{{prefix}}}new"]) == 2


def _owner_and_other(cluster: ValkeyCluster, slot: int) -> tuple[servers.Node, servers.Node]:
    with cluster.nodes[0].client() as client:
        for first, last, primary, *_ in client.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                owner = next(node for node in cluster.nodes if node.port == primary[1])
    return owner, next(node for node in cluster.primaries if node != owner)


# --- a primary goes away -------------------------------------------------------------------------------------------------


def test_failover__primary_is_killed_under_load__others_serve_on_and_its_slots_come_back(prefix: str) -> None:
    with servers.valkey_cluster(node_timeout_s=60) as cluster:
        store = RedisStore(cluster.url, failures=3, open_s=0.3)
        keys = [f"{prefix}{n}" for n in range(60)]
        store.set_many([(key, b"1", None) for key in keys])
        assert asyncio.run(store.aget_many(keys)) == [b"1"] * 60
        until(lambda: all(_replicated(node) for node in cluster.primaries))
        gone = cluster.primaries[0]
        lost = [key for key in keys if slot_of(("GET", key)) <= 16384 // 3 - 1]
        cluster.replace_after(1.0)
        os.kill(gone.pid, signal.SIGKILL)
        with pytest.raises(StoreFailed):
            store.get(lost[0])
        alive = [key for key in keys if key not in lost]
        assert store.get_many(alive) == [b"1"] * len(alive)
        until(lambda: _serves(store, lost))
        cluster.replace_after(60)
        assert store.get_many(keys) == [b"1"] * 60
        assert store.incr(lost[0], 1) == 2

        async def again() -> None:
            assert await store.aget_many(keys[1:]) == [b"1" if key != lost[0] else b"2" for key in keys[1:]]
            await store.aset(lost[0], b"3", None)

        asyncio.run(again())


def _replicated(node: servers.Node) -> bool:
    with node.client() as client:
        return bool(client.execute_command("WAIT", 1, 1000))


def _serves(store: RedisStore, keys: list[str]) -> bool:
    try:
        return store.get_many(keys) == [b"1"] * len(keys)
    except StoreFailed:
        return False


def test_failover__loop_that_goes_on__follows_to_the_new_primary(prefix: str) -> None:
    with servers.valkey_cluster(node_timeout_s=60) as cluster:
        options = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
        store = RedisStore(cluster.url, failures=3, open_s=0.3, options=options)

        async def ride() -> None:
            keys = [f"{prefix}{n}" for n in range(30)]
            with contextlib.suppress(
                StoreFailed
            ):  # it makes the map and dials; half a second may be too short
                await store.aset_many([(key, b"1", None) for key in keys])
            cluster.replace_after(1.0)
            os.kill(cluster.primaries[1].pid, signal.SIGSTOP)  # it hangs, which is worse than being gone
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    done = await asyncio.gather(
                        *(store.aset(key, b"2", None) for key in keys), return_exceptions=True
                    )
                    assert all(one is True or isinstance(one, StoreFailed) for one in done)
                    if all(one is True for one in done):
                        return
                    await asyncio.sleep(0.05)
                raise AssertionError("it did not recover")
            finally:
                os.kill(cluster.primaries[1].pid, signal.SIGCONT)

        asyncio.run(ride())


def test_cluster__all_nodes_gone__is_store_failed_at_once_when_their_breakers_are_open(
    half: asyncio.Runner | None,
) -> None:
    ports = [servers.free_port() for _ in range(3)]
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
    both = Both(RedisStore(url, failures=1, open_s=60.0), half)
    for _ in range(2):
        with pytest.raises(StoreFailed) as failed:
            both.get("k")
        assert isinstance(failed.value.__cause__, redis.RedisError)
    took = []
    for _ in range(100):
        began = time.perf_counter()
        with pytest.raises(StoreFailed):
            both.set("k", b"v", None)
        took.append(time.perf_counter() - began)
    assert sorted(took)[50] < 0.001


# --- the rules, without a server -----------------------------------------------------------------------------------------

A, B, C = ("a", 1), ("b", 2), ("c", 3)


def known() -> Slots:
    slots = Slots([A])
    slots.learn([[0, 8191, [b"a", 1, b"id"]], [8192, 16383, [b"b", 2, b"id"], [b"c", 3, b"id"]]], A)
    return slots


def script(answers: dict[Any, Any]) -> Any:
    """Plays nodes: answers by node, each a reply, an error, or a list of them in turn."""
    sent: list[Any] = []

    def perform(step: Any) -> Any:
        sent.append(step)
        if isinstance(step, Pause):
            return None
        if isinstance(step, SendMany):
            return {node: [_answer(answers, node) for _ in some] for node, some in step.commands.items()}
        answer = _answer(answers, step.node)
        if isinstance(answer, Exception):
            raise answer
        return answer

    perform.sent = sent  # type: ignore[attr-defined]
    return perform


def _answer(answers: dict[Any, Any], node: Any) -> Any:
    return answers[node].pop(0) if isinstance(answers[node], list) else answers[node]


def test_slot_of__key_and_hash_tag__are_as_in_the_specification() -> None:
    assert slot_of(("GET", "123456789")) == 0x31C3
    assert slot_of(("GET", "{user1}.a")) == slot_of(("SET", b"{user1}.b", "x"))
    assert slot_of(("EVALSHA", "sha", 1, "123456789")) == 0x31C3


def test_learn__node_that_does_not_know_its_address__is_the_one_that_was_asked() -> None:
    slots = Slots([A])
    slots.learn([[0, 16383, [b"", 7, b"id"]]], A)
    assert slots.primaries == (("a", 7),)


def test_routed__moved_then_ask_then_try_again__ends_at_the_right_node() -> None:
    slots = known()
    asked = redis.exceptions.AskError("1 c:3")
    again = redis.exceptions.TryAgainError("")
    perform = script({A: [redis.exceptions.MovedError("1 b:2")], B: [asked], C: [again, b"found"]})
    key = "b"  # slot 3300
    assert drive(routed(slots, ("GET", key), is_read=True), perform) == b"found"
    assert [step.node for step in perform.sent if isinstance(step, Send)] == [A, B, C, C]
    assert [step.is_asking for step in perform.sent if isinstance(step, Send)] == [False, False, True, True]
    assert slots.owner(slot_of(("GET", key))) == B
    assert slots.is_outdated


def test_routed__round_in_circles__ends() -> None:
    moved = redis.exceptions.MovedError
    perform = script({A: moved("1 b:2"), B: moved("1 a:1")})
    with pytest.raises(redis.exceptions.ClusterError, match=str(HOPS)):
        drive(routed(known(), ("GET", "b"), is_read=True), perform)
    assert len(perform.sent) == HOPS


def test_routed__lost_connection__is_not_sent_to_another_node() -> None:
    slots = known()
    perform = script({A: redis.ConnectionError("gone")})
    with pytest.raises(redis.ConnectionError):
        drive(routed(slots, ("INCRBY", "b", 1), is_read=False), perform)
    assert len(perform.sent) == 1
    assert slots.sources()[-1] == A  # the others are asked first, now


def test_pipelined__one_node_lost_and_one_redirecting__only_the_redirected_is_sent_again() -> None:
    slots = known()
    low, high = "b", "a"  # slots 3300 and 15495
    lost = redis.ConnectionError("gone")
    perform = script({B: [redis.exceptions.MovedError("15495 c:3")], C: [b"moved"]})

    def one_lost(step: Any) -> Any:
        if isinstance(step, SendMany):
            perform.sent.append(step)
            return {A: lost, B: [redis.exceptions.MovedError("15495 c:3")]}
        return perform(step)

    replies = drive(pipelined(slots, [("SET", low, 1), ("SET", high, 2)]), one_lost)
    assert replies == [lost, b"moved"]
    assert [step.node for step in perform.sent if isinstance(step, Send)] == [C]


def test_refreshed__first_nodes_are_gone__asks_the_next_and_keeps_what_it_knew() -> None:
    slots = Slots([A, B])
    gone = redis.ConnectionError("gone")
    drive(refreshed(slots), script({A: gone, B: [[[0, 16383, [b"b", 2, b"id"]]]]}))
    assert slots.primaries == (B,)
    assert not slots.is_outdated
    slots.suspect(B)
    drive(refreshed(slots), script({A: gone, B: gone}))
    assert slots.owner(0) == B
    with pytest.raises(redis.ConnectionError):
        drive(refreshed(Slots([A])), script({A: gone}))


def test_all_read__primary_was_replaced_unnoticed__asks_the_new_one(
    cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{cluster.url}?client_name=unnoticed"
    link: Any = connections.link(url)
    assert link.call("SET", "{unnoticed}", 7)
    gone = ("127.0.0.1", servers.free_port())
    link.slots._owners = [gone] * len(link.slots._owners)
    link.slots.asked(float("-inf"))  # it is long ago
    assert all_read(link, [("GET", "{unnoticed}")]) == [b"7"]
    link.call("DEL", "{unnoticed}")


@pytest.mark.parametrize(("tells", "asked"), [(True, "c"), (False, "a")])
async def test_call__after_a_failover__goes_to_the_new_primary_if_the_nodes_tell_in_time(
    tells: bool, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tells:
        monkeypatch.setattr("cache_app.cluster._LOOK_S", 60.0)

    class Told:
        def __init__(self, node: tuple[str, int]) -> None:
            self.host = node[0]

        async def read(self, *command: Any) -> Any:
            await asyncio.sleep(0 if tells else 60)
            return [[0, 16383, [b"c", 3, b"id"]]]

        async def call(self, *command: Any) -> str:
            return self.host

        async def aclose(self) -> None: ...

    link = AsyncClusterLink([A, B], Told)  # type: ignore[arg-type]
    link.slots.learn([[0, 16383, [b"a", 1, b"id"]]], A)
    link.slots.suspect(A)
    assert await link.call("SET", "k", 1) == asked
    await link.aclose()


def test_refreshed__nodes_that_hang__not_waited_for_in_turn() -> None:
    hangs = script({node: redis.TimeoutError("no reply") for node in (A, B, C)})
    slots = Slots([A, B, C])
    with pytest.raises(redis.TimeoutError):
        drive(refreshed(slots), hangs)
    assert len(hangs.sent) == 2
    assert {Slots([A, B, C]).sources()[0] for _ in range(100)} == {A, B, C}  # the others have their turn
    slots.learn([[0, 16383, [b"b", 2, b"id"]]], B)
    slots.suspect(B)
    drive(refreshed(slots), hangs)
    assert len(hangs.sent) == 3
    assert slots.owner(0) == B


def test_is_due__within_half_a_second__the_nodes_are_left_in_peace() -> None:
    slots = known()
    slots.suspect(A)
    slots.asked(10.0)
    assert not slots.is_due(10.4)
    assert slots.is_due(10.5)


def test_look__many_threads_on_a_new_link__ask_once(cluster: ValkeyCluster, prefix: str) -> None:
    store = RedisStore(f"{cluster.url}?client_name={prefix.strip(':')}")
    errors: list[StoreFailed] = []

    def ask() -> None:
        try:
            store.get("k")
        except StoreFailed as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
