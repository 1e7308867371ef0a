"""All connections of the pool are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .drill import drill
from .servers import ENGINES
from .verdict import late

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

MAX_SIZE, TIMEOUT_S, CALLERS = 4, 2, 24


def _exhausted(rig: Rig, kind: str) -> Outcome:
    """Who waits gets an error within the timeout that names the setting; when a connection comes back those that wait are
    served one after another at once; who is cancelled while waiting leaves nothing behind."""
    url, server = rig.url(kind)
    rig.fill(url)
    rounds = 1 if rig.quick else 5
    waits_s: list[float] = []
    released_s = 0.0
    for _ in range(rounds):
        pooled = f"{url}?pool_max_size={MAX_SIZE}&pool_timeout={TIMEOUT_S}"
        seen = rig.work("exhausted", str(MAX_SIZE), str(TIMEOUT_S), str(CALLERS), url=pooled)
        waits_s += seen["waits_s"]
        released_s = max(released_s, seen["released_s"])
        unclear = [
            text for text in seen["messages"] if "pool_max_size" not in text or "OperationalError" not in text
        ]
        rig.claim(not unclear, f"an error that does not name the setting: {unclear}")
        rig.claim(seen["messages"], "nobody was refused")
        rig.claim(seen["refused"] == CALLERS, f"{seen['refused']} of {CALLERS} refusals are counted")
        rig.claim(
            seen["released"] == 8, f"{seen['released']} of 8 were served by the connection that came back"
        )
        rig.claim(seen["released_s"] < 1.0, f"the last of them after {seen['released_s']:.2f} s")
        rig.claim(
            max(seen["cancelled_s"]) < TIMEOUT_S + 1.0, f"cancelled after {max(seen['cancelled_s']):.2f} s"
        )
        rig.claim(len(seen["cancelled_s"]) == CALLERS, "a cancelled task has not ended")
        rig.claim(
            not seen["in_use"] and not seen["waiting"],
            f"{seen['in_use']} lent, {seen['waiting']} waiting at the end",
        )
        rig.claim(seen["again"] == MAX_SIZE, f"only {seen['again']} can be lent again")
    wrong = late(waits_s, TIMEOUT_S)
    rig.claim(not wrong, f"{wrong} waited {min(waits_s):.2f} to {max(waits_s):.2f} s instead of {TIMEOUT_S}")
    note = (
        f"{len(waits_s)} callers waited {min(waits_s):.2f} to {max(waits_s):.2f} s of {TIMEOUT_S}; 8 served within "
        f"{released_s:.2f} s of one that came back; {CALLERS} cancelled in {max(seen['cancelled_s']):.2f} s"
    )
    return rig.outcome(note, recovered_s=released_s)


def _register(kind: str) -> None:
    @drill(f"pool-exhausted-{kind}")
    def hold(rig: Rig) -> Outcome:
        return _exhausted(rig, kind)


for _kind in ENGINES:
    _register(_kind)
