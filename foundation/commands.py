"""The base of our commands: subcommands, --json, exit codes, tables and progress on a terminal.

Exit codes: 0 ok, 1 failed, 2 wrong usage (argparse), 3 degraded, 130 and 141 as after SIGINT and SIGPIPE. stdout carries the result, stderr everything else.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import ALL_CHECKS, BaseCommand, CommandError, CommandParser, OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, InterfaceError, connections
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from . import stdout

OK, FAILED, USAGE, DEGRADED = 0, 1, 2, 3
_INTERRUPTED = 130  # what a shell reports for SIGINT
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
_LEAST_WIDTH = 24  # of a table's last column on a terminal; below that its rows are shown one below another
_PATIENCE_S = 3.0
_BRIEF_CHECKS = (
    "brain",
)  # of the settings; the others look at models, URLs and the admin, and import all of it
_NO_VERB = re.compile(r"argument : invalid choice: (?P<given>'[^']*') \(choose from (?P<known>.*)\)")
_UNBOUNDED_COLUMNS = 1000  # not a terminal: the reader is a program or a file, so nothing is wrapped or cut

Run = Callable[..., int | None]


class Failed(CommandError):
    """Ends a command with one line that names the cause, and one that names the fix."""

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message, returncode=code)
        self.hint = hint


class BrainCommand(BaseCommand):
    """A noun's command. Subclasses write `define` (arguments, `self.verb(…)`) and `bare`, what it does without a verb.

    `bare` and the verbs get the parsed options as keywords and return an exit code, None meaning OK. They speak by
    `line`, `table` and `progress`, which are silent under --json, and by `document`, which is silent without it.
    """

    is_brief = False  # without a verb: it tells something and ends, as verbs do
    is_json: bool
    requires_system_checks: Any
    stdout: OutputWrapper
    console: Console
    _result: Any
    _no_color: bool
    _parser: CommandParser
    _verbs: Any

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return self.explained(super().create_parser(prog_name, subcommand, **kwargs))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="One JSON document on stdout and nothing else there."
        )
        self._parser = parser
        self._verbs = None
        self.define(parser)

    def define(self, parser: CommandParser) -> None:
        """Declare options and verbs."""

    def verb(self, name: str, run: Run, help: str, *, is_brief: bool = True) -> ArgumentParser:
        """Add the subcommand `name`; returns its parser for its own arguments. is_brief: it does not go on by itself."""
        if self._verbs is None:
            self._verbs = self._parser.add_subparsers(title="subcommands", metavar="", dest="verb")
        parser = self.action(self._verbs, name, run, help)
        parser.set_defaults(is_brief=is_brief)
        return parser

    def action(self, group: Any, name: str, run: Run, help: str) -> ArgumentParser:
        """The same in a verb's own group: `manage.py queue schedules create`. group: of the verb's add_subparsers."""
        parser: ArgumentParser = self.explained(group.add_parser(name, help=help, description=help))
        parser.set_defaults(run=run)
        # After the verb too; SUPPRESS keeps its default from undoing a --json that stood before the verb.
        parser.add_argument("--json", action="store_true", default=SUPPRESS, help="The result as JSON.")
        # Django's own, whose help stands with the command; it reads the last two itself.
        for switch in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
            parser.add_argument(switch, action="store_true", default=SUPPRESS, help=SUPPRESS)
        for option in ("--settings", "--pythonpath"):
            parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)
        return parser

    def bare(self, **options: Any) -> int | None:
        return self._parser.error("a subcommand is needed")

    # --- speaking ----------------------------------------------------------------------------------------------------
    def line(self, text: str, style: str = "") -> None:
        if not self.is_json:
            # A command stays one line.
            self.console.print(_printable(text), style=style, markup=False, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
        """A table for a human; under --json its rows are the document, unless `document` says otherwise."""
        if self.is_json:
            if self._result is None:
                self._result = [dict(zip(columns, row, strict=True)) for row in rows]
            return
        names = [column.replace("_", " ") for column in columns]
        cells = [["-" if cell is None else _printable(str(cell)) for cell in row] for row in rows]
        room = self._room_for_the_last(names, cells)
        if room < min(_LEAST_WIDTH, max((cell_len(row[-1]) for row in cells), default=0)):
            self._records(names, cells, title)
            return
        table = Table(
            title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for (
            name
        ) in names:  # what is copied, a fingerprint or a path, stays whole; the last column may be prose
            table.add_column(name, no_wrap=name is not names[-1], overflow="fold")
        for row in cells:
            table.add_row(*row)
        self.console.print(table, markup=False)

    def _room_for_the_last(self, names: list[str], cells: list[list[str]]) -> int:
        columns = list(zip(names, *cells, strict=True))[:-1]
        return self.console.width - sum(max(map(cell_len, column)) + 1 for column in columns)

    def _records(self, names: list[str], cells: list[list[str]], title: str) -> None:
        """The rows one below another, for a terminal that is too narrow for the table; as psql's `\\x auto`."""
        if title:
            self.line(title, style="italic")
        width = max(map(cell_len, names))
        for number, row in enumerate(cells):
            if number:
                self.line("")
            for name, cell in zip(names, row, strict=True):
                self.line(f"{name}{' ' * (width - cell_len(name))}  {cell}")

    def document(self, value: Any) -> None:
        """The result under --json."""
        self._result = value

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """A bar on stderr while the block runs, on a terminal only: `with self.progress("copying", 10) as advance`."""
        # Not Django's wrapper: it paints what it is given red and ends each of the bar's frames with a line.
        stream = self.stderr._out
        screen = Console(file=stream, no_color=self._no_color or None)
        if self.is_json or not screen.is_terminal:
            yield _advance_nothing
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task(description, total=total)

            def advance(steps: int = 1) -> None:
                bar.advance(task, steps)

            yield advance

    # --- Django's side -----------------------------------------------------------------------------------------------
    def handle(self, *args: Any, **options: Any) -> None:
        self.is_json = options["json"]
        self._no_color = options.get("no_color", False)
        self._result = None
        self.console = self._console(force_color=options.get("force_color", False))
        run: Run = options.pop("run", None) or self.bare
        is_brief = options.pop("is_brief", self.is_brief) and self._called_from_command_line
        with _impatient() if is_brief else nullcontext():
            code = run(**options)
        if self.is_json and self._result is not None:
            self.stdout.write(json.dumps(self._result, cls=DjangoJSONEncoder, ensure_ascii=False))
        if code:
            sys.exit(code)

    def run_from_argv(self, argv: list[str]) -> None:
        self._argv = argv
        checked = stdout.Checked(sys.stdout)
        if self.stdout._out is sys.stdout:
            self.stdout = OutputWrapper(checked)
        try:
            try:
                super().run_from_argv(argv)
            finally:
                checked.flush()  # what argparse has said, too
        except stdout.Lost as lost:
            stdout.forget()
            if lost.has_reader_left:  # `| head -1`: it has what it wanted
                sys.exit(stdout.READER_LEFT)
            self._tell(f"stdout: {lost}", "", as_json="--json" in argv)
            sys.exit(FAILED)

    def execute(self, *args: Any, **options: Any) -> str | None:
        if options.get("is_brief", self.is_brief) and self.requires_system_checks == ALL_CHECKS:
            self.requires_system_checks = _BRIEF_CHECKS
        try:
            return super().execute(*args, **options)
        except Failed as failed:
            self._end(failed, options)
        except (DatabaseError, InterfaceError) as error:
            if options.get("traceback"):
                raise
            hint = "Look at `manage.py database`; after an upgrade run `manage.py migrate`."
            self._end(Failed(f"database: {_first_line(error)}", hint), options)
        except ImproperlyConfigured as error:
            if options.get("traceback"):
                raise
            text, _, hint = _first_line(error).partition(" Hint: ")
            self._end(
                Failed(f"settings: {text}", hint or "Mend it in settings.py: docs/settings.md."), options
            )
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)

    def _end(self, failed: Failed, options: dict[str, Any]) -> NoReturn:
        if not self._called_from_command_line:
            raise failed  # call_command: the caller handles it
        self._tell(str(failed), failed.hint, as_json=options.get("json", False))
        sys.exit(failed.returncode)

    def _tell(self, message: str, hint: str, *, as_json: bool) -> None:
        if as_json:
            self.stderr.write(
                json.dumps({"error": message, "hint": hint}, ensure_ascii=False), lambda text: text
            )
            return
        self.stderr.write(f"error: {message}")
        if hint:
            self.stderr.write(f"hint: {hint}", lambda text: text)

    def explained(self, parser: Any) -> Any:
        """The parser, whose complaint is JSON when the command line asks for JSON; argparse's own form and code 2 otherwise."""
        plain = parser.error

        def error(message: str) -> NoReturn:
            message = _told(message)
            if self._called_from_command_line and "--json" in getattr(self, "_argv", ()):
                self._tell(message, parser.format_usage().strip(), as_json=True)
                sys.exit(USAGE)
            plain(message)
            raise AssertionError("argparse's error returned")

        parser.error = error
        # argparse's own passes over a stdout that takes nothing.
        parser.print_help = lambda file=None: stdout.Checked(file or sys.stdout).write(parser.format_help())
        return parser

    def _console(self, *, force_color: bool) -> Console:
        is_terminal = self.stdout.isatty()
        no_color = Console(no_color=self._no_color or None).no_color  # rich looks at NO_COLOR when it is None
        return Console(
            file=self.stdout,
            color_system=None if no_color else "auto",  # None: no bold either
            force_terminal=force_color or is_terminal,
            width=None if is_terminal else _UNBOUNDED_COLUMNS,
            highlight=False,
            emoji=False,  # `:key:` in a name stays what it is
        )


@contextmanager
def _impatient() -> Iterator[None]:
    """Nobody else uses a command's pools: who waits for a connection waits for a server that is away, and the command
    itself says so. MySQL's pool raises at once in that case."""
    log = logging.getLogger("psycopg.pool")
    level, patient = log.level, []
    for alias in connections:
        settings = connections.settings[alias]
        pool = settings.get("OPTIONS", {}).get("pool")
        if pool and settings["ENGINE"].endswith("postgresql"):
            given = {} if pool is True else pool
            patient.append((settings["OPTIONS"], pool))
            settings["OPTIONS"]["pool"] = given | {
                "timeout": min(given.get("timeout", _PATIENCE_S), _PATIENCE_S)
            }
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        for options, pool in patient:
            options["pool"] = pool


def _advance_nothing(steps: int = 1) -> None:
    """For a reader that sees no bar."""


def _told(complaint: str) -> str:
    """argparse names the argument that a verb is; ours has no name in the help, so it names nothing."""
    found = _NO_VERB.fullmatch(complaint)
    if not found:
        return complaint
    known = re.findall(r"[\w-]+", found["known"])
    near = get_close_matches(found["given"].strip("'"), known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no subcommand {found['given']}{meant} (known: {', '.join(known)})"


def _printable(text: str) -> str:
    """What a terminal would obey stands as an escape: an error's message may come from anybody."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
