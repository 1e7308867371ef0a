"""`python -m benchmarks NAME [--quick] [--json]`: exit code 0, 1 when it could not run, 2 for an unknown name.

Without a name: the names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from types import ModuleType

from rich.console import Console
from rich.table import Table

from tests.servers import Missing

from .figures import Figure
from .processes import Broken

NAMES = ("slice",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: under a minute, more noise"
    )
    parser.add_argument(
        "--json", action="store_true", help="the figures as a JSON list and nothing else on stdout"
    )
    options = parser.parse_args()
    if options.name is None:
        print("\n".join(NAMES))
        return 0
    benchmark = importlib.import_module(f".{options.name}", __package__)
    try:
        figures: list[Figure] = benchmark.run(options.quick)
    except (Broken, Missing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures], ensure_ascii=False))
    else:
        show(figures, benchmark)
    return 0


def show(figures: list[Figure], benchmark: ModuleType) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "goal", "reached", "brain (range)", "usual (range)"):
        table.add_column(column)
    for figure in figures:
        goal = "-" if figure.goal is None else f"≥ {figure.goal:g} {figure.unit}"
        reached = {None: "-", True: "yes", False: "no"}[figure.reached]
        value = f"{figure.value:g} {figure.unit}"
        table.add_row(figure.figure, value, goal, reached, figure.sides["brain"], figure.sides["usual"])
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe: its reader wraps
    console.print(table)
    console.print("\nNot equal between the sides:")
    for line in benchmark.UNEQUAL:
        console.print(f"- {line}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
