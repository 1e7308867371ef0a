"""Two processes of a site read from two replicas that are paused, stopped and crashed; then a replica becomes the primary.

Writers write their number and read it back, each request to the other process; readers read it without having written.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import subprocess
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orm_app.conf import DatabaseConf
from tests import servers
from tests.drills.outcome import Broken

from .drill import drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

WRITERS, READERS = 4, 4
_PAUSE_S = 0.01
# A reader's number may be as old as the limit says, and as long as its request took.
_OLDEST_S = DatabaseConf().REPLICA_MAX_LAG_S
_SOON_S = 5.0  # from the promotion until a write is taken again


@drill("replicas-postgresql", quick_s=120, full_s=240)
def hold(rig: Rig) -> Outcome:
    """Nobody reads less than it has written, nobody less than what is older than the lag limit, and no read fails while
    there is a primary."""
    with servers.postgresql_cluster(2) as cluster:
        one, two = cluster.standbys
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in (cluster.primary, one))
        url = f"postgres://brain@{hosts}/brain?target_session_attrs=read-write&pool_timeout=2"
        rig.finish(rig.start("replicated_site", "fill", url=url), timeout_s=60)
        ports = [_served(rig, url, [one.url, two.url]) for _ in range(2)]
        record = Record()
        with _clients(record, ports):
            time.sleep(2)
            for _ in range(1 if rig.quick else 3):
                _break_replicas(cluster)
            away = time.monotonic()
            cluster.primary.stop()
            cluster.promote(one)
            promoted = time.monotonic()
            cluster.follow(two, one)
            time.sleep(8)
        lost = sum(_last(one, account) < record.numbers(account)[-1] for account in range(1, WRITERS + 1))
    taken = [at for at, _ in record.writes if at > promoted]
    recovered_s = min(taken, default=promoted + 60) - promoted
    failed = [(at, text) for at, text in record.failed_reads if not away <= at <= promoted + recovered_s + 1]
    after = sum(1 for at, alias in record.sources if alias == "replica2" and at > promoted)
    rig.claim(not failed, f"{len(failed)} reads failed: {failed[:1]}")
    rig.claim(not record.stale, f"{len(record.stale)} reads were older than allowed: {record.stale[:2]}")
    rig.claim(recovered_s < _SOON_S, f"no write for {recovered_s:.1f} s after the promotion")
    rig.claim(after, "the replica of the new primary has got no reads")
    counts = Counter(alias for _, alias in record.sources)
    rig.claim(
        counts["replica1"] > 100 and counts["replica2"] > 100, f"replicas got hardly any reads: {counts}"
    )
    note = (
        f"{len(record.writes):,} writes; reads: {dict(sorted(counts.items()))}; {record.own:,} of one's own number; "
        f"{len(record.failed_reads)} reads and {len(record.failed_writes)} writes failed while there was no primary"
    )
    return rig.outcome(note, lost=lost, failed=len(failed) + len(record.stale), recovered_s=recovered_s)


def _break_replicas(cluster: servers.PostgresCluster) -> None:
    one, two = cluster.standbys
    psql = servers.binary("psql")
    for node in (one, two):
        node.run([psql, "-qX", node.url, "-c", "SELECT pg_wal_replay_pause()"])
    time.sleep(_OLDEST_S + 2)  # long enough to be too old
    for node in (one, two):
        node.run([psql, "-qX", node.url, "-c", "SELECT pg_wal_replay_resume()"])
    time.sleep(2)
    one.stop()
    time.sleep(2)
    one.start()
    time.sleep(2)
    two.crash()
    time.sleep(2)
    two.start()
    time.sleep(3)


@dataclass
class Record:
    """What the clients saw. acknowledged: of each account, when its number was taken, in order."""

    acknowledged: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    writes: list[tuple[float, int]] = field(default_factory=list)
    sources: list[tuple[float, str]] = field(default_factory=list)
    failed_reads: list[tuple[float, str]] = field(default_factory=list)
    failed_writes: list[tuple[float, str]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    own: int = 0

    def numbers(self, account: int) -> list[int]:
        return [0, *(number for _, number in self.acknowledged.get(account, ()))]

    def known(self, account: int, before: float) -> int:
        """The number that was taken last before this moment."""
        taken = self.acknowledged.get(account, [])
        place = bisect_right(taken, before, key=lambda one: one[0])
        return taken[place - 1][1] if place else 0


class Client:
    """A browser: it keeps its cookie, and every request goes to the next process."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._cookie = ""

    def send(self, method: str, where: str) -> str:
        """The body. Raises OSError, HTTPException, RuntimeError."""
        connection = http.client.HTTPConnection("127.0.0.1", next(self._ports), timeout=30)
        with contextlib.closing(connection):
            connection.request(method, where, headers={"Cookie": self._cookie} if self._cookie else {})
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body[:200]}")
        self._cookie = (answer.headers.get("Set-Cookie") or self._cookie).partition(";")[0]
        return body


def _writes(record: Record, ports: list[int], account: int) -> None:
    client, mine = Client(ports), record.acknowledged.setdefault(account, [])
    acknowledged = 0
    for number in _on():
        try:
            client.send("POST", f"/write/{account}/{number}")
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            record.failed_writes.append((time.monotonic(), str(error)))
            continue
        acknowledged = number
        mine.append((time.monotonic(), number))
        record.writes.append(mine[-1])
        for _ in range(3):
            found = _read(record, client, account)
            if found is not None:
                record.own += 1
                if found[0] < acknowledged:
                    record.stale.append(f"own {found[0]} of {acknowledged} from {found[1]}")
            time.sleep(_PAUSE_S)


def _reads(record: Record, ports: list[int], account: int) -> None:
    client = Client(ports)
    for _ in _on():
        began = time.monotonic()
        found = _read(record, client, account)
        if found is not None and found[0] < (least := record.known(account, began - _OLDEST_S)):
            record.stale.append(f"{found[0]}, where {least} is {_OLDEST_S:g} s old, from {found[1]}")
        time.sleep(_PAUSE_S)


def _read(record: Record, client: Client, account: int) -> tuple[int, str] | None:
    try:
        number, alias = client.send("GET", f"/read/{account}").split()
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        record.failed_reads.append((time.monotonic(), str(error)))
        return None
    record.sources.append((time.monotonic(), alias))
    return int(number), alias


_over = threading.Event()


def _on() -> Iterator[int]:
    for number in itertools.count(1):
        if _over.is_set():
            return
        yield number


@contextlib.contextmanager
def _clients(record: Record, ports: list[int]) -> Iterator[None]:
    work: list[tuple[Callable[..., None], int]] = [(_writes, n) for n in range(1, WRITERS + 1)]
    work += [(_reads, 1 + n % WRITERS) for n in range(READERS)]
    threads = [threading.Thread(target=one, args=(record, ports, account)) for one, account in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        _over.set()
        for thread in threads:
            thread.join()


def _served(rig: Rig, url: str, replica_urls: list[str]) -> int:
    port = servers.free_port()
    process: subprocess.Popen[bytes] = rig.start("replicated_site", str(port), *replica_urls, url=url)
    deadline = time.monotonic() + 30
    while not servers.answers(port)():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Broken("the site did not start")
        time.sleep(0.05)
    return port


def _last(node: servers.PostgresNode, account: int) -> int:
    import psycopg

    with psycopg.connect(node.url) as connection:
        [number] = connection.execute(
            "SELECT cents FROM bank_account WHERE id = %s", [account]
        ).fetchone() or (0,)
    return int(number)
