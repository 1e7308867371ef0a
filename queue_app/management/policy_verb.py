"""`manage.py queue policy NAME`: a queue's policy, shown, changed, made or deleted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction

from foundation.commands import USAGE, BrainCommand, Failed
from queue_app import policies, queues
from queue_app.management.tracing import trace
from queue_app.models import Delivery, Queue

NONE = "none"
_CALLERS = "caller"  # how a row's empty delivery is said
_FIELDS = {
    "max_retries": "runs after the first one",
    "backoff_base_s": "the longest wait before the first retry",
    "backoff_max_s": "the longest wait of all",
    "soft_time_limit_s": "SoftTimeLimitExceeded is raised in the run",
    "time_limit_s": "the run is ended",
    "retention_s": "of completed jobs",
    "dead_retention_s": "of dead letters",
}


class PolicyVerb:
    """The part of `manage.py queue` that makes and changes queues; limits have verbs of their own."""

    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        parser = self._command.verb(
            "policy",
            self.run,
            "A queue's policy: show it, or change what is given; `none` brings the default back. "
            "Example: manage.py queue policy emails --new --delivery ledger --max-retries 5",
        )
        parser.add_argument("name", metavar="QUEUE")
        parser.add_argument("--new", action="store_true", help="make the queue")
        parser.add_argument(
            "--delivery",
            choices=[*Delivery.values, _CALLERS],
            help="caller: enqueue() takes the ledger, .delay() the broker",
        )
        for field, told in _FIELDS.items():
            unit = "N" if field == "max_retries" else "S"
            option = f"--{field.removesuffix('_s').replace('_', '-')}"
            parser.add_argument(option, dest=field, type=_number, metavar=unit, help=told)
        parser.add_argument("--delete", action="store_true", help="forget the queue, which has no jobs")
        parser.add_argument("--yes", action="store_true", help="with --delete: do it")

    def run(self, *, name: str, new: bool, delete: bool, yes: bool, **options: Any) -> None:
        changes = {
            key: None if options[key] == NONE else options[key] for key in _FIELDS if options[key] is not None
        }
        if options["delivery"] is not None:
            changes["delivery"] = "" if options["delivery"] == _CALLERS else options["delivery"]
        if delete:
            if new or changes:
                raise Failed("--delete goes alone", code=USAGE)
            return self._delete(name, yes)
        if new and name in policies.by_name(fresh=True):
            raise Failed(f"there is a queue {name!r}", "nothing was changed; leave out --new", USAGE)
        with _told():
            found = self._changed(name, changes, new=new)
        fields = {"name": name, "delivery": found.delivery or _CALLERS}
        fields |= {key: getattr(found, key) for key in (*_FIELDS, "paused")}
        self._command.document(fields)
        self._command.table(["field", "value"], [[key, value] for key, value in fields.items()])
        return None

    def _changed(self, name: str, changes: dict[str, Any], *, new: bool) -> Queue:
        with transaction.atomic():  # no queue where its policy is refused
            who = trace()
            found = (
                queues.create_queue(name, actor=who["actor"], source=who["source"])
                if new
                else queues.find(name)
            )
            return queues.configure(found.name, **changes, **who) if changes else found

    def _delete(self, name: str, yes: bool) -> None:
        if not yes:
            raise Failed("nothing was deleted", f"Say --yes to delete the queue {name!r}.", USAGE)
        with _told():
            queues.delete(name, **trace())
        self._command.document({"deleted": name})
        self._command.line(f"{name}: deleted")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (queues.UnknownQueue, queues.InUse) as error:
        raise Failed(str(error), "nothing was changed; see: manage.py queue status") from error
    except ValueError as error:  # BadPolicy, BadLimit, and a name that cannot be one
        raise Failed(str(error), "nothing was changed; see: manage.py queue policy --help", USAGE) from error


def _number(text: str) -> Any:
    """A number or "none". Whether the policy takes it is said by the one place that knows."""
    try:
        return NONE if text == NONE else float(text) if "." in text else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor {NONE}") from error
