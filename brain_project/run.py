"""`python -m brain_project.run FD`: what `up` becomes by exec once all is prepared; supervises with the standard library alone.

adopt or start the children → ready → up.json and the page → watch → stop in order, Valkey last

Django would stay in memory for nothing here: see plan.py for what is handed over, and the pid stays the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from . import embedded, platform_state, readiness, welcome
from .adopted import adopt
from .console import Console
from .plan import Plan, Planned
from .supervisor import Child, Supervisor

READY_TIMEOUT_S = 60.0
WATCH_S = 2.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Run:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.data_dir = plan, Path(plan.data_dir)
        self.sock = Path(plan.valkey_socket) if plan.valkey_socket else None
        self.console = Console(self.data_dir / "logs", colour=plan.colour, quiet=plan.is_json)
        self.supervisor = Supervisor(
            self.console, fail_fast=plan.fail_fast, changed=self._write, cord=plan.cord
        )

    async def until_stopped(self) -> int:
        """The exit code of `up`."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._asked_to_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # `up` blocked them for the exec
        try:
            for planned in self.plan.children:
                await self.supervisor.start(await _child(planned))
            if await self._ready():
                self._write()
                self._welcome()
            await self._watch_valkey()
        finally:
            await self.supervisor.stop_children()
            platform_state.write(self.data_dir, {**self.plan.state, "pids": {}})
            await asyncio.to_thread(self._stop_valkey)
        return self.supervisor.exit_code

    async def _ready(self) -> bool:
        """Wait until every door answers. False when the platform was asked to stop meanwhile."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        probes = readiness.probes(self.plan.state)
        while probes:
            if self.supervisor.stopping:
                return False
            probes = [probe for probe in probes if not await asyncio.to_thread(probe.answers)]
            if probes and time.monotonic() > deadline:
                names = ", ".join(probe.name for probe in probes)
                self.console.say(
                    "up", f"not ready after {READY_TIMEOUT_S:.0f} s: {names} (see the lines above)"
                )
                self.supervisor.stop(1)
                return False
            if probes:
                await asyncio.sleep(0.05)
        return True

    def _welcome(self) -> None:
        state = self.plan.state
        if self.plan.is_json:
            text = json.dumps(state, ensure_ascii=False)
        else:
            seconds = time.monotonic() - self.plan.began
            text = "\n" + welcome.page(state, seconds=seconds, note=self.plan.note) + "\n\n"
        print(text, flush=True)  # noqa: T201

    def _write(self) -> None:
        children = self.supervisor.children
        state: dict[str, Any] = self.plan.state
        state["pids"] = {"up": os.getpid(), **{child.name: child.pid for child in children if child.pid}}
        state["logs"] = {child.name: str(self.console.path(child.name)) for child in children}
        platform_state.write(self.data_dir, state)

    async def _watch_valkey(self) -> None:
        """Until asked to stop; an embedded Valkey that died is started again from its append-only file."""
        while not self.supervisor.stopping:
            try:
                await asyncio.wait_for(self.supervisor.wait(), WATCH_S)
            except TimeoutError:
                if self.sock and not await asyncio.to_thread(embedded.revive, self.data_dir, self.sock):
                    log = self.data_dir / "valkey" / "valkey.log"
                    self.console.say("up", f"the embedded Valkey is down and does not start (log: {log})")
                    self.supervisor.stop(1)

    def _asked_to_stop(self) -> None:
        if self.supervisor.stopping:
            return
        self.console.say("up", "stopping …")
        self.supervisor.stop()

    def _stop_valkey(self) -> None:
        if self.sock is None:
            return
        embedded.leave()
        if embedded.gone(self.sock, timeout_s=3.0):
            self.console.say("up", "Valkey stopped")
        else:
            self.console.say("up", "Valkey stays: another process still uses it")


async def _child(planned: Planned) -> Child:
    child = Child(planned.name, planned.command, planned.stage, planned.env)
    if planned.pid is not None and planned.output is not None:
        child.process = await adopt(planned.pid, planned.output)
    return child


def become(plan: Plan) -> None:
    """Replace this process by the one that supervises; its pid, its locks and its children stay. Does not return."""
    number = plan.hand_over()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # a Ctrl-C meanwhile is kept for the new one
    os.execv(sys.executable, [sys.executable, "-m", __name__, str(number)])  # noqa: S606  (no shell: ourselves)


def main() -> int:
    plan = Plan.take(int(sys.argv[1]))
    embedded.take_over(plan.valkey_claim)
    return asyncio.run(Run(plan).until_stopped())


if __name__ == "__main__":
    sys.exit(main())
