"""`manage.py queue autoscale`: worker processes by the latency of the queues, until it is stopped."""

from __future__ import annotations

import signal
import sys
from typing import Any
from uuid import uuid4

from foundation.commands import USAGE, BrainCommand, Failed
from queue_app.alerting import Watch
from queue_app.autoscale import Autoscaler, Goal
from queue_app.fleet import Fleet


class AutoscaleVerb:
    """The part of `manage.py queue` that runs a fleet."""

    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        scaling = self._command.verb(
            "autoscale",
            self.run,
            "Run worker processes, as many as the queues need. Example: manage.py queue autoscale --min 1 --max 8",
            is_brief=False,
        )
        scaling.add_argument("--min", type=int, default=1, help="processes at least (default 1)")
        scaling.add_argument("--max", type=int, default=8, help="processes at most (default 8)")
        scaling.add_argument(
            "--latency",
            type=float,
            default=10.0,
            metavar="S",
            help="seconds that a job may wait (default 10)",
        )
        scaling.add_argument(
            "--hold",
            type=float,
            default=60.0,
            metavar="S",
            help="seconds without need before one ends (default 60)",
        )
        scaling.add_argument(
            "--every", type=float, default=5.0, metavar="S", help="seconds between looks (default 5)"
        )

    def run(self, *, concurrency: int | None, queues: str | None, **options: Any) -> None:
        try:
            goal = Goal(options["latency"], options["min"], options["max"], options["hold"])
            if not options["every"] > 0:
                raise ValueError(f"every {options['every']:g} s is not a positive number of seconds")
        except ValueError as error:
            raise Failed(str(error), "see: manage.py queue autoscale --help", USAGE) from error
        command = [sys.executable, sys.argv[0], "queue"]
        command += ["--concurrency", str(concurrency)] if concurrency else []
        command += ["--queues", queues] if queues else []
        fleet = Fleet(command, Autoscaler(goal), queues.split(",") if queues else (), self._command.line)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: fleet.stop())
        me = uuid4()
        watch = Watch(lambda: me)  # no worker can tell that none is left
        watch.start()
        try:
            fleet.run(options["every"])
        finally:
            watch.end()
