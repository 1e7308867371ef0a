"""The verbs of `manage.py cache` that change something; each change is audited, and only keys that are named go without --yes."""

from __future__ import annotations

import json
from typing import Any

from cache_app import browsing, operations, warming
from foundation import figures
from foundation.commands import FAILED, OK, USAGE, BrainCommand, Failed

from . import asking
from .asking import add_alias, answered, trace


class ChangingVerbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        put = self._command.verb(
            "set", self.set, "Store a value. Example: manage.py cache set flag true --ttl 60"
        )
        put.add_argument("key")
        put.add_argument("value", metavar="JSON")
        put.add_argument("--ttl", type=asking.seconds, metavar="SECONDS", help="without it: for ever")
        add_alias(put)
        delete = self._command.verb(
            "delete", self.delete, "Delete keys, or all that a pattern matches, counted first."
        )
        delete.add_argument("keys", nargs="*", metavar="KEY")
        delete.add_argument("--pattern", metavar="GLOB", help="such as 'user:*'; asks for --yes or --dry-run")
        delete.add_argument("--dry-run", action="store_true", help="count and show, delete nothing")
        delete.add_argument("--yes", action="store_true", help="do it")
        add_alias(delete)
        clear = self._command.verb(
            "clear", self.clear, "Remove the keys under the alias' prefix, never a whole database."
        )
        clear.add_argument("--yes", action="store_true", help="Do it; without this nothing is removed.")
        add_alias(clear)
        for verb, run, what in (("tag", self.tag, "tags"), ("namespace", self.namespace, "namespaces")):
            parser = self._command.verb(verb, run, f"Invalidate {what}: every entry under them ends at once.")
            parser.add_argument("names", nargs="+", type=asking.name, metavar="NAME")
            add_alias(parser)
        warm = self._command.verb("warm", self.warm, "Load what is decorated with @cached(warm=…).")
        warm.add_argument("names", nargs="*", metavar="NAME", help="of functions; default: all of them")

    def set(self, *, key: str, value: str, ttl: float | None, alias: str, **options: Any) -> None:
        try:
            decoded = json.loads(value)
        except ValueError as error:
            raise Failed(f"the value is no JSON: {error}", "Quote text twice: '\"text\"'.", USAGE) from error
        with answered():
            operations.set_value(alias, key, decoded, ttl_s=ttl, **trace())
        self._command.line(f"{key} is stored")
        self._command.document({"key": key, "ttl_s": ttl})

    def delete(
        self, *, keys: list[str], pattern: str | None, dry_run: bool, yes: bool, alias: str, **options: Any
    ) -> int:
        if bool(keys) == bool(pattern):
            raise Failed("either keys or --pattern", "see: manage.py cache delete --help", USAGE)
        if pattern:
            return self._delete_pattern(alias, pattern, dry_run, yes)
        if dry_run:
            raise Failed("--dry-run is for --pattern", "see: manage.py cache get KEY", USAGE)
        with answered():
            removed = operations.delete(alias, keys, **trace())
        return self._removed(removed)

    def _delete_pattern(self, alias: str, pattern: str, dry_run: bool, yes: bool) -> int:
        if dry_run or not yes:
            self._preview(alias, pattern)
        if dry_run:
            return OK
        if not yes:
            raise Failed("nothing was removed", "Say --yes to remove them, --dry-run to look only.", USAGE)
        with answered():
            removed = operations.delete_pattern(alias, pattern, **trace())
        return self._removed(removed)

    def _preview(self, alias: str, pattern: str) -> None:
        with answered():
            found = operations.preview(alias, pattern)
        for key in found.sample:
            self._command.line(key)
        more = found.count - len(found.sample)
        told = f"{browsing.in_words(found.count, found.is_exact)} match{'es' if found.count == 1 else ''}"
        self._command.line(told + (f", {more:,} more than these" if more > 0 else ""))
        self._command.document({"count": found.count, "is_exact": found.is_exact, "sample": found.sample})

    def clear(self, *, yes: bool, alias: str, **options: Any) -> int:
        if not yes:
            raise Failed(
                "nothing was removed", f"Say --yes to remove every key of the {alias} cache.", code=USAGE
            )
        with answered():
            removed = operations.clear(alias, **trace())
        return self._removed(removed)

    def tag(self, *, names: list[str], alias: str, **options: Any) -> None:
        with answered():
            operations.invalidate_tags(alias, names, **trace())
        self._command.line(f"ended: {', '.join(names)}")
        self._command.document({"tags": names})

    def namespace(self, *, names: list[str], alias: str, **options: Any) -> None:
        with answered():
            for name in names:
                operations.invalidate_namespace(alias, name, **trace())
        self._command.line(f"ended: {', '.join(names)}")
        self._command.document({"namespaces": names})

    def warm(self, *, names: list[str], **options: Any) -> int:
        try:
            wanted = warming.chosen(names)
        except warming.UnknownFunction as error:
            raise Failed(str(error), "see: manage.py cache warm", USAGE) from error
        if not wanted:
            self._command.line("nothing to warm: no function that is imported here has @cached(warm=…)")
            self._command.document([])
            return OK
        found = []
        with self._command.progress("warming", len(wanted)) as advance:
            for name in wanted:
                found.append(warming.warm(name, **trace()))
                advance()
        self._command.table(
            ["function", "loaded", "took", "error"],
            [[one.name, one.loaded, figures.duration(one.took_s), one.error or None] for one in found],
        )
        self._command.document([one._asdict() for one in found])
        return FAILED if any(one.error for one in found) else OK

    def _removed(self, removed: int) -> int:
        self._command.line(f"{browsing.in_words(removed)} removed")
        self._command.document({"removed": removed})
        return OK
