"""Changes of the configuration as lines for a human, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.commands import BrainCommand
from gateway import rows
from gateway.entries import Change

_STYLES = {"create": "green", "update": "yellow", "delete": "red"}


def changes(command: BrainCommand, changed: Sequence[Change], nothing: str) -> None:
    """One line a change; colours where the output is a terminal."""
    command.document([change.shown() for change in changed])
    if not changed:
        command.line(nothing)
    for change in changed:
        command.line(change.line(rows.initial(change.kind)), style=_STYLES[change.verb])
