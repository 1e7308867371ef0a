"""The upstream: nginx on three ports, which counts every request that reached it."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import Broken, Process, environment
from tests import servers

from . import binaries, templates

PORTS = 3
SETTLE_S = 5.0  # for requests that a stopped load generator left on their way


class Upstream:
    def __init__(self, ports: list[int], status_port: int) -> None:
        self.ports, self._status_port = ports, status_port
        self._asked = 0

    def served(self) -> int:
        """Requests so far, on all three ports; those of this question are taken off."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_port}/", timeout=5) as answer:
            text = answer.read().decode()
        self._asked += 1
        return read_status(text) - self._asked

    def settled(self) -> int:
        """`served` once it no longer grows."""
        deadline, before = time.monotonic() + SETTLE_S, -1
        while (now := self.served()) != before:
            if time.monotonic() > deadline:
                raise Broken("requests still reach the upstream after the load has ended")
            before = now
            time.sleep(0.05)
        return now


def read_status(text: str) -> int:
    """nginx's stub_status: the third of `accepts handled requests`."""
    found = re.search(r"^\s*\d+ \d+ (\d+)\s*$", text, re.MULTILINE)
    if found is None:
        raise Broken(f"the upstream's status is not stub_status: {text[:200]!r}")
    return int(found[1])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Upstream]:
    folder.mkdir()
    ports, status = [servers.free_port() for _ in range(PORTS)], servers.free_port()
    listen = "\n        ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)
    file = templates.render(
        templates.PEERS / "nginx" / "upstream.conf",
        folder / "nginx.conf",
        folder=folder,
        status=status,
        listen=listen,
    )
    command = [str(binaries.nginx().path), "-p", str(folder), "-c", str(file)]
    process = Process("upstream", command, environment(), folder / "log")
    try:
        process.wait_for(servers.answers(status))
        yield Upstream(ports, status)
    finally:
        process.kill()
