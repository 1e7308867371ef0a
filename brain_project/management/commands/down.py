"""`./brain down`: stop the platform that `up` started, orderly, and wait until it is gone."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from brain_project import platform_state
from foundation.commands import BrainCommand, Failed


class Command(BrainCommand):
    help = "Stop the running platform and wait until it is gone."
    is_brief = True

    def define(self, parser: CommandParser) -> None:
        parser.add_argument("--data-dir", help="where everything is kept (default .brain)")

    def bare(self, **options: Any) -> int:
        try:
            pid = platform_state.stop(settings.BRAIN_DATA_DIR, timeout_s=30.0)
        except TimeoutError as error:
            raise Failed(str(error), hint="End it with `kill -9`: its children end with it.") from error
        self.line("nothing is running" if pid is None else f"stopped pid {pid}")
        self.document({"stopped": pid})
        return 0
