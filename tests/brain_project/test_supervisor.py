from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from brain_project import supervisor as module
from brain_project.console import Console
from brain_project.supervisor import Child, Supervisor, exit_code

CRASHER = "import sys; print('the reason', flush=True); sys.exit(7)"
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module that a child can run by name."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")

    def write(name: str, code: str) -> list[str]:
        (tmp_path / f"{name}.py").write_text(code)
        return [name]

    return write


async def until(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_supervisor__child_crashes__shows_its_last_lines_and_restarts_it(
    script, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "BACK_OFF_S", (0.01,))
    supervisor = Supervisor(Console(tmp_path / "logs", colour=False), fail_fast=False)
    child = Child("web", script("crasher", CRASHER), stage=0)
    await supervisor.start(child)
    await until(lambda: child.crashes >= 2)
    await supervisor.stop_children()
    out = capsys.readouterr().out
    assert "web ended by itself with code 7; its last lines:" in out
    assert "    the reason" in out
    assert (tmp_path / "logs" / "web.log").read_text().count("the reason") >= 2


async def test_supervisor__fail_fast__stops_with_the_childs_code(script, tmp_path):
    supervisor = Supervisor(Console(tmp_path / "logs", colour=False), fail_fast=True)
    await supervisor.start(Child("steady", script("sleeper", SLEEPER), stage=0))
    await supervisor.start(Child("web", script("crasher", CRASHER), stage=0))
    await asyncio.wait_for(supervisor.wait(), 60)
    await supervisor.stop_children()
    assert supervisor.exit_code == 7
    assert all(child.pid is None for child in supervisor.children)


async def test_stop_children__stages__end_in_order_and_a_deaf_one_is_killed(
    script, tmp_path, capsys, monkeypatch
):
    supervisor = Supervisor(Console(tmp_path / "logs", colour=False), fail_fast=False)
    first, last = (
        Child("worker", script("sleeper", SLEEPER), stage=0),
        Child("mail", script("deaf", DEAF), stage=1),
    )
    for child in (last, first):
        await supervisor.start(child)
    await until(lambda: all(child.last_lines for child in supervisor.children))

    def clock() -> float:
        """The first one has all the time that a busy machine takes to end it; after it the time is over."""
        return time.monotonic() + (module.STOP_TIMEOUT_S if first.pid is None else 0.0)

    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 60.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    await supervisor.stop_children()
    out = capsys.readouterr().out
    assert out.index("worker stopped") < out.index("mail did not stop in time and was killed")


def test_lifeline__supervisor_killed__children_end_too(script, tmp_path):
    sleeper = script("sleeper", SLEEPER)
    code = (
        "import asyncio, pathlib, sys\n"
        "from brain_project.console import Console\n"
        "from brain_project.supervisor import Child, Supervisor\n"
        "async def main():\n"
        "    supervisor = Supervisor(Console(pathlib.Path(sys.argv[1]), colour=False), fail_fast=False)\n"
        f"    child = Child('web', {sleeper!r}, stage=0)\n"
        "    await supervisor.start(child)\n"
        "    while not child.last_lines: await asyncio.sleep(0.01)\n"
        "    print('pid', child.pid, flush=True)\n"
        "    await supervisor.wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid = next(int(line.split()[1]) for line in parent.stdout if line.startswith("pid"))
    os.kill(pid, 0)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") or _exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("returncode", "expected"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_exit_code__signal__is_the_shells(returncode, expected):
    assert exit_code(returncode) == expected
