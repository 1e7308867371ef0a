"""The disk that the files are on is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests import servers
from tests.drills.outcome import Outcome

from .drill import drill
from .rig import FILE, GRACE_S, Rig


@drill("disk-full")
def disk_full(rig: Rig) -> Outcome:
    """A file cache on a small disk that somebody else fills up: writes are refused and raise nothing, what is read is
    whole, and when there is room again it goes on by itself."""
    with small_disk(rig.home / "disk") as disk:
        location = str(disk / "cache")
        for role in ("writer", "reader", "reader", "loader"):
            rig.start(role, FILE, location, ON_DOWN="ignore", MAX_BYTES=2 * 2**20)
        rig.until_read()
        times, slowest_s, refused = 2 if rig.quick else 10, 0.0, 0
        for _ in range(times):
            filler = disk / "filler"
            wrote = _wrote(rig)
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as out:
                while True:
                    out.write(b"x" * 65_536)
            time.sleep(1.5)
            refused += _wrote(rig) - wrote < 200
            filler.unlink()
            slowest_s = max(slowest_s, rig.recovered_s(time.monotonic(), ("writer", "reader")))
            rig.alive()
            time.sleep(0.5)
        rig.stop()
    seen = rig.seen(GRACE_S)
    errors = [line for line in rig.lines("writer", "reader", "loader") if line["do"] == "error"]
    rig.claim(not errors, f"{len(errors)} calls raised: {(errors or ['?'])[0]}")
    rig.claim(not seen.problems, f"{seen.problems}")
    rig.claim(refused > 0, "the disk was never full for the writer")
    note = f"full {times} times; {seen.reads:,} reads"
    return rig.outcome(
        note, lost=seen.stale + seen.wrong, failed=len(errors), recovered_s=round(slowest_s, 2)
    )


def _wrote(rig: Rig) -> int:
    return sum(line["do"] == "wrote" for line in rig.lines("writer"))


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int = 8) -> Iterator[Path]:
    """A file system of its own in memory. Raises Missing where it may not be mounted."""
    if os.getuid() != 0:
        raise servers.Missing("the right to mount a tmpfs")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        raise servers.Missing("the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)
