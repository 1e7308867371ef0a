"""`python -m benchmarks NAME [--quick] [--json]`: exit code 0, 1 when it could not run, 2 for an unknown name.

Without a name: the names. A benchmark is a module with `run(options)`, `UNEQUAL` and, if it has options of its own,
`add_options(parser)`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from rich.console import Console
from rich.table import Table

from tests.servers import Missing

from .figures import Figure
from .processes import Broken

NAMES = ("slice", "queue", "gateway", "cache", "database")
COLUMNS = ("figure", "value", "unit", "goal", "reached", "sides")


def main() -> int:
    options = parser().parse_args()
    if options.name is None:
        print("\n".join(NAMES))
        return 0
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # unwinds: what was started stops
    try:
        figures: list[Figure] = options.benchmark.run(options)
    except (Broken, Missing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: everything that was started is gone", file=sys.stderr)
        return 128 + signal.SIGINT
    if options.json:
        print(json.dumps([_row(figure) for figure in figures], ensure_ascii=False))
    else:
        show(figures, options.benchmark)
    return 0


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="./brain bench", description="A hot path against its peers, side by side."
    )
    names = whole.add_subparsers(dest="name", metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    for name in NAMES:
        benchmark = importlib.import_module(f".{name}", __package__)
        one = names.add_parser(name)
        one.set_defaults(benchmark=benchmark)
        one.add_argument("--quick", action="store_true", help="fewer and shorter rounds, with more noise")
        one.add_argument(
            "--json", action="store_true", help="the figures as a JSON list and nothing else on stdout"
        )
        if hasattr(benchmark, "add_options"):
            benchmark.add_options(one)
    return whole


def show(figures: Sequence[Figure], benchmark: ModuleType) -> None:
    names = list(dict.fromkeys(name for figure in figures for name in figure.sides))
    same = all(list(figure.sides) == names for figure in figures)
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "goal", "reached", *(names if same else ["sides: median (range)"])):
        table.add_column(column)
    for figure in figures:
        reached = {None: "-", True: "yes", False: "no"}[figure.reached]
        sides = list(figure.sides.values()) if same else [_joined(figure)]
        table.add_row(figure.figure, f"{figure.value:g} {figure.unit}", _goal(figure), reached, *sides)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe: its reader wraps
    console.print(table)
    console.print("\nNot equal between the sides:")
    for line in benchmark.UNEQUAL:
        console.print(f"- {line}", markup=False, highlight=False)


def _row(figure: Figure) -> dict[str, object]:
    return {column: getattr(figure, column) for column in COLUMNS}


def _joined(figure: Figure) -> str:
    return "\n".join(f"{name}: {text}" for name, text in figure.sides.items())


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return "-"
    return f"{'≤' if figure.at_most else '≥'} {figure.goal:g} {figure.unit}"


if __name__ == "__main__":
    sys.exit(main())
