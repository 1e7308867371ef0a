"""A Redis or Valkey cluster: which node serves a key, and following the nodes when slots and primaries move.

    command → slot of its first key → node → MOVED / ASK / TRYAGAIN → another node

redis-py's own cluster clients send every command of a pipeline again after a lost connection, done or not; the one for
threads sleeps 0.25 s on CLUSTERDOWN, the one for asyncio refuses the 51st caller. So the nodes get our links, and only
the protocol's rules stand here: https://valkey.io/topics/cluster-spec/
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, ClusterError, MovedError, TryAgainError

from .addresses import Node
from .alink import AsyncLink
from .link import Command, Link
from .steps import adrive, drive

HOPS = 16  # redirections of one command
REFRESH_S = 0.5  # the nodes are not asked more often who serves what
_PAUSE_S = 0.05  # before TRYAGAIN is obeyed
_LOOK_S = 0.1  # that a task waits for the answer which it asks for: a node that lives tells in a millisecond
_ASKING: Command = ("ASKING",)
_WITH_KEY_AT_3 = ("EVAL", "EVALSHA")


def slot_of(command: Command) -> int:
    key = command[3 if command[0] in _WITH_KEY_AT_3 else 1]
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


class Slots:
    """Which primary serves which slot, as the nodes told it. Replaced as a whole, patched by MOVED."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """nodes: any of the cluster, to ask first."""
        self._first = tuple(nodes)
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self.primaries: tuple[Node, ...] = ()
        self._known: tuple[Node, ...] = ()
        self._suspect: Node | None = None
        self.is_outdated = True
        self._asked_at = float("-inf")

    def owner(self, slot: int) -> Node:
        found = self._owners[slot]
        if found is None:
            raise ClusterDownError(f"no node has told who serves slot {slot}")
        return found

    def suspect(self, node: Node) -> None:
        """It did not answer, or does not serve what it should: ask the others first."""
        self._suspect, self.is_outdated = node, True

    def moved(self, slot: int, node: Node) -> None:
        self._owners[slot] = node
        self.is_outdated = True  # one slot seldom moves alone

    def is_due(self, now: float) -> bool:
        return self.is_outdated and now - self._asked_at >= REFRESH_S

    def asked(self, now: float) -> None:
        self._asked_at = now

    def sources(self) -> list[Node]:
        """Whom to ask, in turn: any node knows all, but one that has just died tells nothing."""
        known, first = list(self._known), list(self._first)
        random.shuffle(known)
        random.shuffle(first)
        return sorted(dict.fromkeys([*known, *first]), key=lambda node: node == self._suspect)

    def learn(self, reply: Sequence[Any], told_by: Node) -> None:
        """A reply to CLUSTER SLOTS: [first slot, last slot, primary, replica …]; a node is [host, port, …]."""
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        primaries: dict[Node, None] = {}
        known: dict[Node, None] = {}
        for first, last, primary, *replicas in reply:
            owner = _node(primary, told_by)
            owners[first : last + 1] = [owner] * (last + 1 - first)
            primaries[owner] = None
            known.update(dict.fromkeys([owner, *(_node(replica, told_by) for replica in replicas)]))
        self._owners, self.primaries, self._known = owners, tuple(primaries), tuple(known)
        self._suspect, self.is_outdated = None, False


def _node(entry: Sequence[Any], told_by: Node) -> Node:
    """A node that does not know its own address leaves the host out: it is the one that was asked."""
    host = entry[0].decode() if isinstance(entry[0], bytes) else entry[0]
    return (host or told_by[0], int(entry[1]))


# --- the rules, for both doors -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    node: Node
    command: Command
    is_asking: bool = False
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class SendMany:
    """To each node its commands, at the same time. The result: per node the replies, or one error for all."""

    commands: Mapping[Node, list[Command]]


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Steps = Generator[Any, Any, Any]


def refreshed(slots: Slots) -> Steps:
    """Ask one node after the other for the slots. Raises the last one's error, unless an older answer is there.

    Whoever called waits for this. One that is gone says so at once; when all of them hang, waiting for each in turn is in
    vain: the others are asked the next time.
    """
    failed: redis.RedisError | None = None
    patience = 1 if slots.primaries else 2
    for node in slots.sources():
        try:
            slots.learn((yield Send(node, ("CLUSTER", "SLOTS"), is_read=True)), node)
            return
        except redis.RedisError as error:
            failed = error
            patience -= isinstance(error, redis.TimeoutError)
            if not patience:
                break
    if failed is not None and not slots.primaries:
        raise failed


def routed(slots: Slots, command: Command, *, is_read: bool) -> Steps:
    """A redirected command was not executed: sending it to the other node is sending it once."""
    slot = slot_of(command)
    step = Send(_owner(slots, slot), command, is_read=is_read)
    for _ in range(HOPS):
        try:
            return (yield step)
        except MovedError as error:
            node = _redirected(error, step.node)
            slots.moved(slot, node)
            step = Send(node, command, is_read=is_read)
        except AskError as error:  # for this command only
            step = Send(_redirected(error, step.node), command, is_asking=True)
        except TryAgainError:
            yield Pause(_PAUSE_S)
        except (redis.ConnectionError, redis.TimeoutError, ClusterDownError):
            slots.suspect(step.node)
            raise
    raise ClusterError(f"redirected more than {HOPS} times")


def pipelined(slots: Slots, commands: Sequence[Command]) -> Steps:
    """One round trip to all nodes at once, then the redirected ones each for itself."""
    owners = [_owner(slots, slot_of(command)) for command in commands]
    places: dict[Node, list[int]] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, []).append(place)
    by_node = yield SendMany({node: [commands[place] for place in some] for node, some in places.items()})
    replies: list[Any] = [None] * len(commands)
    for node, some in places.items():
        if isinstance(by_node[node], Exception):
            slots.suspect(node)
        for count, place in enumerate(some):
            replies[place] = by_node[node] if isinstance(by_node[node], Exception) else by_node[node][count]
    for place, reply in enumerate(replies):
        if isinstance(reply, AskError | TryAgainError):
            if isinstance(reply, MovedError):
                slots.moved(slot_of(commands[place]), _redirected(reply, owners[place]))
            try:
                replies[place] = yield from routed(slots, commands[place], is_read=False)
            except redis.RedisError as error:
                replies[place] = error
    return replies


def _owner(slots: Slots, slot: int) -> Node:
    try:
        return slots.owner(slot)
    except ClusterDownError:
        slots.is_outdated = True
        raise


def _redirected(error: AskError, asked: Node) -> Node:
    return (error.host or asked[0], error.port)


# --- the doors -----------------------------------------------------------------------------------------------------------


class ClusterLink:
    """What `link.Link` is to one server, for threads."""

    is_cluster = True

    def __init__(self, nodes: Sequence[Node], link_to: Callable[[Node], Link]) -> None:
        self._nodes, self._link_to = tuple(nodes), link_to
        self.reset()

    def reset(self) -> None:
        self.slots = Slots(self._nodes)
        self._links: dict[Node, Link] = {}
        self._guard, self._looking = threading.Lock(), threading.Lock()

    def close(self) -> None:
        for link in list(self._links.values()):
            link.close()

    def call(self, *command: Any) -> Any:
        self._look()
        return drive(routed(self.slots, command, is_read=False), self._perform)

    def read(self, *command: Any) -> Any:
        self._look()
        return drive(routed(self.slots, command, is_read=True), self._perform)

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        self._look()
        replies: list[Any] = drive(pipelined(self.slots, commands), self._perform)
        return replies

    def primaries(self) -> list[Link]:
        self.slots.is_outdated = True
        self._look()
        return [self.to(node) for node in self.slots.primaries]

    def to(self, node: Node) -> Link:
        found = self._links.get(node)
        if found is None:
            with self._guard:
                found = self._links.get(node) or self._links.setdefault(node, self._link_to(node))
        return found

    def _look(self) -> None:
        """Ask who serves what, if that is in doubt; one thread does, the others go by what was known."""
        slots = self.slots
        if not slots.is_outdated or (slots.primaries and not slots.is_due(time.monotonic())):
            return
        if not self._looking.acquire(blocking=not slots.primaries):
            return
        try:
            now = time.monotonic()
            if slots.is_due(now):
                slots.asked(now)
                drive(refreshed(slots), self._perform)
        finally:
            self._looking.release()

    def _perform(self, step: Any) -> Any:
        match step:
            case Send(node, command, True, _):
                return _second(self.to(node).pipeline([_ASKING, command]))
            case Send(node, command, _, True):
                return self.to(node).read(*command)
            case Send(node, command):
                return self.to(node).call(*command)
            case SendMany(commands):
                return self._send_many(commands)
            case Pause(seconds):
                return time.sleep(seconds)
        raise AssertionError(step)

    def _send_many(self, commands: Mapping[Node, list[Command]]) -> dict[Node, Any]:
        """All nodes work while we write to the next and read from the first."""
        begun: dict[Node, Any] = {}
        answers: dict[Node, Any] = {}
        try:
            for node, some in commands.items():
                try:
                    begun[node] = self.to(node).begin(some)
                except redis.RedisError as error:
                    answers[node] = error
            for node in list(begun):
                try:
                    answers[node] = self.to(node).finish(begun.pop(node), len(commands[node]))
                except redis.RedisError as error:
                    answers[node] = error
        finally:
            for node, connection in begun.items():  # this thread was interrupted
                self.to(node).abandon(connection)
        return answers


class AsyncClusterLink:
    """The same for one event loop."""

    is_cluster = True

    def __init__(self, nodes: Sequence[Node], link_to: Callable[[Node], AsyncLink]) -> None:
        self.slots = Slots(nodes)
        self._link_to = link_to
        self._links: dict[Node, AsyncLink] = {}
        self._looking: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        links, self._links = list(self._links.values()), {}
        for link in links:
            await link.aclose()

    async def call(self, *command: Any) -> Any:
        if self.slots.is_outdated:
            await self._look()
        return await adrive(routed(self.slots, command, is_read=False), self._perform)

    async def read(self, *command: Any) -> Any:
        if self.slots.is_outdated:
            await self._look()
        return await adrive(routed(self.slots, command, is_read=True), self._perform)

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if self.slots.is_outdated:
            await self._look()
        replies: list[Any] = await adrive(pipelined(self.slots, commands), self._perform)
        return replies

    async def primaries(self) -> list[AsyncLink]:
        self.slots.is_outdated = True
        await self._look()
        return [self.to(node) for node in self.slots.primaries]

    def to(self, node: Node) -> AsyncLink:
        if node not in self._links:
            self._links[node] = self._link_to(node)
        return self._links[node]

    async def _look(self) -> None:
        """One task asks; while nothing is known the others wait for it, later they go by what was known. It waits a moment
        itself, or the first call after a failover would fail as well."""
        now = time.monotonic()
        if self._looking is None and self.slots.is_due(now):
            self.slots.asked(now)
            self._looking = asyncio.get_running_loop().create_task(self._refresh())
            self._looking.add_done_callback(_retrieved)
            if self.slots.primaries:
                await asyncio.wait((self._looking,), timeout=_LOOK_S)
        if self._looking is not None and not self.slots.primaries:
            await asyncio.shield(self._looking)

    async def _refresh(self) -> None:
        try:
            await adrive(refreshed(self.slots), self._perform)
        finally:
            self._looking = None

    async def _perform(self, step: Any) -> Any:
        match step:
            case Send(node, command, True, _):
                return _second(await self.to(node).pipeline([_ASKING, command]))
            case Send(node, command, _, True):
                return await self.to(node).read(*command)
            case Send(node, command):
                return await self.to(node).call(*command)
            case SendMany(commands):
                answers = await asyncio.gather(
                    *(self.to(node).pipeline(some) for node, some in commands.items()), return_exceptions=True
                )
                return dict(zip(commands, answers, strict=True))
            case Pause(seconds):
                return await asyncio.sleep(seconds)
        raise AssertionError(step)


def _second(replies: list[Any]) -> Any:
    if isinstance(replies[1], Exception):
        raise replies[1]
    return replies[1]


def _retrieved(task: asyncio.Task[None]) -> None:
    """Whoever waited has the error; a refresh that nobody waited for is repeated by the next call."""
    if not task.cancelled():
        task.exception()
