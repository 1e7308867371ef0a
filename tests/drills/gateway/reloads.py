"""The configuration changes again and again under load: nobody is dropped, and each change is there within a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .drill import drill
from .loads import Kind
from .rig import marked, open_route, service
from .sockets import Sockets
from .verdict import percentile, took_effect_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drills.outcome import Outcome

    from .rig import Document, Rig
    from .sites import Target

WITHIN_S = 1.0
_PAUSE_S = 0.6  # after each reload


@drill("reload")
def reload(rig: Rig) -> Outcome:
    """Two configurations in turn: other targets, other balancing, another plan of timeouts, the same route."""
    rounds = rig.size(10, 100)
    targets = rig.targets(3)
    rig.apply(_document(targets, 0))
    edge = rig.edge()
    applied: list[float] = []
    with rig.load([edge], 12, Kind(ms=(2, 200))) as load, Sockets([edge.port], 10, "/socket") as sockets:
        rig.comes(lambda: sockets.are_open, "the WebSockets are open")
        for number in range(1, rounds + 1):
            rig.apply(_document(targets, number))
            applied.append(time.monotonic())
            time.sleep(_PAUSE_S)
        time.sleep(WITHIN_S)
        fates = load.stop()
        sockets.stop()
    rig.claim(
        not sockets.broken, f"no WebSocket is dropped ({len(sockets.broken)} were: {sockets.broken[:2]})"
    )
    seen = [took_effect_s(fates, str(number), at) for number, at in enumerate(applied, 1)]
    first, everywhere = [one for one, _ in seen], [all_ for _, all_ in seen]
    rig.claim(max(everywhere) < WITHIN_S, f"a change takes effect within {WITHIN_S:.0f} s")
    rounds_of_sockets = sum(one.rounds for one in sockets.all)
    note = (
        f"{rounds} reloads; first seen after {percentile(first, 50) * 1e3:.0f} ms (p50), {max(first) * 1e3:.0f} ms at most, by"
        f" all after {percentile(everywhere, 50) * 1e3:.0f} ms (p50), {max(everywhere) * 1e3:.0f} ms at most;"
        f" {len(sockets.all)} WebSockets with {rounds_of_sockets} messages, {len(sockets.broken)} dropped"
    )
    return rig.outcome(note, fates, recovered_s=max(everywhere), within_s=WITHIN_S)


def _document(targets: Sequence[Target], number: int) -> Document:
    """The tunnels' service loses and gets back the target that half of them go to."""
    is_odd = number % 2
    work = service(targets[1:], strategy="least_connections") if is_odd else service(targets[:2])
    tunnels = service(targets[:1] if is_odd else targets[:2])
    routes = [
        marked(open_route("/work", "work", timeout=20 + is_odd), number),
        open_route("/socket", "tunnels"),
    ]
    return {"services": {"work": work, "tunnels": tunnels}, "routes": routes}
