"""One run of load against one side: CPU of its processes over what the upstream served, or no sample at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Broken, environment

from . import load, paced, proof
from .sides import Started
from .upstream import Upstream

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_us: float  # per request
    per_s: float
    p50_us: float
    p99_us: float
    served: int


def saturated(
    side: Started, upstream: Upstream, requests: Path, seconds: float, connections: int = CONNECTIONS
) -> Sample:
    """Raises Broken when not every request reached the upstream."""
    served, cpu_s = upstream.settled(), side.process.cpu_s()
    outcome = load.run(side.port, requests, seconds=seconds, connections=connections)
    served, cpu_s = upstream.settled() - served, side.process.cpu_s() - cpu_s
    reason = proof.shortfall(outcome, served, connections)
    if reason:
        raise Broken(reason)
    return Sample(cpu_s / served * 1e6, outcome.per_s, outcome.p50_us, outcome.p99_us, served)


def at_rate(plan: paced.Plan) -> dict[str, Any]:
    """What `paced.run` says, from a process of its own. Raises Broken when it could not keep up with its own pace."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway.paced"],
        cwd=ROOT,
        env=environment(PYTHONPATH=ROOT),
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.seconds + paced.GRACE_S + 30,
    )
    if done.returncode:
        raise Broken(f"the paced load failed:\n{done.stderr[-1000:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    if said["lost"]:
        raise Broken(f"{said['lost']} of {said['sent']} requests at {plan.rate:.0f}/s got no answer")
    return said


def all_arrived(said: dict[str, Any], served: int) -> None:
    """Raises Broken unless each paced request was answered with 200 and reached the upstream once."""
    statuses = {int(status): count for status, count in said["statuses"].items()}
    if set(statuses) != {200} or served != said["sent"]:
        raise Broken(f"of {said['sent']} requests {served} reached the upstream; the answers were {statuses}")


def in_turns(count: int, passes: int) -> list[Sequence[int]]:
    """Who is measured when: A B C, C B A, …: the later ones of a pass meet what the earlier have warmed."""
    forth = list(range(count))
    return [forth if number % 2 == 0 else forth[::-1] for number in range(passes)]
