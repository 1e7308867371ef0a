from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from brain_project.adopted import adopt


def start(code: str) -> tuple[int, int]:
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=write)
    os.close(write)
    process.returncode = 0  # somebody else's from here on: Popen neither waits for it nor complains
    return process.pid, read


@pytest.mark.parametrize(
    ("code", "expected"), [("print('a line')", 0), ("import os; os.kill(os.getpid(), 9)", -9)]
)
async def test_adopt__child_ends__its_lines_and_its_code(code, expected):
    child = await adopt(*start(code))
    lines = [line async for line in child.stdout]
    assert lines == ([b"a line\n"] if expected == 0 else [])
    assert await asyncio.wait_for(child.wait(), 60) == child.returncode == expected


async def test_wait__time_out__leaves_the_child_and_the_next_wait_alone():
    child = await adopt(*start("import time; time.sleep(600)"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.05)
    assert child.returncode is None
    os.kill(child.pid, 15)
    assert await asyncio.wait_for(child.wait(), 60) == -15
