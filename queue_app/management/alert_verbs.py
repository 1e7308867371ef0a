"""`manage.py queue alerts …`: list, check, rules, set, delete, silences, silence, unsilence, test, notices, resend."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import Q

from foundation.commands import DEGRADED, OK, USAGE, BrainCommand, Failed
from queue_app import alert_rules, alerting, alerts_told, clock, notice_channels, notices, silences
from queue_app.alerts import Condition, State
from queue_app.models import Alert, AlertRule, Notice, Silence

from .selecting import given

_SHOWN = 50
_SPAN = re.compile(r"([1-9]\d{0,6})([smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NUMBERS = {
    "window_s": "seconds that are looked back on",
    "at_least": "runs; fewer of them count as calm",
    "for_s": "seconds that it has to hold before it fires",
    "clear_s": "seconds of calm before it is over",
    "repeat_s": "seconds between reminders; 0: none",
}
_RULE_COLUMNS = ["name", *alert_rules.EDITABLE]


class AlertVerbs:
    """The part of `manage.py queue` that speaks of alerts. trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, str]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        parser = self._command.verb(
            "alerts",
            self.list,
            "What fires; exits 3 when something does. Example: manage.py queue alerts silence --queue mail --for 2h --reason …",
        )
        actions = parser.add_subparsers(title="actions", metavar="", dest="action")
        add = self._command.action
        listing = add(actions, "list", self.list, "What fires or is about to. Exits 3 when something fires.")
        listing.add_argument("--all", action="store_true", help=f"the last {_SHOWN}, what is over too")
        add(
            actions,
            "check",
            self.check,
            "Look at the rules now and tell the channels; then as list. For cron.",
        )
        add(actions, "rules", self.rules, "The rules.")
        setting = add(actions, "set", self.set, "Make a rule, or change some of its fields.")
        self._fields(setting)
        delete = add(actions, "delete", self.delete, "Delete a rule; its history stays.")
        delete.add_argument("name", metavar="RULE")
        delete.add_argument("--yes", action="store_true", help="Do it; without this nothing is deleted.")
        add(actions, "silences", self.silences, "The silences that are not over.")
        silence = add(actions, "silence", self.silence, "Tell nobody for a time.")
        silence.add_argument("--rule", type=given, help="of this rule; default: of every rule")
        silence.add_argument(
            "--queue", dest="only", type=given, help="of this queue; default: of every queue"
        )
        silence.add_argument("--for", dest="span", required=True, metavar="SPAN", help="30m, 2h, 1d")
        silence.add_argument("--reason", required=True)
        ending = add(actions, "unsilence", self.unsilence, "End silences.")
        ending.add_argument("ids", nargs="+", type=int, metavar="ID")
        test = add(actions, "test", self.test, "Send a test notice to a channel, or list the channels.")
        test.add_argument("channel", nargs="?")
        sent = add(actions, "notices", self.notices, f"The last {_SHOWN} notices, and what came of them.")
        sent.add_argument("--given-up", action="store_true", help="only what no channel has taken")
        again = add(actions, "resend", self.resend, "Send again what was given up.")
        again.add_argument("channel", nargs="?", help="to this channel; default: to every one")

    def list(self, **options: Any) -> int:
        shown = Alert.objects.all()
        if not options.get("all"):
            shown = shown.exclude(state=State.RESOLVED)
        rows = list(shown[:_SHOWN])
        columns = ["id", "state", "name", "queue", "words", "since", "resolved_at", "notices"]
        self._command.table(columns, [[getattr(row, column) for column in columns] for row in rows])
        firing = Alert.objects.filter(state=State.FIRING).count()  # more than are shown, maybe
        last = alerts_told.looked_at()
        looked = "never" if last is None else f"{(clock.now() - last).total_seconds():.0f} s ago"
        self._command.line(f"{firing} firing; last looked at: {looked}", style="red" if firing else "")
        return DEGRADED if firing else OK

    def check(self, **options: Any) -> int:
        alerting.look()
        notices.send_due(for_s=10)
        return self.list(**options)

    def rules(self, **options: Any) -> None:
        rows = AlertRule.objects.all()
        self._command.table(
            _RULE_COLUMNS, [[getattr(row, column) for column in _RULE_COLUMNS] for row in rows]
        )

    def set(self, *, name: str, **options: Any) -> None:
        given = {key: options[key] for key in alert_rules.EDITABLE if options.get(key) is not None}
        given.pop("queue", None)
        if options["only"] is not None:
            given["queue"] = options["only"]
        row = AlertRule.objects.filter(name=name).first()
        act, who = (alert_rules.change, row) if row else (alert_rules.create, name)
        missing = [f"--{key}" for key in ("condition", "threshold") if not row and key not in given]
        if missing:
            raise Failed(
                f"a new rule needs {' and '.join(missing)}", "see: manage.py queue alerts set --help", USAGE
            )
        done = _acted(act, who, **given, **self._trace())
        self._command.document({column: getattr(done, column) for column in _RULE_COLUMNS})
        self._command.line(f"{name}: {'changed' if row else 'made'}")

    def delete(self, *, name: str, yes: bool, **options: Any) -> None:
        row = _rule(name)
        if not yes:
            raise Failed("nothing was deleted", f"Say --yes to delete the rule {name!r}.", code=USAGE)
        _acted(alert_rules.delete, row, **self._trace())
        self._command.document({"deleted": name})
        self._command.line(f"{name}: deleted")

    def silences(self, **options: Any) -> None:
        columns = ["id", "rule", "queue", "until", "reason", "actor"]
        rows = Silence.objects.filter(until__gt=clock.now()).select_related("rule")
        self._command.table(
            columns,
            [
                [row.id, row.rule and row.rule.name, row.queue, row.until, row.reason, row.actor]
                for row in rows
            ],
        )

    def silence(self, *, rule: str | None, only: str | None, span: str, reason: str, **options: Any) -> None:
        row = _acted(
            silences.silence,
            until=_acted(silences.after, _span_s(span)),
            reason=reason,
            rule=_rule(rule) if rule else None,
            queue=only or "",
            **self._trace(),
        )
        self._command.document({"id": row.pk, "until": row.until})
        self._command.line(f"silence {row.pk}: {row}, until {row.until:%Y-%m-%d %H:%M:%S} UTC")

    def unsilence(self, *, ids: Any, **options: Any) -> None:
        rows = {row.pk: row for row in Silence.objects.filter(pk__in=ids)}
        missing = [str(id) for id in ids if id not in rows]
        if missing:
            raise Failed(f"there is no silence {', '.join(missing)}", "see: manage.py queue alerts silences")
        with transaction.atomic():  # all of them or none
            for row in rows.values():
                _acted(silences.end, row, **self._trace())
        self._command.document({"ended": sorted(rows)})
        self._command.line(f"{len(rows)} ended")

    def test(self, *, channel: str | None, **options: Any) -> None:
        if channel is None:
            known = [[one.name] for one in notice_channels.channels()]
            self._command.table(["channel"], known)
            if not known:
                self._command.line(
                    "nobody is told: set BRAIN_ALERT_WEBHOOKS or BRAIN_ALERT_MAIL", style="yellow"
                )
            return
        try:
            row = notices.test(channel, **self._trace())
        except ValueError as error:
            raise Failed(str(error), "see: manage.py queue alerts test", USAGE) from error
        except notice_channels.NotSent as error:
            raise Failed(f"{channel} did not take it: {error}", "docs/queue-operating.md#alerts") from error
        self._command.document({"notice": str(row.id), "channel": channel})
        self._command.line(f"{channel} took notice {row.id}")

    def notices(self, *, given_up: bool, **options: Any) -> None:
        rows = Notice.objects.filter(notices.GIVEN_UP if given_up else Q())
        columns = ["id", "created_at", "channel", "status", "attempts", "next_at", "last_error"]
        shown = [[getattr(row, column) for column in columns] for row in rows.defer("body")[:_SHOWN]]
        self._command.table(columns, shown)

    def resend(self, *, channel: str | None, **options: Any) -> None:
        rows = Notice.objects.filter(channel=channel) if channel else Notice.objects.all()
        count = notices.send_again(rows, **self._trace())
        self._command.document({"resent": count})
        self._command.line(f"{count} will be sent again, by whoever looks at the rules")

    def _fields(self, parser: Any) -> None:
        parser.add_argument("name", metavar="RULE")
        parser.add_argument("--condition", choices=[*map(str, Condition)], help="what is looked at")
        parser.add_argument(
            "--threshold",
            type=float,
            metavar="N",
            help="from which value on; docs/queue-operating.md#alerts says of what",
        )
        parser.add_argument("--queue", dest="only", help='this one alone; "": every one')
        for name, told in _NUMBERS.items():
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            parser.add_argument(
                option, type=int, dest=name, metavar="S" if name.endswith("_s") else "N", help=told
            )
        switch = parser.add_mutually_exclusive_group()
        switch.add_argument("--on", action="store_true", dest="enabled", default=None, help="look again")
        switch.add_argument(
            "--off", action="store_false", dest="enabled", default=None, help="keep the rule, and do not look"
        )


def _span_s(text: str) -> float:
    found = _SPAN.fullmatch(text)
    if not found:
        raise Failed(f"{text!r} is not a span like 30m, 2h or 1d", "nothing was changed", USAGE)
    return int(found[1]) * _UNITS_S[found[2]]


def _rule(name: str) -> AlertRule:
    row = AlertRule.objects.filter(name=name).first()
    if row is None:
        raise Failed(f"there is no rule {name!r}", "see: manage.py queue alerts rules")
    return row


def _acted(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return act(*args, **kwargs)
    except (alert_rules.BadRule, silences.BadSilence) as error:
        raise Failed(str(error), "nothing was changed; see: manage.py queue alerts --help", USAGE) from error
    except (alert_rules.Gone, silences.Over) as error:
        raise Failed(str(error), "nothing was changed") from error
