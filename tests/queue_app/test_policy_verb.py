"""`manage.py queue policy`: queues made, changed and deleted on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command

from foundation.commands import USAGE, Failed
from foundation.models import AuditEntry
from queue_app import enqueue
from queue_app.models import Queue

pytestmark = pytest.mark.django_db


def told(capsys: Any, *arguments: str) -> Any:
    call_command("queue", "policy", *arguments, "--json")
    return json.loads(capsys.readouterr().out)


def test_policy__new_changed_back_to_the_default_and_deleted__audited(capsys):
    made = told(capsys, "mails", "--new", "--delivery", "ledger", "--max-retries", "5", "--time-limit", "2.5")
    assert (made["delivery"], made["max_retries"], made["time_limit_s"]) == ("ledger", 5, 2.5)
    changed = told(capsys, "mails", "--delivery", "caller", "--max-retries", "none")
    assert (changed["delivery"], changed["max_retries"], changed["time_limit_s"]) == ("caller", None, 2.5)
    assert told(capsys, "mails") == changed
    with pytest.raises(Failed, match="nothing was deleted"):
        told(capsys, "mails", "--delete")
    assert told(capsys, "mails", "--delete", "--yes") == {"deleted": "mails"}
    assert not Queue.objects.filter(name="mails").exists()
    actions = AuditEntry.objects.filter(source="cli", action__startswith="queue.").order_by("id")
    assert [entry.action.removeprefix("queue.") for entry in actions] == [
        "create", "configure", "configure", "delete",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no such!", "--new"], "cannot name a queue"),
        (["mails", "--new", "--delivery", "broker", "--time-limit", "-1"], "time_limit_s"),
        (["default", "--new"], "there is a queue 'default'"),
        (["default", "--delete", "--max-retries", "1"], "--delete goes alone"),
    ],
)
def test_policy__refused__wrong_usage_and_nothing_made(arguments: list[str], says: str) -> None:
    enqueue("email_queue", {})
    Queue.objects.get_or_create(name="default")
    before = list(Queue.objects.values())
    with pytest.raises(Failed, match=says) as refused:
        call_command("queue", "policy", *arguments)
    assert (refused.value.returncode, list(Queue.objects.values())) == (USAGE, before)


def test_policy__unknown_or_in_use__says_so() -> None:
    with pytest.raises(Failed, match="no queue is called 'nope'"):
        call_command("queue", "policy", "nope", "--max-retries", "1")
    with pytest.raises(Failed, match="is named by a task"):
        call_command("queue", "policy", str(enqueue("email_queue", {}).queue), "--delete", "--yes")
