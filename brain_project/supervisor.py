"""Child processes of `up`: tied to a lifeline, their lines prefixed and kept, restarted when they crash.

children → start → pump lines (terminal + log file) → crash: back off and restart, or stop all → stop in order
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from foundation import lifeline

from .adopted import LONGEST_LINE_BYTES, Adopted
from .console import Console

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_S = 60.0  # a child that ran this long starts over at the shortest back-off
STOP_TIMEOUT_S = 7.0  # then SIGKILL: Ctrl-C to exit takes at most 10 s
LAST_LINES = 20


@dataclass
class Child:
    """One supervised process. stage: children of a lower stage are stopped first.

    process: given when it runs already; else `Supervisor.start` starts it.
    """

    name: str
    command: Sequence[str]
    stage: int
    env: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | Adopted | None = None
    crashes: int = 0
    started_at: float = field(default_factory=time.monotonic)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.returncode is None else None


class Supervisor:
    """Runs children until `stop` is called or, with fail_fast, until one of them ends."""

    def __init__(
        self,
        console: Console,
        *,
        fail_fast: bool,
        changed: Callable[[], None] = lambda: None,
        cord: tuple[int, int] | None = None,
    ) -> None:
        """cord: both ends of the children's lifeline (read, write), when there are children that hold it already."""
        self.console, self.fail_fast, self.changed = console, fail_fast, changed
        self.children: list[Child] = []
        self.exit_code = 0
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cord = cord or os.pipe()  # the write end closes when this process ends

    async def start(self, child: Child) -> None:
        self.children.append(child)
        if child.process is None:
            await self._spawn(child)
        task = asyncio.get_running_loop().create_task(self._keep_running(child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, exit_code: int = 0) -> None:
        self.exit_code = self.exit_code or exit_code
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def wait(self) -> None:
        await self._stopping.wait()

    async def stop_children(self) -> None:
        """SIGTERM stage by stage, SIGKILL for whoever stays longer than STOP_TIMEOUT_S."""
        self._stopping.set()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for stage in sorted({child.stage for child in self.children}):
            group = [child for child in self.children if child.stage == stage and child.pid]
            for child in group:
                _signal(child, signal.SIGTERM)
            await asyncio.gather(*(self._await_end(child, deadline) for child in group))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.console.close()
        for descriptor in self._cord:
            os.close(descriptor)

    async def _await_end(self, child: Child, deadline: float) -> None:
        assert child.process is not None  # noqa: S101
        began = time.monotonic()
        try:
            await asyncio.wait_for(child.process.wait(), max(0.5, deadline - began))
            self.console.say("up", f"{child.name} stopped in {time.monotonic() - began:.1f} s")
        except TimeoutError:
            _signal(child, signal.SIGKILL)
            await child.process.wait()
            self.console.say("up", f"{child.name} did not stop in time and was killed")

    async def _spawn(self, child: Child) -> None:
        command = [sys.executable, "-m", "foundation.lifeline", *child.command]
        env = {
            **os.environ,
            **child.env,
            lifeline.VARIABLE: str(self._cord[0]),
            "PYTHONUNBUFFERED": "1",
        }
        child.started_at = time.monotonic()
        child.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            pass_fds=(self._cord[0],),
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the rest in order
            limit=LONGEST_LINE_BYTES,
        )

    async def _keep_running(self, child: Child) -> None:
        while True:
            code = await self._pump(child)
            if self.stopping:
                return
            self._report_crash(child, code)
            if self.fail_fast:
                self.stop(exit_code(code) or 1)
                return
            if time.monotonic() - child.started_at > STEADY_S:
                child.crashes = 0
            delay = BACK_OFF_S[min(child.crashes, len(BACK_OFF_S) - 1)]
            child.crashes += 1
            self.console.say("up", f"restarting {child.name} in {delay:.0f} s")
            await asyncio.sleep(delay)
            if self.stopping:
                return
            await self._spawn(child)
            self.changed()

    async def _pump(self, child: Child) -> int:
        assert child.process is not None  # noqa: S101
        assert child.process.stdout is not None  # noqa: S101
        while True:
            try:
                line = await child.process.stdout.readline()
            except ValueError:  # a line longer than the limit: its rest follows
                continue
            if not line:
                return await child.process.wait()
            self.console.keep(child.name, line)
            text = line.decode(errors="replace").rstrip()
            child.last_lines.append(text)
            if text:
                self.console.say(child.name, text)

    def _report_crash(self, child: Child, code: int) -> None:
        self.console.say("up", f"{child.name} ended by itself with code {exit_code(code)}; its last lines:")
        for line in child.last_lines:
            self.console.say("up", f"    {line}")


def exit_code(returncode: int) -> int:
    """A shell's code for a process's: 128 + signal for one that a signal ended."""
    return 128 - returncode if returncode < 0 else returncode


def _signal(child: Child, number: signal.Signals) -> None:
    """SIGTERM to the child, which ends its own children in order; SIGKILL to its whole session."""
    if child.pid is None:
        return
    try:
        if number is signal.SIGKILL:
            os.killpg(child.pid, number)
        else:
            os.kill(child.pid, number)
    except ProcessLookupError:
        pass
