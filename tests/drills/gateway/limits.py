"""Two edges whose clocks disagree share one limit, and are offered twenty times what it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gateway import asked, credentials, paced

from .drill import drill
from .rig import ISSUER, SECRET, service
from .verdict import over_admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drills.outcome import Outcome

    from .rig import Document, Rig
    from .sites import Edge, Target

OFFERED, RATE = 1000.0, 50  # per second
BURSTS = (10, 500)  # a small bucket leaves nothing to lease
CONNECTIONS = 8  # to each edge
ENOUGH = 0.8  # of what the limit lets through: refusing everything is no merit


@drill("over-admission")
def over_admission(rig: Rig) -> Outcome:
    seconds = rig.size(3, 6)
    skews_ms = (100,) if rig.quick else (1, 5, 20, 100)
    rig.apply(_document(rig.targets(1)))
    told = []
    over = 0
    for skew_ms in skews_ms:
        edges = rig.edges(2, workers=1, ahead_s=(0.0, skew_ms / 1e3))
        for burst in BURSTS:
            for at_random in (True,) if rig.quick else (False, True):
                admitted, allowed = _offered(
                    rig, edges, f"{skew_ms}-{burst}-{int(at_random)}", burst, seconds, at_random
                )
                more = over_admitted(admitted, allowed)
                over += more
                rig.claim(
                    not more, f"clocks {skew_ms} ms apart, burst {burst}: {allowed:.0f} at most ({admitted})"
                )
                rig.claim(
                    admitted >= ENOUGH * allowed, f"and not much less than that ({admitted} of {allowed:.0f})"
                )
                told.append(f"{skew_ms} ms, {burst}: {admitted} of {int(allowed)}")
        for edge in edges:
            edge.end()
    cases = ", ".join(told)
    return rig.outcome(
        f"{OFFERED:.0f}/s offered against {RATE}/s, over-admission {over} (clocks apart, burst: {cases})"
    )


def _offered(
    rig: Rig, edges: Sequence[Edge], case: str, burst: int, seconds: float, at_random: bool
) -> tuple[int, float]:
    """How many were admitted, and how many may be."""
    token = credentials.token(secret=SECRET, subject=case)  # a full bucket, and nobody else's
    file = asked.write(rig.home / f"requests-{case}", [f"/burst{burst}/{case}"], [token])
    plan = paced.Plan(tuple(edge.port for edge in edges), str(file), OFFERED, seconds, CONNECTIONS, at_random)
    said = paced.run(plan)
    statuses = said["statuses"]
    rig.claim(
        set(statuses) <= {200, 429} and not said["lost"],
        f"only 200 and 429 ({statuses}, {said['lost']} lost)",
    )
    admitted = statuses.get(200, 0)
    seen = rig.runs()[case]
    rig.claim(seen == admitted, f"the target saw what was admitted ({seen} of {admitted})")
    return admitted, burst + RATE * said["seconds"]


def _document(targets: Sequence[Target]) -> Document:
    plans = {f"burst{burst}": {"requests_per_minute": RATE * 60, "burst_limit": burst} for burst in BURSTS}
    return {
        "authentication": {"jwt_secret": SECRET, "jwt_algorithm": "HS256", "jwt_issuer": ISSUER},
        "plans": plans,
        "services": {"work": service(targets)},
        "routes": [{"path": f"/{name}", "service": "work", "plan": name} for name in plans],
    }
