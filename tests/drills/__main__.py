"""`python -m tests.drills NAME [--json]`: exit code 0 when it passed, 1 when not, 2 for an unknown name.

Without a name: the names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tests.servers import Missing

from .outcome import Broken, Outcome

NAMES = ("queue",)
COLUMNS = ("drill", "lost", "duplicated", "failed", "recovered_s", "passed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument(
        "--json", action="store_true", help="the outcomes as a JSON list and nothing else on stdout"
    )
    options = parser.parse_args()
    if options.name is None:
        print("\n".join(NAMES))
        return 0
    try:
        outcomes: list[Outcome] = importlib.import_module(f".{options.name}", __package__).run()
    except (Broken, Missing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([{name: asdict(outcome)[name] for name in COLUMNS} for outcome in outcomes]))
    else:
        show(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def show(outcomes: list[Outcome]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for outcome in outcomes:
        table.add_row(*(str(getattr(outcome, name)) for name in COLUMNS))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe: its reader wraps
    console.print(table)
    for outcome in outcomes:
        console.print(outcome.note, markup=False)


if __name__ == "__main__":
    sys.exit(main())
