"""The options by which a verb says which jobs it means."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from foundation.commands import USAGE, Failed
from queue_app import selection
from queue_app.selection import FIELDS, Selection

_HELP = {
    "queue": "of this queue",
    "task": "of this task",
    "state": "in this state",
    "worker": "whose last run was there: an id, a host or HOST:PID",
    "tenant": "of this tenant",
    "tag": "with this tag",
    "arguments": "with these in their payload: 'path=value path=value'",
    "fingerprint": "dead letters of this failure; see: manage.py queue failures",
    "request_id": "of this request",
    "workflow": "of this workflow, by its id",
    "parent": "enqueued by this job, by its id",
    "since": "enqueued since: a span (15m, 6h, 30d) or a time",
    "until": "enqueued before: a span or a time",
    "died_since": "dead letters since: a span or a time",
    "died_until": "dead letters before: a span or a time",
}
_AT = "of_"  # the command's own options have some of the names


def add(parser: argparse.ArgumentParser, *, but: tuple[str, ...] = ()) -> None:
    for name in FIELDS:
        if name not in but:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                dest=f"{_AT}{name}",
                metavar=name.upper(),
                type=given,
                help=_HELP[name],
            )


def given(text: str) -> str:
    """A text for argparse. An empty one is a variable of a script that is not set, and would mean every job there is."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; leave the option out for all")
    return text


def read(options: dict[str, Any]) -> Selection:
    """Raises Failed with the code of wrong usage."""
    asked = {name: options.get(f"{_AT}{name}") or "" for name in FIELDS}
    try:
        return selection.read(asked, timezone.now())
    except selection.BadSelection as error:
        raise Failed(
            "; ".join(f"--{name.replace('_', '-')} {told}" for name, told in error.errors.items()), code=USAGE
        ) from error
