"""A process of an edge is killed, or the whole edge is told to stop."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .drill import drill
from .loads import Kind
from .rig import simple
from .sockets import Sockets
from .verdict import Excuse, Fate, percentile

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig
    from .sites import Edge

GRACE_S = 4.0
SLOW_MS = (500, 2500)
_CUT_S = 1.0  # until a client has noticed
_SLACK_S = 2.0  # of the supervisor, for workers that do not end by themselves


@drill("worker-killed")
def killed(rig: Rig) -> Outcome:
    """One of two workers, again and again. What it had is cut; nobody else notices, and a new one takes its place."""
    rounds = rig.size(2, 15)
    rig.apply(simple(rig.targets(2)))
    edge = rig.edge()
    cut: dict[int, float] = {}  # the ports of the clients that it had, and when it was killed
    longest_s = 0.0
    with rig.load([edge], 16, keep_alive=60) as load:
        for number in range(rounds):
            time.sleep(1.0)
            victim = edge.pids[number % 2]
            others = set(edge.pids) - {victim}
            at = _kill_at_rest(edge, victim, cut)
            known = others | {victim}
            fresh = rig.until(lambda known=known: set(edge.pids) - known, "a new worker is started").pop()
            rig.claim(others < set(edge.pids), "the other worker stays")
            rig.comes(lambda fresh=fresh: edge.clients(fresh), "the new worker has clients")
            longest_s = max(longest_s, time.monotonic() - at)
        fates = load.stop()
    theirs = Excuse(
        "on connections of the killed worker", lambda fate: bool(fate.fault) and _was_cut(fate, cut)
    )
    slowest_ms = percentile([fate.until - fate.at for fate in fates if fate.is_good], 100) * 1e3
    note = f"{rounds} × kill -9 to one of two workers, the new one had clients after {longest_s:.1f} s"
    return rig.outcome(
        f"{note}, no answer took longer than {slowest_ms:.0f} ms", fates, [theirs], recovered_s=longest_s
    )


def _was_cut(fate: Fate, cut: Mapping[int, float]) -> bool:
    """Ports are used again by later connections."""
    return abs(fate.until - cut.get(fate.port, math.inf)) < _CUT_S


def _kill_at_rest(edge: Edge, victim: int, cut: dict[int, float]) -> float:
    """Frozen first, so that its connections are known to the last one; those in the queue of the listening socket are
    everybody's."""
    os.kill(victim, signal.SIGSTOP)
    clients, at = edge.clients(victim), time.monotonic()
    os.kill(victim, signal.SIGKILL)
    cut |= dict.fromkeys(clients, at)
    return at


@drill("sigterm")
def sigterm(rig: Rig) -> Outcome:
    """What is under way ends, nothing new is taken, then the WebSockets go, and the exit code is 0."""
    rounds = rig.size(1, 6)
    rig.settings(SHUTDOWN_GRACE_S=GRACE_S)
    targets = rig.targets(2)
    rig.apply(simple(targets))
    fates: list[Fate] = []
    took: list[float] = []
    under_way = 0
    for _ in range(rounds):
        more, took_s, waited = _stopped(rig)
        fates += more
        took.append(took_s)
        under_way += waited
    rig.claim(max(took) <= GRACE_S + _SLACK_S, f"it is gone within SHUTDOWN_GRACE_S ({max(took):.1f} s)")
    rig.claim(under_way > rounds, f"requests were under way ({under_way})")
    note = f"{rounds} × SIGTERM to an edge with {under_way} requests under way, gone after {max(took):.1f} s at most"
    return rig.outcome(note, fates, recovered_s=max(took), within_s=GRACE_S + _SLACK_S)


def _stopped(rig: Rig) -> tuple[list[Fate], float, int]:
    """The fates of all requests that are to be judged, how long it took, and how many were under way."""
    edge = rig.edge()
    kind = Kind(ms=SLOW_MS, streamed=4, pieces=10)
    with rig.load([edge], 24, kind) as load, Sockets([edge.port], 8) as sockets:
        rig.comes(lambda: sockets.are_open, "the WebSockets are open")
        time.sleep(SLOW_MS[1] / 1e3)
        at = time.monotonic()
        code, took_s = edge.end()
        ended_at = at + took_s
        time.sleep(0.2)
        fates = load.stop()
        sockets.stop()
    rig.claim(code == 0, f"the exit code is 0 (it was {code})")
    rig.claim(len(sockets.broken) == len(sockets.all), "the WebSockets are closed")
    before = [fate for fate in fates if fate.at < at]
    under_way = [fate for fate in before if fate.until > at]
    last = max((fate.until for fate in under_way), default=at)
    early = [one for one in sockets.broken if one.ended_at < last - 0.1]
    rig.claim(not early, f"WebSockets outlast the requests ({len(early)} did not)")
    _refused(rig, fates, at, ended_at)
    # Whoever asks while the edge closes an idle connection cannot be told: RFC 9112 section 9.3.1, he asks again.
    seen = rig.runs()
    late = [fate for fate in fates if fate.at >= at and (fate.is_good or seen[fate.id])]
    return [fate for fate in before if seen[fate.id] or fate.until < at] + late, took_s, len(under_way)


def _refused(rig: Rig, fates: list[Fate], at: float, ended_at: float) -> None:
    """New connections, from the moment on that the stop began: refused at once, not left to wait for its end."""
    new = [fate for fate in fates if fate.fault.startswith("not connected") and fate.at > at]
    during = [fate for fate in new if fate.at < ended_at]
    rig.claim(bool(during), "new connections are refused while it stops")
    hung = [
        fate for fate in fates if at + 0.5 < fate.at < ended_at and not fate.fault.startswith("not connected")
    ]
    rig.claim(
        not hung,
        f"no new connection is taken and not answered ({len(hung)} were: {', '.join(map(str, hung[:3]))})",
    )
