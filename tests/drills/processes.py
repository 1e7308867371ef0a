"""What Linux tells about the processes that a drill has started: children, memory, and whose a connection is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The processes that this one has started and that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == pid and after_name[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def resident_bytes(pid: int) -> int:
    """Of its own, without the files that it maps."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def clients_of(pid: int, port: int) -> frozenset[int]:
    """The clients' own ports of all connections to 127.0.0.1:port that this process has accepted."""
    mine = set()
    for number in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            mine.add(os.readlink(number))
    return frozenset(client for inode, client in _connections(port) if f"socket:[{inode}]" in mine)


def _connections(port: int) -> list[tuple[str, int]]:
    """proc(5): (inode, remote port) of the established connections of a local port."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, state, inode = fields[1], fields[2], fields[3], fields[9]
        if state == "01" and int(local.partition(":")[2], 16) == port:
            found.append((inode, int(remote.partition(":")[2], 16)))
    return found
