"""The server is restarted while a Django site serves requests from it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .drill import drill
from .servers import ENGINES, Server, connections_of
from .verdict import Outage, Request, held, restarted

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

CLIENTS, MAX_SIZE, POOL_TIMEOUT_S = 16, 8, 5
_PAUSE_S = 0.005
_SOON_S = 2.0  # from the server's return until somebody is served again
# Short ones, and ones after which a pool that waits ever longer between its attempts would be asleep.
_AWAY_S = {True: (0.2, 12.0), False: (0.2, 2.0, 8.0, 20.0)}


def _restart(rig: Rig, kind: str, interface: str, view: str = "mark") -> Outcome:
    """In order and by kill -9 in turn. No request fails that began when the server was back, no
    acknowledged row is lost, and the pool stays within its maximum."""
    server = rig.server(kind)
    url = f"{server.url}?pool_max_size={MAX_SIZE}&pool_timeout={POOL_TIMEOUT_S}"
    rig.fill(url)
    outages: list[Outage] = []
    with rig.serving(url, interface) as (site, port), _counted(site.pid, server.port) as most:
        load = Load(port, view)
        with load:
            time.sleep(1.0)
            ways = itertools.cycle((signal.SIGTERM, signal.SIGKILL))
            for away_s in _AWAY_S[rig.quick]:
                for how in itertools.islice(ways, 1 if rig.quick else 2):
                    outages.append(_bounce(server, how, away_s))
                    time.sleep(
                        POOL_TIMEOUT_S + 2.0
                    )  # whoever waits too long for a connection has given up by now
        # And once while nobody asks: all connections of the pool are idle, and dead when the next request comes.
        outages.append(_bounce(server, signal.SIGKILL, 0.2))
        with Load(port, view, clients=1, first=CLIENTS) as alone:
            time.sleep(2.0)
        load.requests += alone.requests
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/pool", timeout=10) as answer:
            left = json.load(answer)
    rig.claim(
        not left["in_use"] and not left["waiting"], f"the pool has not got back what it has lent: {left}"
    )
    seen = restarted(load.requests, outages)
    rows = [name for (name,) in server.ask("SELECT name FROM bank_mark")]
    good = [one.name for one in load.requests if not one.error]
    kept = held(good, (one.name for one in load.requests if one.error), rows)
    rig.claim(not seen.later, f"{len(seen.later)} failed after the first had: {_first(seen.later, outages)}")
    rig.claim(
        not seen.strays,
        f"{len(seen.strays)} failed before the server was stopped: {_first(seen.strays, outages)}",
    )
    rig.claim(not kept.extra, f"{len(kept.extra)} rows that no request has asked for")
    rig.claim(max(most) <= MAX_SIZE, f"{max(most)} connections")
    rig.claim(not seen.first, f"{seen.first} failed that began when the server was back")
    rig.claim(seen.recovered_s < _SOON_S, f"nobody was served for {seen.recovered_s:.1f} s after it was back")
    rig.claim(seen.served > 100, f"only {seen.served} requests were served")
    note = (
        f"{len(outages)} restarts; {seen.served:,} requests served, {seen.down} failed while it was away, {seen.first} "
        f"at first when it was back, {len(seen.later)} later; slowest then {seen.slowest_s:.2f} s; "
        f"at most {max(most)} of {MAX_SIZE} connections"
    )
    return rig.outcome(note, lost=len(kept.lost), failed=len(seen.later), recovered_s=seen.recovered_s)


def _bounce(server: Server, how: signal.Signals, away_s: float) -> Outage:
    gone = time.monotonic()
    server.stop(how)
    time.sleep(away_s)
    return Outage(gone, server.start())


def _first(requests: tuple[Request, ...], outages: list[Outage]) -> str:
    if not requests:
        return ""
    one = requests[0]
    since = one.began - max(
        (outage.back for outage in outages if outage.back <= one.began), default=one.began
    )
    return f"{since:.2f} s after, in {one.ended - one.began:.2f} s, {one.error}"


class Load:
    """Clients on connections of their own, each with one request under way."""

    def __init__(self, port: int, view: str, clients: int = CLIENTS, first: int = 0) -> None:
        self.requests: list[Request] = []
        self._port, self._view = port, view
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(first + n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for number in itertools.count():
            if self._is_over.is_set():
                break
            name, began, error = f"{client}-{number}", time.monotonic(), ""
            try:
                connection.request("GET", f"/{self._view}/{name}")
                answer = connection.getresponse()
                body = answer.read().decode()
                if answer.status != 200 or body != name:
                    error = f"{answer.status} {body[:200]}"
            except (OSError, http.client.HTTPException) as caught:
                error = f"{type(caught).__name__}: {caught}"
                connection.close()
            self.requests.append(Request(name, began, time.monotonic(), error))
            time.sleep(_PAUSE_S)
        connection.close()


@contextlib.contextmanager
def _counted(pid: int, port: int) -> Iterator[list[int]]:
    """The numbers of connections that were seen while the block runs."""
    seen, is_over = [0], threading.Event()

    def count() -> None:
        while not is_over.wait(0.05):
            seen.append(connections_of(pid, port))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def _register(kind: str, name: str, interface: str, view: str) -> None:
    @drill(f"restart-{kind}-{name}", quick_s=120, full_s=300)
    def hold(rig: Rig) -> Outcome:
        return _restart(rig, kind, interface, view)


for _kind in ENGINES:
    _register(_kind, "asgi", "asgi", "mark")
    _register(_kind, "async", "asgi", "amark")
    _register(_kind, "wsgi", "wsgi", "mark")
