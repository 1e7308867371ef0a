"""`python -m tests.drills NAME [--only A,B] [--quick] [--json]`: exit code 0 when all passed, 1 when not, 2 for a wrong use.

Without a name: the names. --only: drills of NAME by their names, or by the first words of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.servers import Missing

from .outcome import Broken, Outcome

NAMES = ("queue", "gateway", "cache", "database")
COLUMNS = ("drill", "lost", "duplicated", "failed", "recovered_s", "passed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--only", metavar="A,B", help="these drills of NAME; --list names them all")
    parser.add_argument("--list", action="store_true", help="the names of the drills of NAME")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and shorter faults")
    parser.add_argument(
        "--json", action="store_true", help="the outcomes as a JSON list and nothing else on stdout"
    )
    options = parser.parse_args()
    if options.name is None:
        print("\n".join(NAMES))
        return 0
    drills = importlib.import_module(f".{options.name}", __package__)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.list:
            print("\n".join(drill.name for drill in drills.chosen(options.only)))
            return 0
        outcomes: list[Outcome] = list(drills.run(only=options.only, quick=options.quick))
    except (Broken, Missing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(json.dumps([_columns(outcome) for outcome in outcomes if not outcome.skipped]))
        for outcome in outcomes:
            if outcome.skipped:
                print(f"{outcome.drill} skipped: {outcome.skipped}", file=sys.stderr)
    else:
        show(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _columns(outcome: Outcome) -> dict[str, Any]:
    return {name: asdict(outcome)[name] for name in COLUMNS}


def show(outcomes: Sequence[Outcome]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for outcome in outcomes:
        if outcome.skipped:
            table.add_row(outcome.drill, "", "", "", "", "skipped")
        else:
            table.add_row(*("-" if value is None else str(value) for value in _columns(outcome).values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe: its reader wraps
    console.print(table)
    for outcome in outcomes:
        console.print(f"{outcome.drill}: {outcome.skipped or outcome.note}", markup=False)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
