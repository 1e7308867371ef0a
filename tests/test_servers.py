"""What the private servers and the warm processes of all other tests stand on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import servers

ROOT = Path(__file__).resolve().parents[1]


def test_free_port__asked_for_by_many_at_once__none_is_given_twice_or_lent_by_the_kernel() -> None:
    code = "from tests.servers import free_port\nprint(*(free_port() for _ in range(20)))"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with ThreadPoolExecutor(4) as threads:
        ports = list(threads.map(lambda _: servers.free_port(), range(40)))
    ports += map(int, other.communicate()[0].split())
    assert len(set(ports)) == len(ports) == 60
    assert set(ports) <= set(servers.PORTS)


def test_free_port__taken_by_somebody__is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not servers._is_free(listener.getsockname()[1])
    assert servers._is_free(servers.free_port())


def test_warm__end_of_the_process__leaves_nothing_running() -> None:
    """xdist kills a worker that takes its time, and then complains of it."""
    code = (
        "import subprocess, sys; from tests import warm\n"
        "made = []; begin = subprocess.Popen.__init__\n"
        "def noted(self, *args, **options):\n"
        "    begin(self, *args, **options); made.append(self)\n"
        "subprocess.Popen.__init__ = noted\n"
        "warm.run([sys.executable, '-c', ''])\n"
        "print(*(one.pid for one in made))\n"
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ResourceWarning" not in done.stderr
    for pid in map(int, done.stdout.split()):
        assert not os.path.exists(f"/proc/{pid}")
