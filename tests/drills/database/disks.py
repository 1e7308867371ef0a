"""The disk that SQLite's file is on is full."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills.cache.files import small_disk
from tests.drills.outcome import Broken

from .banks import File
from .drill import drill
from .verdict import held

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

WRITERS = 3
_FULL_S = 1.5


@drill("disk-full-sqlite")
def disk_full(rig: Rig) -> Outcome:
    """A database on a disk of 8 MB, three writers, and somebody who fills up what is left, several times. Writers get an
    error that says so, what they were told is stored is there, the file is whole, and they go on by themselves."""
    times, slowest_s, refused = 2 if rig.quick else 10, 0.0, 0
    with small_disk(rig.home / "disk") as disk:
        path = disk / "drill.sqlite3"
        url = f"sqlite://{path}"
        rig.fill(url)
        writers = [_writer(rig, url, number) for number in range(WRITERS)]
        for _ in range(times):
            _written(rig, since=time.monotonic())
            _fill_up(disk)
            time.sleep(_FULL_S)
            quiet = sum(1 for line in _told(rig) if line[0] > time.monotonic() - _FULL_S / 2)
            refused += quiet == 0
            (disk / "filler").unlink()
            slowest_s = max(slowest_s, _written(rig, since=time.monotonic()))
        errors: dict[str, int] = {}
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
            writer.stdin = None
            for text, count in rig.finish(writer)["errors"].items():
                errors[text] = errors.get(text, 0) + count
        rows = [name for (name,) in File(path).ask("SELECT name FROM bank_mark")]
        (whole,) = File(path).ask("PRAGMA integrity_check")[0]
    told = [name for _, name in _told(rig)]
    # One more than acknowledged may be there for each error: a commit whose answer was an error.
    kept = held(told, (), rows)
    unclear = [text for text in errors if "full" not in text and "disk I/O error" not in text]
    rig.claim(errors, "nobody was refused")
    rig.claim(refused == times, f"the disk was full for the writers {refused} of {times} times")
    rig.claim(not unclear, f"an error that does not say it: {unclear}")
    rig.claim(whole == "ok", f"integrity_check: {whole}")
    rig.claim(len(kept.extra) == 0, f"{len(kept.extra)} rows whose writer got an error: {kept.extra[:2]}")
    note = f"full {times} times; {len(told):,} rows, {sum(errors.values()):,} refused: {'; '.join(sorted(errors))}"
    return rig.outcome(note, lost=len(kept.lost), recovered_s=slowest_s)


def _writer(rig: Rig, url: str, number: int) -> subprocess.Popen[bytes]:
    return rig.start(
        "worker", "writer", str(number), str(rig.home / f"{number}.told"), url=url, stdin=subprocess.PIPE
    )


def _told(rig: Rig) -> list[tuple[float, str]]:
    found = []
    for path in rig.home.glob("*.told"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                at, name = json.loads(line)
                found.append((at, name))
    return found


def _written(rig: Rig, since: float, timeout_s: float = 20.0) -> float:
    """Until each writer has stored something after `since`: how long that took."""
    deadline = since + timeout_s
    while time.monotonic() < deadline:
        after = [(at, name[0]) for at, name in _told(rig) if at > since]
        if len({writer for _, writer in after}) == WRITERS:
            return (
                max(min(at for at, its in after if its == writer) for writer in {w for _, w in after}) - since
            )
        time.sleep(0.1)
    raise Broken("not every writer has stored something")


def _fill_up(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as out:
        for size in (65_536, 4_096, 512, 1):
            with contextlib.suppress(OSError):
                while out.write(b"x" * size):
                    pass
