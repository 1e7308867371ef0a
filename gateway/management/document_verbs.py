"""`manage.py gateway validate|diff|apply|export|convert`: the configuration as a YAML document."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.commands import DEGRADED, USAGE, BrainCommand, Failed
from gateway import config, kong, openapi, origins
from gateway.document import Document
from gateway.errors import InvalidDocument
from gateway.imported import Imported
from gateway.management import telling


class DocumentVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        verb = self._command.verb
        _file(verb("validate", self.validate, "Check a YAML document by itself."))
        _prune(_file(verb("diff", self.diff, "What apply would change; exit code 3 when it would.")))
        _prune(
            _file(
                verb(
                    "apply",
                    self.apply,
                    "Make the configuration what a YAML document says, or change nothing.",
                )
            )
        )
        _prune(_file(verb("import", self.apply, "An older name of apply.")))
        verb("export", self.export, "Print the configuration as YAML, without secrets.")
        self._define_convert()

    def _define_convert(self) -> None:
        parser = self._command.verb(
            "convert",
            self.from_kong,
            "Print somebody else's file as a document of ours, with what got lost as comments.",
        )
        group = parser.add_subparsers(title="formats", metavar="FORMAT", dest="format", required=True)
        _file(
            self._command.action(group, "kong", self.from_kong, "kong.yml, as `deck gateway dump` writes it.")
        )
        described = _file(
            self._command.action(
                group, "openapi", self.from_openapi, "An OpenAPI 3 description: paths become routes."
            )
        )
        described.add_argument(
            "--target", default="", metavar="URL", help="serve it from there, not from its servers"
        )

    def validate(self, *, file: str, **options: Any) -> None:
        document = self._document(file)
        self._command.line(f"{file} is valid: {len(document.entries)} entries")
        self._command.document({"valid": True, "warnings": list(document.warnings)})

    def diff(self, *, file: str, prune: bool, **options: Any) -> int | None:
        document = self._document(file)
        try:
            changed = config.diff(document, prune=prune)
        except InvalidDocument as error:
            raise _refused(file, error) from error
        self._revoked(document)
        telling.changes(self._command, changed, "no difference")
        return DEGRADED if changed else None

    def apply(self, *, file: str, prune: bool, **options: Any) -> None:
        document = self._document(file)
        try:
            changed = config.apply(document, prune=prune, **self._trace())
        except InvalidDocument as error:
            raise _refused(file, error) from error
        self._revoked(document)
        telling.changes(self._command, changed, "nothing to change")

    def export(self, **options: Any) -> None:
        text = config.export()
        self._command.line(text.rstrip())
        self._command.document({"yaml": text})

    def from_kong(self, *, file: str, **options: Any) -> int | None:
        return self._convert(file, kong.read)

    def from_openapi(self, *, file: str, target: str, **options: Any) -> int | None:
        if target:
            try:
                origins.read(target)
            except ValueError as error:
                raise Failed(
                    f"--target {target}: {error}", hint="Write it as http://host:port.", code=USAGE
                ) from error
        return self._convert(file, lambda text: openapi.read(text, target_url=target))

    def _convert(self, file: str, read: Callable[[str], Imported]) -> int | None:
        """The document on stdout, to be redirected into a file; how it went on stderr."""
        try:
            made = read(_text(file))
        except InvalidDocument as error:
            hint = "Nothing was converted. docs/gateway-import.md says which files can be."
            raise _refused(file, error, hint) from error
        text, problems = made.text(), self._problems(made.text())
        self._command.line(text.rstrip())
        self._command.document({"yaml": text, "notes": list(made.notes), "problems": problems})
        notes = f"{len(made.notes)} note{'' if len(made.notes) == 1 else 's'} at its top"
        self._say(f"converted, with {notes}; look at it, then `manage.py gateway diff` it")
        for problem in problems:
            self._say(f"to mend before it can be applied: {problem}")
        return DEGRADED if problems else None

    def _problems(self, text: str) -> list[str]:
        try:
            config.load(text)
        except InvalidDocument as error:
            return list(error.problems)
        return []

    def _document(self, file: str) -> Document:
        try:
            document = config.load(_text(file))
        except InvalidDocument as error:
            raise _refused(file, error) from error
        self._warn(document.warnings)
        return document

    def _revoked(self, document: Document) -> None:
        self._warn(config.stay_revoked(document))

    def _warn(self, warnings: Any) -> None:
        for warning in warnings:
            self._command.stderr.write(f"warning: {warning}", lambda text: text)

    def _say(self, text: str) -> None:
        if not self._command.is_json:
            self._command.stderr.write(text, lambda text: text)


def _text(file: str) -> str:
    """Raises Failed."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Failed(f"{file} cannot be read: {reason}", hint="Give the path to a YAML file.") from error


_HINT = "Nothing was changed. docs/gateway.md has the keys, examples/gateway.yaml a document."


def _refused(file: str, error: InvalidDocument, hint: str = _HINT) -> Failed:
    """One mistake a line."""
    told = (
        f"{file}: {error.problems[0]}"
        if len(error.problems) == 1
        else "\n  ".join([f"{file}:", *error.problems])
    )
    return Failed(told, hint=hint)


def _file(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("file", help="a YAML file, - for standard input")
    return parser


def _prune(parser: ArgumentParser) -> None:
    parser.add_argument("--prune", action="store_true", help="delete what the document does not name")
