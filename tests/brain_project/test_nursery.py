from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brain_project import nursery

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not nursery.CAN_FORK, reason="the supervisor starts every child here"),
]

# In a process of its own, as in `up`: a fork of pytest would take pytest's threads and streams along.
PARENT = """
import os, sys
from brain_project.nursery import Nursery
from brain_project.plan import Planned
cord = os.pipe()
lock = os.open(os.devnull, os.O_RDONLY)
home = Nursery(cord, lock=lock)
children = [Planned("other", ["child", "7"], stage=0, env={"GREETING": "hello"})]
children.append(Planned("tasks", ["child", "0", *sys.argv[1:]], stage=0, env={"GREETING": "fresh"}, forks=False))
if sys.argv[1:] == ["anew"]:
    children = [Planned("worker", ["child", "0", "anew"], stage=0, env={"GREETING": "again"})]
for child in children:
    home.fork(child)
sys.argv[1:] in (["open"], ["anew"]) and home.open_gate()
if sys.argv[1:] == ["wait"]:
    print(*(child.pid for child in children), flush=True)
    sys.stdin.read()
os.close(home._gate[1])
for child in children:
    said = open(child.output).read()
    code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    print(child.name, code, said.split())
"""
CHILD = """
import os, sys, time
if "wait" in sys.argv:
    time.sleep(600)
if "anew" in sys.argv and "brain_project.nursery" in sys.modules:  # as a worker that is recycled
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
os.fstat(int(os.environ["BRAIN_LIFELINE_FD"]))
print(os.environ["GREETING"], os.getsid(0) == os.getpid(), "brain_project.nursery" in sys.modules)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def parent(tmp_path: Path):
    (tmp_path / "child.py").write_text(CHILD)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}

    def start(mode: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PARENT, mode],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


def test_fork__gate_opens__runs_the_command_in_its_own_session_with_its_environment(parent):
    out, _ = parent("open").communicate(timeout=180)
    assert out.splitlines() == ["other 7 ['hello', 'True', 'True']", "tasks 0 ['fresh', 'True', 'False']"]


def test_fork__starts_itself_anew__is_the_same_command_on_the_same_lifeline(parent):
    """It was the command line of `up`, which ended at once: it was running already."""
    out, _ = parent("anew").communicate(timeout=180)
    assert out.splitlines() == ["worker 0 ['again', 'True', 'False']"]


def test_fork__gate_closes__ends_without_running(parent):
    out, _ = parent("close").communicate(timeout=180)
    assert out.splitlines()[0] == "other 0 []"


def test_fork__parent_killed__the_fork_at_the_gate_and_the_fresh_interpreter_end_too(parent):
    process = parent("wait")
    pids = process.stdout.readline().split()
    assert len(pids) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
