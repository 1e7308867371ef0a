"""`manage.py queue status|dead|replay|discard`: by call_command, and as a process for its exit codes and streams."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from foundation.commands import DEGRADED, FAILED, OK, USAGE, Failed
from foundation.models import AuditEntry
from queue_app import enqueue, queues, workers
from queue_app.models import Job, Queue, Silence
from queue_app.selection import FIELDS
from queue_app.states import State
from tests import warm

from .conftest import ROOT, environment
from .dead_letters import job, standing

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """run("dead", "--json") → (exit code, what it wrote to stdout; as JSON when that was asked for)."""

    def call(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = OK
        try:
            call_command("queue", *arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out = capsys.readouterr().out
        return code, json.loads(out) if "--json" in arguments else out

    return call


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "queue", *arguments]
    return warm.run(
        command, cwd=ROOT, env=os.environ | environment(), capture_output=True, text=True, timeout=120
    )


def long_ago() -> Any:
    return timezone.now() - timedelta(seconds=90)


# --- status --------------------------------------------------------------------------------------------------------------
def test_status__jobs_wait_and_no_worker__degraded_until_one_lives_or_the_queue_is_paused(run):
    waiting = job(State.PENDING, created_at=long_ago())
    job()
    code, told = run("status", "--json")
    mail = told["queues"][waiting.queue]
    assert (code, told["workers"]) == (DEGRADED, 0)
    assert (mail["PENDING"], mail["DEAD_LETTER"], mail["paused"]) == (1, 1, False)
    assert 90 <= mail["oldest_due_s"] < 3600
    queues.configure(waiting.queue, actor=None, source="system", paused=True)
    assert run("status")[0] == OK
    queues.configure(waiting.queue, actor=None, source="system", paused=False)
    workers.register(pool="threads", concurrency=1, queues=[waiting.queue])
    code, told = run("status", "--json")
    assert (code, told["workers"]) == (OK, 1)


def test_status__as_text__a_line_a_queue_and_the_workers(run):
    job()
    code, text = run("status")
    assert code == OK
    (line,) = [line for line in text.splitlines() if line.startswith("email_queue")]
    assert line.split()[1:7] == ["0", "0", "0", "0", "1", "0"]
    assert "0 workers alive" in text


def test_status__nothing_at_all__ok(run):
    assert run("status", "--json") == (OK, {"queues": {}, "workers": 0})


# --- dead ----------------------------------------------------------------------------------------------------------------
def test_dead__by_queue_and_limit__newest_first(run):
    queues.create_queue("other")
    dead = [job(), job(queue="other"), job()]
    job(State.COMPLETED)
    _, rows = run("dead", "--json")
    assert [row["id"] for row in rows] == [str(one.pk) for one in reversed(dead)]
    assert rows[0]["error"] == "OSError: refused"
    assert (rows[0]["task"], rows[0]["attempts"]) == ("tasks_service.send_email", "4 of 4")
    assert [row["queue"] for row in run("dead", "--queue", "other", "--json")[1]] == ["other"]
    assert [row["id"] for row in run("dead", "--limit", "1", "--json")[1]] == [str(dead[2].pk)]
    assert run("dead", "--queue", "no_such", "--json") == (OK, [])


def test_dead__as_text__ids_whole_and_the_payload_not_told(run):
    dead = job()
    code, text = run("dead")
    assert code == OK
    assert str(dead.pk) in text
    assert "a@example.com" not in text


# --- replay and discard --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "done", "after"), [("replay", "replayed", "PENDING"), ("discard", "discarded", "CANCELLED")]
)
def test_act__ids__those_alone_audited_by_the_login(run, verb, done, after):
    dead, kept = [job(), job()], job()
    code, told = run(verb, *(str(one.pk) for one in dead), "--json")
    assert (code, told) == (OK, {done: 2, "refused": []})
    assert standing(*dead, kept) == [after, after, "DEAD_LETTER"]
    entries = AuditEntry.objects.filter(action=f"job.{verb}")
    assert {entry.target_id for entry in entries} == {str(one.pk) for one in dead}
    assert {(entry.actor, entry.source) for entry in entries} == {(getpass.getuser(), "cli")}


@pytest.mark.parametrize(
    ("verb", "done", "after"), [("replay", "replayed", "PENDING"), ("discard", "discarded", "CANCELLED")]
)
def test_act__all_of_a_queue__no_other_one(run, verb, done, after):
    queues.create_queue("other")
    dead, elsewhere, finished = job(), job(queue="other"), job(State.COMPLETED)
    assert run(verb, "--all", "--queue", "email_queue", "--json")[1] == {done: 1, "refused": []}
    assert standing(dead, elsewhere, finished) == [after, "DEAD_LETTER", "COMPLETED"]
    assert run(verb, "--all")[1].strip() == f"1 {done}"
    assert standing(elsewhere, finished) == [after, "COMPLETED"]
    assert run(verb, "--all", "--json") == (OK, {done: 0, "refused": []})


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_act__some_refused__the_others_done_and_exit_code_1(run, verb):
    dead, finished, missing = job(), job(State.COMPLETED), uuid.uuid4()
    code, told = run(verb, str(finished.pk), str(missing), str(dead.pk), "--json")
    assert code == FAILED
    assert told["refused"] == [
        f"job {finished.pk} is COMPLETED, not DEAD_LETTER",
        f"there is no job {missing}",
    ]
    assert standing(finished) == ["COMPLETED"]
    assert standing(dead) != ["DEAD_LETTER"]
    code, text = run(verb, str(finished.pk))
    assert (code, f"job {finished.pk} is COMPLETED" in text) == (FAILED, True)


def test_act__dry_run_of_ids__tells_and_exits_as_it_would_and_changes_nothing(run):
    dead, finished, missing = job(), job(State.COMPLETED), uuid.uuid4()
    code, told = run("replay", str(dead.pk), str(finished.pk), str(missing), "--dry-run", "--json")
    refused = [f"job {finished.pk} is COMPLETED", f"there is no job {missing}"]
    assert (code, told) == (FAILED, {"would": 1, "refused": refused})
    assert run("replay", str(dead.pk), "--dry-run", "--json") == (OK, {"would": 1, "refused": []})
    assert run("cancel", str(dead.pk), "--dry-run")[0] == FAILED
    assert standing(dead, finished) == ["DEAD_LETTER", "COMPLETED"]
    assert "1 jobs at most" in run("replay", "--all", "--arguments", "to=nobody", "--dry-run")[1]


def test_act__all_of_them_and_one_not_on_record__says_what_was_passed_over(run):
    job()
    job(payload={"not_kept": "too large"})
    assert run("replay", "--all", "--json") == (OK, {"replayed": 1, "refused": [], "passed_over": 1})
    assert "1 passed over: " in run("replay", "--all")[1]


@pytest.mark.parametrize("verb", ["replay", "discard"])
@pytest.mark.parametrize("choice", [[], ["ID", "--all"], ["ID", "--queue", "email_queue"], ["--queue", "x"]])
def test_act__no_clear_choice__wrong_usage_and_nothing_done(verb, choice):
    dead = job()
    with pytest.raises(Failed) as failed:
        call_command("queue", verb, *(str(dead.pk) if word == "ID" else word for word in choice))
    assert failed.value.returncode == USAGE
    assert "manage.py queue list" in failed.value.hint
    assert standing(dead) == ["DEAD_LETTER"]


@pytest.mark.parametrize("option", [f"--{name.replace('_', '-')}" for name in FIELDS])
@pytest.mark.parametrize("verb", ["replay", "cancel", "list"])
def test_act__empty_option__wrong_usage_and_not_all_jobs(run, verb, option):
    dead, waiting = job(), enqueue("email_queue", {})
    with pytest.raises(CommandError, match=f"{option}: is empty"):
        run(verb, *([] if verb == "list" else ["--all"]), option, "")
    assert standing(dead, waiting) == ["DEAD_LETTER", "PENDING"]


@pytest.mark.parametrize(
    "arguments",
    [["enqueue", "email_queue", "--queue", ""], ["failures", "--queue", ""], ["stats", "--queue", ""],
     ["alerts", "silence", "--queue", "", "--for", "1h", "--reason", "x"],
     ["alerts", "silence", "--rule", "", "--for", "1h", "--reason", "x"]],
)  # fmt: skip
def test_queue__empty_name__wrong_usage_and_nothing_done(run, arguments):
    with pytest.raises(CommandError, match="is empty"):
        run(*arguments)
    assert not Job.objects.exists()
    assert not Silence.objects.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "not-an-id"],
        ["dead", "--limit", "0"],
        ["dead", "--limit", "x"],
        ["revive"],
        ["list", "--limit", "99999999999999999999"],
    ],
)
def test_queue__bad_argument__wrong_usage(arguments):
    with pytest.raises(CommandError):
        call_command("queue", *arguments)


# --- as a process --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_process__each_outcome__its_exit_code_and_clean_streams():
    dead, waiting = job(), job(State.PENDING, created_at=long_ago())

    status = process("status", "--json")
    assert status.returncode == DEGRADED, status.stderr
    assert json.loads(status.stdout)["queues"]["email_queue"]["PENDING"] == 1

    replayed = process("replay", str(dead.pk), "--json")
    assert (replayed.returncode, json.loads(replayed.stdout)) == (OK, {"replayed": 1, "refused": []})
    assert standing(dead) == ["PENDING"]

    refused = process("discard", str(waiting.pk))
    assert refused.returncode == FAILED
    assert f"job {waiting.pk} is PENDING, not DEAD_LETTER" in refused.stdout
    assert "Traceback" not in refused.stderr

    wrong = process("replay", "not-an-id", "--json")
    assert (wrong.returncode, wrong.stdout) == (USAGE, "")
    assert "not-an-id" in json.loads(wrong.stderr)["error"]


# --- failures and replays at a rate ------------------------------------------------------------------------------------
def test_failures_and_replay_at_a_rate__counted_first_then_a_row_of_its_own(run):
    dead = job(fingerprint="0123456789abcdef")
    (group,) = run("failures", "--json")[1]
    assert (group["fingerprint"], group["jobs"]) == ("0123456789abcdef", 1)
    asked = ("replay", "--all", "--fingerprint", group["fingerprint"], "--rate", "5")
    assert run(*asked, "--dry-run", "--json") == (OK, {"would": 1})
    assert run("discard", "--all", "--dry-run", "--json") == (OK, {"would": 1})
    assert run("bulk", "--json") == (OK, [])
    assert run(*asked, "--yes", "--json")[1]["wanted"] == 1
    assert [row["wanted"] for row in run("bulk", "--json")[1]] == [1]
    assert standing(dead) == ["DEAD_LETTER"]  # a worker does it


def test_failures__more_than_the_limit__says_so(run):
    for number in range(3):
        job(fingerprint=f"{number:016}")
    assert "the 2 most frequent ones" in run("failures", "--limit", "2")[1]
    assert "most frequent" not in run("failures", "--limit", "3")[1]
    assert len(run("failures", "--limit", "2", "--json")[1]) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--rate", "5"], USAGE),
        (["--all", "--rate", "0"], USAGE),
        (["--all", "--rate", "5", "--task", "x"], FAILED),
    ],
)
def test_replay__bad_rate_or_nothing_dead__says_so(run, arguments, code):
    job()
    with pytest.raises(Failed) as refused:
        run("replay", *arguments)
    assert refused.value.returncode == code
    assert run("bulk", "--json") == (OK, [])


# --- jobs ---------------------------------------------------------------------------------------------------------------
def test_list__filters__as_the_api_has_them_and_bad_ones_are_usage(run):
    dead, other = job(), job(State.PENDING, tenant="acme")
    assert [row["id"] for row in run("list", "--state", "DEAD_LETTER", "--json")[1]] == [str(dead.pk)]
    assert [row["id"] for row in run("list", "--tenant", "acme", "--since", "1h", "--json")[1]] == [
        str(other.pk)
    ]
    assert run("list", "--arguments", "to=nobody", "--json")[1] == []
    with pytest.raises(Failed, match="--since 'soon' is not") as failed:
        run("list", "--since", "soon")
    assert failed.value.returncode == USAGE


def test_enqueue__by_hand__stored_with_its_options_and_audited(run):
    arguments = [
        "--payload",
        '{"to": "a@example.com"}',
        "--tag",
        "red",
        "--tag",
        "blue",
        "--unique",
        "k",
        "--delay",
        "60",
    ]
    told = run("enqueue", "email_queue", *arguments, "--json")[1]
    made = Job.objects.get(id=told["id"])
    assert (made.payload, made.tags, made.run_after is not None) == (
        {"to": "a@example.com"},
        ("blue", "red"),
        True,
    )
    assert run("enqueue", "email_queue", *arguments, "--json")[1] == {"id": told["id"], "is_duplicate": True}
    entry = AuditEntry.objects.filter(action="job.enqueue").first()
    assert (entry.source, entry.after["queue"]) == ("cli", "email_queue")
    assert "example.com" not in str(entry.after)


@pytest.mark.parametrize(
    "arguments",
    [["no_such_task"], ["email_queue", "--payload", "[1]"], ["email_queue", "--payload", "@/no/such/file"],
     ["email_queue", "--payload", "{"], ["email_queue", "--priority", "10"], ["email_queue", "--tag", ""]],
)  # fmt: skip
def test_enqueue__bad_input__usage_and_nothing_stored(run, arguments):
    with pytest.raises(Failed) as failed:
        run("enqueue", *arguments)
    assert failed.value.returncode == USAGE
    assert not Job.objects.exists()


def test_edit__dead_job__mended_and_what_is_refused_changes_nothing(run):
    dead = job()
    changes = run("edit", str(dead.pk), "--payload", '{"to": "b@example.com"}', "--json")[1]["changes"]
    assert changes["to"] == {"before": "a@example.com", "after": "b@example.com"}
    waiting = job(State.PENDING)
    with pytest.raises(Failed, match="not DEAD_LETTER"):
        run("edit", str(waiting.pk), "--payload", "{}")
    with pytest.raises(Failed, match="there is no job"):
        run("edit", str(uuid.uuid4()), "--payload", "{}")


def test_retry__waits_for_its_retry__due_now_and_others_are_refused(run):
    later = job(State.FAILED, run_after=timezone.now() + timedelta(hours=1))
    assert run("retry", str(later.pk), "--json") == (OK, {"due_now": 1, "refused": []})
    later.refresh_from_db()
    assert later.run_after <= timezone.now()
    code, told = run("retry", str(later.pk), str(job().pk), "--json")
    assert (code, len(told["refused"])) == (FAILED, 2)


def test_cancel__all_of_a_selection__here_and_now(run):
    mine, other, over = (
        job(State.PENDING, tenant="a"),
        job(State.PENDING, tenant="b"),
        job(State.COMPLETED, tenant="a"),
    )
    assert run("cancel", "--all", "--tenant", "a", "--dry-run", "--json") == (OK, {"would": 1})
    assert run("cancel", "--all", "--tenant", "a", "--json") == (OK, {"cancelled": 1, "refused": []})
    assert standing(mine, other, over) == ["CANCELLED", "PENDING", "COMPLETED"]


def test_pause_resume_purge__a_queue__audited_and_an_unknown_one_is_refused(run):
    waiting, dead = job(State.PENDING), job()
    assert run("pause", "email_queue", "--json") == (OK, {"paused": ["email_queue"]})
    assert Queue.objects.get(name="email_queue").paused
    with pytest.raises(Failed, match="no queue is called"):
        run("resume", "email_queue", "no_such_queue")
    assert Queue.objects.get(name="email_queue").paused
    run("resume", "email_queue")
    assert not Queue.objects.get(name="email_queue").paused
    assert run("purge", "email_queue", "--dry-run", "--json") == (OK, {"would": 1})
    assert run("purge", "email_queue", "--yes", "--json") == (OK, {"cancelled": 1, "refused": []})
    assert standing(waiting, dead) == ["CANCELLED", "DEAD_LETTER"]
    actions = set(AuditEntry.objects.filter(source="cli").values_list("action", flat=True))
    assert {"queue.configure", "bulk.cancel"} <= actions


def test_bulk__stop_of_none__says_so(run):
    with pytest.raises(Failed, match="there is no bulk action 0192"):
        run("bulk", "--stop", "01926f3e-0000-7000-8000-000000000000")


def test_bulk__stop__goes_no_further(run):
    job()
    started = run("replay", "--all", "--rate", "1", "--yes", "--json")[1]["bulk_action"]
    assert run("bulk", "--stop", started, "--json")[1][0]["finished_at"] is not None
    with pytest.raises(Failed, match="over already"):
        run("bulk", "--stop", started)


# --- asked first ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("answer", ["n", "", None], ids=["no", "nothing", "Ctrl-D"])
def test_replay_all__on_a_terminal_and_not_sure__changes_nothing(run, monkeypatch, answer):
    dead = job()

    def ask(question: str) -> str:
        assert question == "1 jobs to replay. Go on? [y/N] "
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(Failed, match="nothing was changed"):
        run("replay", "--all")
    assert standing(dead) == [State.DEAD_LETTER]
    assert run("replay", "--all", "--yes")[0] == OK
    assert standing(dead) == [State.PENDING]
