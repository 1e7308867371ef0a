from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.checks.registry import CheckRegistry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError

from foundation.commands import DEGRADED, BrainCommand, Failed


class Command(BrainCommand):
    requires_system_checks: Sequence[str] = ()

    def define(self, parser: Any) -> None:
        parser.add_argument("--count", type=int, default=2)
        self.verb("fail", self.fail, help="End with an error.").add_argument("why")
        self.verb("break", self.break_down, help="Meet a dead database.")
        self.verb("misread", self.misread, help="Meet wrong settings.").add_argument("text")
        self.verb("degrade", self.degrade, help="Print, and say that it is degraded.")
        self.verb("quote", self.quote, help="Print what somebody wrote.")
        self.verb("tell", self.tell, help="Print a document.")
        self.verb("list", self.list, help="Print what is wide.")

    def bare(self, **options: Any) -> None:
        with self.progress("counting", total=options["count"]) as advance:
            advance(options["count"])
        self.line("two rows", style="bold")
        self.table(["name", "took_ms"], [["ä[b]", 1], ["b" * 300, None]])

    def fail(self, **options: Any) -> None:
        self.line("working")
        raise Failed(f"it broke: {options['why']}", hint="mend it")

    def break_down(self, **options: Any) -> None:
        raise OperationalError("could not connect\nand a second line")

    def misread(self, **options: Any) -> None:
        raise ImproperlyConfigured(options["text"])

    def degrade(self, **options: Any) -> int:
        self.document({"state": "degraded"})
        self.line("state: degraded")
        return DEGRADED

    def list(self, **options: Any) -> None:
        self.table(["key", "path", "text"], [["k" * 20, "/p" * 20, "word " * 12], ["k2", None, "short"]])

    def quote(self, **options: Any) -> None:
        self.line("told:\t\x1b[2Jgone\x9b31m\nü")
        self.table(["message"], [["\x1b]0;title\x07"]])

    def tell(self, **options: Any) -> None:
        self.table(["a"], [[1]])
        self.document({"all": [1, 2]})


def run(*argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `manage.py probe …`."""
    out, err = io.StringIO(), io.StringIO()
    command = Command(stdout=out, stderr=err)
    try:
        command.run_from_argv(["manage.py", "probe", *argv])
    except SystemExit as stopped:
        return int(stopped.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_bare__plain_pipe__text_without_colour_uncut():
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "two rows"
    assert "took ms" in out
    assert "ä[b]" in out
    assert "b" * 300 in out
    assert "\x1b" not in out


def test_quote__what_a_terminal_would_obey__stands_as_an_escape():
    code, out, _ = run("quote")
    assert (code, out.split("\n")[1]) == (0, "ü")
    assert "\\x1b[2Jgone\\x9b31m" in out
    assert "\\x1b]0;title\\x07" in out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)


def test_bare__json__rows_are_the_one_document():
    code, out, err = run("--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"name": "ä[b]", "took_ms": 1}, {"name": "b" * 300, "took_ms": None}]
    assert out.count("\n") == 1


def test_document__json_with_a_table__document_wins():
    assert json.loads(run("tell", "--json")[1]) == {"all": [1, 2]}
    assert json.loads(run("--json", "tell")[1]) == {"all": [1, 2]}


def test_degraded__both_forms__printed_and_exit_code_3():
    assert run("degrade") == (3, "state: degraded\n", "")
    code, out, _ = run("degrade", "--json")
    assert (code, json.loads(out)) == (3, {"state": "degraded"})


def test_failed__text__one_line_and_a_hint_on_stderr():
    assert run("fail", "disk") == (1, "working\n", "error: it broke: disk\nhint: mend it\n")


def test_failed__json__document_on_stderr_and_nothing_on_stdout():
    code, out, err = run("fail", "disk", "--json")
    assert (code, out) == (1, "")
    assert json.loads(err) == {"error": "it broke: disk", "hint": "mend it"}


def test_failed__called_from_code__raised_to_the_caller():
    with pytest.raises(Failed, match="it broke") as caught:
        call_command(Command(), "fail", "disk")
    assert (caught.value.hint, caught.value.returncode) == ("mend it", 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("X is missing. Hint: Set X.", "error: settings: X is missing.\nhint: Set X.\n"),
        (
            "X is missing.",
            "error: settings: X is missing.\nhint: Mend it in settings.py: docs/settings.md.\n",
        ),
    ],
)
def test_settings_error__from_the_shell__one_line_no_traceback(text: str, told: str):
    assert run("misread", text) == (1, "", told)


def test_database_error__from_the_shell__one_line_no_traceback():
    code, _, err = run("break")
    assert code == 1
    assert err.startswith("error: database: could not connect\nhint: ")


@pytest.mark.parametrize("argv", [["--count", "x"], ["nonsense"], ["fail"]])
def test_usage__wrong_arguments__exit_code_2_in_both_forms(argv, capsys):
    assert run(*argv)[0] == 2
    assert "usage:" in capsys.readouterr().err
    code, out, err = run("--json", *argv)
    assert (code, out) == (2, "")
    assert json.loads(err)["error"]


def test_usage__a_misspelt_verb__the_one_that_was_meant(capsys):
    assert run("lsit")[0] == 2
    assert (
        "probe: error: there is no subcommand 'lsit'; did you mean 'list'? (known: fail, "
        in capsys.readouterr().err
    )
    assert json.loads(run("qqq", "--json")[2])["error"].startswith("there is no subcommand 'qqq' (known: ")


@pytest.mark.parametrize("argv", [["--traceback", "break"], ["break", "--traceback"]])
def test_traceback__before_or_after_the_verb__the_error_itself(argv):
    with pytest.raises(OperationalError):
        run(*argv)


def test_brief__verbs_are_and_what_serves_is_not__its_waits_for_a_connection_are_short(monkeypatch):
    waits: list[str] = []

    @contextmanager
    def impatient():
        waits.append("short")
        yield

    monkeypatch.setattr("foundation.commands._impatient", impatient)
    run("--count", "1")
    assert waits == []
    run("tell")
    assert waits == ["short"]
    call_command(
        Command(), "tell", "--json", stdout=io.StringIO()
    )  # in somebody's process, with pools of its own
    assert waits == ["short"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("argv", "checked"), [([], {"brain", "urls"}), (["list"], {"brain"}), (["list", "--skip-checks"], set())]
)
def test_checks__of_a_verb_that_ends__are_those_of_the_settings(argv, checked, monkeypatch):
    found: set[str] = set()
    registry = CheckRegistry()
    for tag in ("brain", "urls"):
        registry.register(lambda tag=tag, **_: found.add(tag) or [], tag)
    monkeypatch.setattr("django.core.checks.run_checks", registry.run_checks)
    monkeypatch.setattr(Command, "requires_system_checks", "__all__")
    assert run(*argv)[0] == 0
    assert found == checked


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_line__terminal__coloured_unless_no_color(no_color, is_coloured, monkeypatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    Command(stdout=out, stderr=Terminal()).run_from_argv(["manage.py", "probe"])
    assert ("\x1b[1m" in out.getvalue()) is is_coloured


@pytest.mark.parametrize(("columns", "is_table"), [(200, True), (100, True), (60, False)])
def test_table__terminal_of_some_width__cuts_nothing(columns, is_table, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Command(stdout=out, stderr=Terminal()).run_from_argv(["manage.py", "probe", "list"])
    lines = out.getvalue().splitlines()
    assert any("k" * 20 in line for line in lines)
    assert any("/p" * 20 in line for line in lines)
    assert out.getvalue().count("word") == 12
    assert any(line.split() == ["key", "path", "text"] for line in lines) is is_table
    assert any(line.split() == ["key", "k2"] for line in lines) is not is_table


def test_progress__terminal_and_json__drawn_on_stderr_only_without_json(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for argv, is_drawn in ((["manage.py", "probe"], True), (["manage.py", "probe", "--json"], False)):
        out, err = Terminal(), Terminal()
        Command(stdout=out, stderr=err).run_from_argv(argv)
        assert ("counting" in err.getvalue()) is is_drawn
        assert "counting" not in out.getvalue()


def test_progress__terminal__drawn_over_itself_and_never_in_the_colour_of_errors(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    err = Terminal()
    Command(stdout=Terminal(), stderr=err).run_from_argv(["manage.py", "probe"])
    drawn = err.getvalue().partition("counting")
    assert "\n" not in drawn[0]
    assert "\x1b[31;1m" not in err.getvalue()
