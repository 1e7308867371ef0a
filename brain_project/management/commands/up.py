"""`./brain up`: the whole platform in one terminal, from nothing to a page of URLs.

lock → Valkey → checks → migrate → admin and demo → tasks, mail, web, edge, worker → ready → page → stop in order
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandParser

from brain_project import demo, embedded, platform_state, preflight, readiness, welcome
from brain_project.supervisor import Child, Console, Supervisor
from foundation.commands import BrainCommand, Failed

HOST = "127.0.0.1"
READY_TIMEOUT_S = 60.0
INSTANCES = 3


class Command(BrainCommand):
    help = "Run the whole platform: web, edge and worker, on the embedded default when no URL is set."

    def define(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the site: admin and API (default 8000)")
        parser.add_argument("--edge-port", type=int, default=8080, help="the gateway's edge (default 8080)")
        parser.add_argument("--data-dir", help="where everything is kept (default .brain)")
        parser.add_argument(
            "--detach", action="store_true", help="return once the platform is ready; see `./brain down`"
        )
        parser.add_argument(
            "--fail-fast", action="store_true", help="stop all with its code when a child ends"
        )
        parser.add_argument(
            "--demo", action="store_true", help="migrate and fill DATABASE_URL too (an admin, demo data)"
        )

    def bare(self, **options: Any) -> int:
        self.began = time.monotonic()
        if options["detach"]:
            return self._detach()
        self.options = options
        self.data_dir: Path = settings.BRAIN_DATA_DIR
        try:
            with platform_state.lock(self.data_dir):
                return self._up()
        except platform_state.AlreadyRunning as error:
            raise Failed(str(error), hint="Use `./brain status`, or stop it with `./brain down`.") from error
        finally:
            embedded.leave()

    def _up(self) -> int:
        site, edge = self.options["port"], self.options["edge_port"]
        if site == edge:
            raise Failed(
                "--port and --edge-port are the same",
                hint=f"Give the edge another one: --edge-port {site + 80}.",
                code=2,
            )
        preflight.ports_are_free(HOST, {"--port": site, "--edge-port": edge})
        self._step("Valkey", self._valkey)
        self._step("database", preflight.database_answers)
        self._step("broker", preflight.broker_answers)
        state = self._prepare()
        return asyncio.run(self._run_children(state))

    def _step(self, name: str, action: Callable[[], Any]) -> Any:
        """Run one step and say how long it took; a slow one shows on the terminal while it runs."""
        began = time.monotonic()
        with self.progress(f"{name} …"):
            result = action()
        said = f"{name}: {result}" if isinstance(result, str) else f"{name} ready"
        self._say(f"{said} ({time.monotonic() - began:.1f} s)")
        return result

    def _say(self, text: str) -> None:
        """At once, also into a file or a pipe: progress that comes late is none."""
        self.line(text)
        self.stdout.flush()

    def _valkey(self) -> None:
        if settings.EMBEDDED_REDIS:
            try:
                embedded.start(self.data_dir, settings.VALKEY_SOCKET)
            except embedded.NotStarted as error:
                raise Failed(str(error)) from error
        preflight.redis_answers()

    # --- what is in the database ---

    def _prepare(self) -> dict[str, Any]:
        site, edge = (f"http://{HOST}:{self.options[name]}" for name in ("port", "edge_port"))
        known = platform_state.read(self.data_dir)
        state: dict[str, Any] = {
            "site": site,
            "edge": edge,
            "admin": None,
            "api_key": None,
            "demo": None,
            "pids": {},
            "logs": {},
        }
        state["token_url"] = f"{site}/api/v1/gateway/token"
        self.owned = settings.EMBEDDED_DATABASE or self.options["demo"]
        if not self.owned:
            self._leave_alone()
            return state
        if settings.DATABASE_URL:
            self._say(f"--demo: migrating and filling {preflight.without_password(settings.DATABASE_URL)}")
        self._step("migrations", self._migrate)
        state["admin"] = demo.admin_user(known.get("admin") or {})
        self.ports = preflight.free_ports(INSTANCES + 1)
        if settings.DEMO:
            targets = [f"http://{HOST}:{port}" for port in self.ports[:INSTANCES]]
            state["demo"] = {"targets": targets, "mail": str(self.data_dir / "mail")}
            state["api_key"] = demo.routes(targets)
            self._step("demo data", demo.seed)
        return state

    def _migrate(self) -> str:
        pending = preflight.pending_migrations()
        if pending:
            call_command("migrate", verbosity=0, interactive=False)
        return f"{pending} applied" if pending else "none to apply"

    def _leave_alone(self) -> None:
        url = preflight.without_password(settings.DATABASE_URL)
        self._say(f"DATABASE_URL is set ({url}): no migration, no admin user, no demo data there.")
        pending = preflight.pending_migrations()
        if pending:
            raise Failed(
                f"{pending} migrations are not applied to {url}",
                hint="Apply them with `./brain migrate`, or give --demo.",
            )

    # --- the children ---

    async def _run_children(self, state: dict[str, Any]) -> int:
        console = Console(
            self.data_dir / "logs", colour=self.console.is_terminal and not self.console.no_color
        )
        supervisor = Supervisor(
            console, fail_fast=self.options["fail_fast"], changed=lambda: self._write(state, supervisor)
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, supervisor, console)
        try:
            for child in self._children():
                await supervisor.start(child)
            if await self._ready(supervisor, state):
                self._write(state, supervisor)
                note = (
                    "" if self.owned else "Demo data and an admin user are left out: DATABASE_URL is yours."
                )
                self._say("\n" + welcome.page(state, seconds=time.monotonic() - self.began, note=note) + "\n")
                self.document(state)
            await self._watch_valkey(supervisor, console)
        finally:
            await supervisor.stop_children()
            self._write({**state, "pids": {}}, None)
            await asyncio.to_thread(self._stop_valkey, console)
        return supervisor.exit_code

    def _children(self) -> list[Child]:
        site, edge = str(self.options["port"]), str(self.options["edge_port"])
        env = {"BRAIN_DEMO": "1" if settings.DEMO else "0"}
        children = []
        if self.owned and settings.DEMO:
            tasks_ports, mail_port = self.ports[:INSTANCES], str(self.ports[INSTANCES])
            env["BRAIN_SMTP_PORT"] = mail_port
            tasks = ["examples.tasks_service", "--ports", ",".join(map(str, tasks_ports))]
            children.append(Child("tasks", tasks, stage=1, env=env))
            mail = ["examples.mail_sink", "--port", mail_port, "--dir", str(self.data_dir / "mail")]
            children.append(Child("mail", mail, stage=2))
        worker = [
            "celery",
            "-A",
            "brain_project",
            "worker",
            "-P",
            "threads",
            "-c",
            "4",
            "-l",
            settings.LOG_LEVEL,
        ]
        worker += ["--without-gossip", "--without-mingle", "--hostname", f"brain-{os.getpid()}@%h"]
        return [
            Child("web", ["manage", "runserver", f"{HOST}:{site}", "--noreload"], stage=0, env=env),
            Child("edge", ["manage", "gateway", "--host", HOST, "--port", edge], stage=0, env=env),
            Child("worker", worker, stage=1, env=env),
            *children,
        ]

    async def _ready(self, supervisor: Supervisor, state: dict[str, Any]) -> bool:
        """Wait until every door answers. False when the platform was asked to stop meanwhile."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        probes = readiness.probes(state)
        while probes:
            if supervisor.stopping:
                return False
            probes = [probe for probe in probes if not await asyncio.to_thread(probe.answers)]
            if probes and time.monotonic() > deadline:
                names = ", ".join(probe.name for probe in probes)
                supervisor.console.say(
                    "up", f"not ready after {READY_TIMEOUT_S:.0f} s: {names} (see the lines above)"
                )
                supervisor.stop(1)
                return False
            if probes:
                await asyncio.sleep(0.1)
        return True

    def _write(self, state: dict[str, Any], supervisor: Supervisor | None) -> None:
        if supervisor is not None:
            state["pids"] = {
                "up": os.getpid(),
                **{child.name: child.pid for child in supervisor.children if child.pid},
            }
            state["logs"] = {
                child.name: str(supervisor.console.path(child.name)) for child in supervisor.children
            }
        platform_state.write(self.data_dir, state)

    async def _watch_valkey(self, supervisor: Supervisor, console: Console) -> None:
        """Until asked to stop; an embedded Valkey that died is started again from its append-only file."""
        while not supervisor.stopping:
            try:
                await asyncio.wait_for(supervisor.wait(), 2.0)
            except TimeoutError:
                if settings.EMBEDDED_REDIS and not await asyncio.to_thread(
                    embedded.revive, self.data_dir, settings.VALKEY_SOCKET
                ):
                    console.say(
                        "up",
                        f"the embedded Valkey is down and does not start (log: {self.data_dir / 'valkey' / 'valkey.log'})",
                    )
                    supervisor.stop(1)

    def _asked_to_stop(self, supervisor: Supervisor, console: Console) -> None:
        if supervisor.stopping:
            return
        console.say("up", "stopping …")
        supervisor.stop()

    def _stop_valkey(self, console: Console) -> None:
        if not settings.EMBEDDED_REDIS:
            return
        embedded.leave()
        if embedded.gone(settings.VALKEY_SOCKET, timeout_s=3.0):
            console.say("up", "Valkey stopped")
        else:
            console.say("up", "Valkey stays: another process still uses it")

    # --- detached ---

    def _detach(self) -> int:
        data_dir: Path = settings.BRAIN_DATA_DIR
        pid = platform_state.running_pid(data_dir)
        if pid is not None:
            raise Failed(
                f"already running: pid {pid}", hint="Use `./brain status`, or stop it with `./brain down`."
            )
        log = data_dir / "logs" / "up.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            sys.executable,
            *(argument for argument in sys.argv if argument not in ("--detach", "--json")),
        ]
        with open(log, "wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        with self.progress("starting …"):
            ready = self._await_detached(process, data_dir)
        said = log.read_text(errors="replace")
        if not ready:
            raise Failed(
                said.strip().splitlines()[-1] if said.strip() else "up ended at once",
                hint=f"The whole log: {log}",
            )
        page = said[said.index("Brain Platform is ready") :].split("\n\n\n")[0]
        self.line(page.replace("Ctrl-C stops it.", f"pid {process.pid}; `./brain down` stops it."))
        self.document(platform_state.read(data_dir))
        return 0

    def _await_detached(self, process: subprocess.Popen[bytes], data_dir: Path) -> bool:
        while process.poll() is None:
            if (platform_state.read(data_dir).get("pids") or {}).get("up") == process.pid:
                return True
            time.sleep(0.1)
        return False
