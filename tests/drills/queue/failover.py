"""The broker moves to another server, and workers of two transports share one queue."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from tests import servers as private

from .drill import drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_GROUP = "drill"


class Sentinels:
    """A master, a replica, and a Sentinel that promotes the replica one second after the master is gone."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.master, self.replica, self.sentinel = (private.free_port() for _ in range(3))
        self.env = {"BROKER_URL": f"sentinel://127.0.0.1:{self.sentinel}/0", "BRAIN_SENTINEL_MASTER": _GROUP}
        self._pids: dict[int, int] = {}

    @property
    def url(self) -> str:
        """The platform's other Redis."""
        return f"redis://127.0.0.1:{self.replica}/0"

    def start(self, stack: contextlib.ExitStack) -> None:
        server = private.binary("redis-server", "valkey-server")
        self._server(stack, server, self.master)
        self._server(stack, server, self.replica, "--replicaof", f"127.0.0.1 {self.master}")
        _until(lambda: _info(self.replica, "replication")["master_link_status"] == "up")
        conf = self.home / "sentinel.conf"
        conf.write_text(
            f"port {self.sentinel}\nbind 127.0.0.1\ndir {self.home}\n"
            f"sentinel monitor {_GROUP} 127.0.0.1 {self.master} 1\n"
            f"sentinel down-after-milliseconds {_GROUP} 1000\nsentinel failover-timeout {_GROUP} 5000\n"
        )
        command = [server, str(conf), "--sentinel"]
        stack.enter_context(
            private.running(command, private.answers(self.sentinel), log=self.home / "sentinel.log")
        )
        _until(lambda: len(self._watcher().sentinel_slaves(_GROUP)) == 1)

    def kill_master(self) -> None:
        os.kill(self._pids[self.master], signal.SIGKILL)

    def promoted(self) -> bool:
        return int(self._watcher().sentinel_get_master_addr_by_name(_GROUP)[1]) == self.replica

    def _watcher(self) -> redis.Redis:
        return redis.Redis(port=self.sentinel, socket_timeout=5)

    def _server(self, stack: contextlib.ExitStack, binary: str, port: int, *more: str) -> None:
        where = self.home / str(port)
        where.mkdir()
        command = [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(where),
            "--save",
            "",
            *more,
        ]
        process = stack.enter_context(private.running(command, private.answers(port), log=where / "log"))
        self._pids[port] = process.pid


@contextlib.contextmanager
def sentinels(home: Path) -> Iterator[Sentinels]:
    with contextlib.ExitStack() as stack:
        group = Sentinels(home)
        group.start(stack)
        yield group


@drill("sentinel", broker=sentinels)
def sentinel(rig: Rig) -> Outcome:
    """kill -9 of the master under load. What it had not yet told its replica is lost to the broker, not to the ledger."""
    rig.worker(), rig.worker("prefork", 2)
    rig.enqueue(400)
    rig.progress(20)
    began = time.monotonic()
    rig.broker.kill_master()
    while not rig.broker.promoted():
        rig.enqueue(10)
        time.sleep(0.1)
    promoted_s = time.monotonic() - began
    rig.mended()
    rig.enqueue(100)
    rig.finish()
    return rig.outcome(f"kill -9 of the master; Sentinel had promoted the replica after {promoted_s:.1f} s")


@drill("stock-and-ours")
def stock_and_ours(rig: Rig) -> Outcome:
    """A worker on Kombu's own Redis transport and one on ours, on one queue; each is killed while it holds jobs."""
    rounds = 2 if rig.quick else 20
    stock = {"BROKER_URL": f"stock-{rig.broker.url}"}
    rig.enqueue(300)
    theirs, ours = rig.worker(env=stock), rig.worker()
    done = [0, 0]
    for _ in range(rounds):
        rig.busy(theirs)
        rig.busy(ours)
        time.sleep(random.uniform(0.05, 0.4))
        done = [done[0] + rig.evidence.run_by(theirs.pid), done[1] + rig.evidence.run_by(ours.pid)]
        rig.blow(theirs.kill, theirs)
        theirs = rig.worker(env=stock)
        rig.busy(ours)
        rig.blow(ours.kill, ours)
        ours = rig.worker()
    rig.finish()
    rig.claim(min(done) > 0, f"both have done work ({done} jobs)")
    return rig.outcome(
        f"stock and our transport on one queue, {rounds} kills of each; {done[0]} and {done[1]} jobs before"
    )


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError("Sentinel and its servers did not find each other")
        time.sleep(0.1)


def _info(port: int, section: str) -> dict[str, str]:
    with redis.Redis(port=port, socket_timeout=5) as client:
        return client.info(section)  # type: ignore[return-value]
