"""Valkey or the database goes away under load, and comes back: limits and edges go on."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills.servers import postgresql_stopped

from .drill import drill
from .loads import Kind
from .rig import marked, open_route, service
from .verdict import Excuse, Fate, over_admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drills.outcome import Outcome

    from .rig import Document, Rig
    from .sites import Target

RATE, BURST, WORKERS = 20, 40, 2
LEASE = 1  # tokens of one worker, at most: accounts.LEASED_RATE_S of the rate
POLICIES = ("local", "allow", "deny")
NOTICED_S = 1.5  # after Valkey is back: LIMITER_RETRY_S, and the request that goes and looks
LIMITED = Excuse("over their limit (429)", lambda fate: fate.status == 429)


@drill("valkey-emptied")
def emptied(rig: Rig) -> Outcome:
    """Stopped, and started again without anything in it. Each plan goes on as it says."""
    rounds, up_s, away_s = rig.size(1, 6), rig.size(3, 6), rig.size(2, 5)
    rig.apply(_limited(rig.targets(2)))
    edge = rig.edge(workers=WORKERS)
    outages: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        kinds = {
            policy: Kind(f"/{policy}", ("GET",), ms=(0, 0), streamed=0, pause_s=0.015) for policy in POLICIES
        }
        loads = {policy: stack.enter_context(rig.load([edge], 3, kind)) for policy, kind in kinds.items()}
        for _ in range(rounds):
            time.sleep(up_s)
            at = time.monotonic()
            rig.store.stop()
            rig.store.forget()
            time.sleep(away_s)
            rig.store.start()
            outages.append((at, time.monotonic() + NOTICED_S))
            time.sleep(NOTICED_S)
        time.sleep(up_s)
        fates = {policy: load.stop() for policy, load in loads.items()}
    told = [counted(rig, fates["local"], span, "away") for span in outages]
    calm = [(end, begin) for (_, end), (begin, _) in pairwise([*outages, (time.monotonic(), 0.0)])]
    for policy in POLICIES:
        for span in calm:
            counted(rig, fates[policy], span, policy)
    rig.claim(_all_served(fates["allow"], outages), "'allow' refuses nobody while Valkey is away")
    refused = [fate for fate in fates["deny"] if fate.code == "limiter_unavailable"]
    rig.claim(bool(refused), "'deny' refuses while Valkey is away")
    unavailable = Excuse(
        "refused by the policy 'deny' (503)", lambda fate: fate in refused and _is_away(fate, outages)
    )
    everybody = [fate for policy in POLICIES for fate in fates[policy]]
    recovered_s = max((fate.until - outages[-1][1] + NOTICED_S for fate in refused), default=0.0)
    note = f"{rounds} × Valkey restarted empty after {away_s} s; meanwhile 'local' admitted {', '.join(told)}"
    return rig.outcome(
        note, everybody, [LIMITED, unavailable], recovered_s=max(0.0, recovered_s), within_s=NOTICED_S
    )


def _limited(targets: Sequence[Target]) -> Document:
    limit = {"requests_per_minute": RATE * 60, "burst_limit": BURST}
    return {
        "plans": {policy: {**limit, "on_store_down": policy} for policy in POLICIES},
        "services": {"work": service(targets)},
        "routes": [open_route(f"/{policy}", "work", plan=policy) for policy in POLICIES],
    }


def counted(rig: Rig, fates: Sequence[Fate], span: tuple[float, float], how: str) -> str:
    """That no more was let through in this time than may be. While Valkey is away every worker counts for itself from a
    full bucket, and then the store's is full again. how: "away", or the policy that goes on."""
    begin, end = span
    seen = [fate for fate in fates if begin <= fate.until <= end]
    admitted = sum(fate.is_good for fate in seen)
    allowed = BURST + RATE * (end - begin) + WORKERS * LEASE
    if how == "away":
        allowed += WORKERS * BURST + (WORKERS - 1) * RATE * (end - begin)
    rig.claim(
        not over_admitted(admitted, allowed),
        f"{how!r} admits {allowed:.0f} at most ({admitted} of {len(seen)})",
    )
    rig.claim(len(seen) > allowed, f"{how!r}: more is asked for than is allowed ({len(seen)})")
    return f"{admitted} of {int(allowed)}"


def _is_away(fate: Fate, outages: Sequence[tuple[float, float]]) -> bool:
    return any(start <= fate.until and fate.at <= end for start, end in outages)


def _all_served(fates: Sequence[Fate], outages: Sequence[tuple[float, float]]) -> bool:
    noticed_s = 0.5  # LIMITER_TIMEOUT_S, and a refusal that was known before
    during = [
        fate
        for fate in fates
        if any(a + noticed_s < fate.at and fate.until < b - NOTICED_S for a, b in outages)
    ]
    return bool(during) and all(fate.is_good for fate in during)


@drill("database-stopped", databases=("sqlite", "postgresql"))
def database(rig: Rig) -> Outcome:
    """First the database goes, then Valkey too; a new edge starts from the snapshot's copy on disk meanwhile."""
    away_s = rig.size(2, 15)
    targets = rig.targets(2)
    rig.apply(_keyed(targets, 0))
    key = rig.manage("key", "create", "robot").strip()
    old = rig.edge()
    rig.until(lambda: old.health()["snapshot_version"] >= 2, "the key is known")
    kind = Kind(headers={"X-API-Key": key})
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(rig.load([old], 8, kind))]
        time.sleep(1.0)
        _disconnect()
        with _away(rig):
            time.sleep(away_s)
            rig.store.stop()
            time.sleep(away_s)
            began = time.monotonic()
            new = rig.edge()
            started_s = time.monotonic() - began
            loads.append(stack.enter_context(rig.load([new], 8, kind)))
            time.sleep(away_s)
            rig.store.start()
        mended = time.monotonic()
        rig.claim("snapshot_from_disk" in new.said, "the new edge took the copy on disk")
        rig.apply(_keyed(targets, 1, key))
        for edge, load in zip((old, new), loads, strict=True):
            rig.comes(
                lambda load=load: any(fate.mark == "1" for fate in load.fates[-200:]),
                "a change is seen again",
            )
            rig.claim(edge.runs and "edge_timers_failed" not in edge.said, "the edge goes on")
        recovered_s = time.monotonic() - mended
        fates = [fate for load in loads for fate in load.stop()]
    note = f"database away for {3 * away_s} s, Valkey for two thirds of it; a new edge served after {started_s:.1f} s"
    return rig.outcome(note, fates, recovered_s=recovered_s, within_s=10.0)


def _keyed(targets: Sequence[Target], mark: int, key: str = "") -> Document:
    """A key that the document does not name is pruned."""
    robot = {"key": key} if key else {}
    return {
        "authentication": {"api_keys": {"robot": robot}},
        "services": {"work": service(targets)},
        "routes": [marked({"path": "/work", "service": "work"}, mark)],
    }


@contextlib.contextmanager
def _away(rig: Rig) -> Iterator[None]:
    if rig.database_url.startswith("postgres"):
        with postgresql_stopped(rig.database_url):
            yield
        return
    file = Path(rig.database_url.removeprefix("sqlite://"))
    aside = rig.home / "aside"
    aside.mkdir()
    mine = list(file.parent.glob(f"{file.name}*"))
    for one in mine:
        shutil.move(one, aside)
    yield
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()  # somebody looked, which makes an empty one
    for one in aside.iterdir():
        shutil.move(one, file.parent)


def _disconnect() -> None:
    from django.db import connections

    connections.close_all()
