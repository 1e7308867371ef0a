"""Memory: bodies of 100 MB in both directions, also when one end does not keep up; connections that do nothing."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks.figures import Figure, judged, median
from benchmarks.processes import Process, environment
from tests import servers

from . import asked, credentials, memory, proof, transfers
from .plan import START_S, Plan, say
from .sides import BRAIN, Settings, Started

PART = "bodies"
BODY_MB, IDLE_MB = 4.0, 10.0
IDLE_CONNECTIONS = 1_000
SMALL = 200  # requests before the first body
PAUSE_S = 1.0  # of a client that does not read: time enough to send it all 100 MB into somebody's memory


def figures(plan: Plan) -> list[Figure]:
    with ExitStack() as stack:
        port = _upstream(plan, stack)
        started = BRAIN.start(plan.ground, stack, Settings(ports=(port,)))
        started.process.wait_for(proof.serves(started.port), START_S)
        ways = _ways(started.port)
        # What the first request ever makes is no body's; a large body beforehand would leave its room to the measured.
        proof.ask(started.port, asked.paths()[0], credentials.token(), SMALL)
        # Idle connections first: they would fit into what a large body left free.
        idle = _idle(started)
        return [
            *(
                _grown(f"{PART}: {name}", started, way, plan.size.rounds, BODY_MB)
                for name, way in ways.items()
            ),
            idle,
        ]


def _upstream(plan: Plan, stack: ExitStack) -> int:
    port, log = servers.free_port(), plan.ground.folder("bodies") / "log"
    argv = [sys.executable, "-m", "benchmarks.gateway.body_upstream", str(port)]
    process = Process("bodies", argv, environment(), log)
    stack.callback(process.kill)
    process.wait_for(servers.answers(port))
    return port


def _ways(port: int) -> dict[str, Callable[[], object]]:
    route, token = asked.prefix(7), credentials.token()
    return {
        "100 MB down": partial(transfers.down, port, f"{route}/down", token),
        "100 MB down, read after a pause": partial(
            transfers.down, port, f"{route}/down", token, pause_s=PAUSE_S
        ),
        "100 MB up": partial(transfers.up, port, f"{route}/up", token),
        "100 MB up, answered before it was read": partial(
            transfers.up_answered_early, port, f"{route}/early", token
        ),
    }


def _grown(name: str, started: Started, way: Callable[[], object], rounds: int, goal: float) -> Figure:
    """Judged by the round in which it grew most."""
    grown = [memory.growth_bytes(started.process.popen.pid, way) / 1e6 for _ in range(rounds)]
    say(f"{name}: {statistics.median(grown):.1f} MB")
    return judged(name, max(grown), "MB", goal, {"growth": median(grown, "MB")}, at_most=True)


def _idle(started: Started) -> Figure:
    with ExitStack() as stack:

        def connect() -> None:
            path, token = asked.paths()[0], credentials.token()
            for connection in transfers.idle(started.port, path, token, IDLE_CONNECTIONS):
                stack.enter_context(connection)

        return _grown(f"{PART}: {IDLE_CONNECTIONS:,} idle connections", started, connect, 1, IDLE_MB)
