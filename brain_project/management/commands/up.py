"""`./brain up`: the whole platform in one terminal, from nothing to a page of URLs.

lock → Valkey → fork web, edge, worker → checks → migrate → admin and demo → open the gate → become the supervisor (run.py)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandParser

from brain_project import demo, detached, embedded, platform_state, preflight, run
from brain_project.nursery import CAN_FORK, Nursery
from brain_project.plan import Plan, Planned
from foundation.commands import BrainCommand, Failed

HOST = "127.0.0.1"
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
        self.site, self.edge = (f"http://{HOST}:{options[name]}" for name in ("port", "edge_port"))
        self.owned = settings.EMBEDDED_DATABASE or options["demo"]
        try:
            with platform_state.lock(self.data_dir) as lock:
                self._up(lock)
        except platform_state.AlreadyRunning as error:
            raise Failed(str(error), hint="Use `./brain status`, or stop it with `./brain down`.") from error
        finally:
            embedded.leave()
        raise AssertionError("run.become returned")

    def _up(self, lock: IO[str]) -> None:
        self._ports_are_free()
        self.ports = preflight.free_ports(INSTANCES + 1) if self.owned and settings.DEMO else []
        if settings.EMBEDDED_REDIS:
            self._step("Valkey", self._valkey)
        cord = os.pipe()
        children, nursery = self._children(), Nursery(cord, lock=lock.fileno())
        if CAN_FORK:
            for child in sorted(
                children, key=lambda child: child.forks
            ):  # who has to load everything goes first
                nursery.fork(child)
        self._services_answer()
        state = self._prepare()
        nursery.open_gate()
        run.become(self._plan(state, children, cord, lock))

    def _ports_are_free(self) -> None:
        site, edge = self.options["port"], self.options["edge_port"]
        if site == edge:
            raise Failed(
                "--port and --edge-port are the same",
                hint=f"Give the edge another one: --edge-port {site + 80}.",
                code=2,
            )
        preflight.ports_are_free(HOST, {"--port": site, "--edge-port": edge})

    def _services_answer(self) -> None:
        if not settings.EMBEDDED_REDIS:
            self._step("Redis", preflight.redis_answers)
        self._step("database", preflight.database_answers)
        self._step("broker", preflight.broker_answers)

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
        try:
            embedded.start(self.data_dir, settings.VALKEY_SOCKET)
        except embedded.NotStarted as error:
            raise Failed(str(error)) from error

    # --- what is in the database ---

    def _prepare(self) -> dict[str, Any]:
        """up.json's state, once the database holds what the children need."""
        known = platform_state.read(self.data_dir)
        state: dict[str, Any] = {
            "site": self.site,
            "edge": self.edge,
            "admin": None,
            "api_key": None,
            "demo": None,
            "pids": {},
            "logs": {},
        }
        state["token_url"] = f"{self.site}/api/v1/gateway/token"
        if not self.owned:
            self._leave_alone()
            return state
        if settings.DATABASE_URL:
            self._say(f"--demo: migrating and filling {preflight.without_password(settings.DATABASE_URL)}")
        self._step("migrations", self._migrate)
        state["admin"] = demo.admin_user(known.get("admin") or {})
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

    def _children(self) -> list[Planned]:
        env = {"BRAIN_DEMO": "1" if settings.DEMO else "0"}
        demo_children = []
        if self.ports:
            tasks_ports, mail_port = self.ports[:INSTANCES], self.ports[INSTANCES]
            env["BRAIN_SMTP_PORT"] = str(mail_port)
            settings.EMAIL_PORT = mail_port  # a fork has these settings and does not read the variable again
            tasks = ["examples.tasks_service", "--ports", ",".join(map(str, tasks_ports))]
            mail = ["examples.mail_sink", "--port", str(mail_port), "--dir", str(self.data_dir / "mail")]
            demo_children = [
                Planned("tasks", tasks, stage=1, env=env, forks=False),
                Planned("mail", mail, stage=2, env=env, forks=False),
            ]
        port, edge_port = str(self.options["port"]), str(self.options["edge_port"])
        web = ["manage", "runserver", f"{HOST}:{port}", "--noreload", "--skip-checks"]  # `up` has run them
        edge = ["manage", "gateway", "--host", HOST, "--port", edge_port]
        return [
            Planned("web", web, stage=0, env={**env, "DJANGO_RUNSERVER_HIDE_WARNING": "true"}),
            Planned("edge", edge, stage=0, env=env),
            Planned("worker", self._worker(), stage=1, env=env),
            *demo_children,
        ]

    def _worker(self) -> list[str]:
        app = ["celery", "--quiet", "-A", "brain_project"]
        pool = ["worker", "-P", "threads", "-c", "4", "-l", settings.LOG_LEVEL]
        return [*app, *pool, "--without-gossip", "--without-mingle", "--hostname", f"brain-{os.getpid()}@%h"]

    def _plan(
        self, state: dict[str, Any], children: list[Planned], cord: tuple[int, int], lock: IO[str]
    ) -> Plan:
        return Plan(
            data_dir=str(self.data_dir),
            state=state,
            children=children,
            cord=cord,
            began=self.began,
            valkey_socket=str(settings.VALKEY_SOCKET) if settings.EMBEDDED_REDIS else None,
            valkey_claim=embedded.hand_on(),
            lock=lock.fileno(),
            note="" if self.owned else "Demo data and an admin user are left out: DATABASE_URL is yours.",
            colour=self.console.is_terminal and not self.console.no_color,
            fail_fast=self.options["fail_fast"],
            is_json=self.is_json,
        )

    # --- detached ---

    def _detach(self) -> int:
        with self.progress("starting …"):
            pid, page = detached.start(settings.BRAIN_DATA_DIR)
        self.line(page.replace("Ctrl-C stops it.", f"pid {pid}; `./brain down` stops it."))
        self.document(platform_state.read(settings.BRAIN_DATA_DIR))
        return 0
