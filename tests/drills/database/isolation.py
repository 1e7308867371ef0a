"""Thousands of async transactions at once: what one does is never another's."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from .banks import Asked, File
from .drill import drill
from .servers import ENGINES
from .verdict import isolated

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

MAX_SIZE, AT_ONCE = 8, 64


def _isolation(rig: Rig, kind: str) -> Outcome:
    """Some commit, some roll back, some are cancelled at any moment: what was committed is there, what was not is not, and
    every connection and thread has been given back."""
    url, server = rig.url(kind)
    asked: Asked = server or File(rig.home / "drill.sqlite3")
    rig.fill(url)
    count = 400 if rig.quick else 4000
    pooled = url if kind == "sqlite" else f"{url}?pool_max_size={MAX_SIZE}&pool_timeout=60"
    began = time.monotonic()
    seen = rig.work("isolation", str(count), str(AT_ONCE), url=pooled)
    seconds = time.monotonic() - began
    fates: dict[str, str] = seen["fates"]
    kinds = Counter(fates.values())
    found = isolated(fates, (name.partition(":")[0] for (name,) in asked.ask("SELECT name FROM bank_mark")))
    rig.claim(len(fates) == count, f"{count - len(fates)} transactions have no fate")
    rig.claim(not found.torn, f"{len(found.torn)} cancelled ones are there in half: {found.torn[:3]}")
    rig.claim(
        all(kinds[name] > count // 20 for name in ("committed", "rolled back", "cancelled")), f"{dict(kinds)}"
    )
    rig.claim(not seen["in_use"] and not seen["waiting"], f"{seen['in_use']} connections were not given back")
    rig.claim(not seen["threads"], f"{seen['threads']} threads of transactions are left")
    rig.claim(seen["most"] <= MAX_SIZE, f"{seen['most']} connections")
    note = f"{count:,} transactions, {AT_ONCE} at once, {seconds:.0f} s: " + ", ".join(
        f"{kinds[name]:,} {name}" for name in sorted(kinds)
    )
    if kind != "sqlite":
        note += f"; at most {seen['most']} of {MAX_SIZE} connections"
    return rig.outcome(note, lost=len(found.lost), duplicated=len(found.leaked) + len(found.torn))


def _register(kind: str) -> None:
    @drill(f"isolation-{kind}", quick_s=180, full_s=400)
    def hold(rig: Rig) -> Outcome:
        return _isolation(rig, kind)


for _kind in (*ENGINES, "sqlite"):
    _register(_kind)
