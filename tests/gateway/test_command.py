"""`manage.py gateway` as a process, and its subcommands."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError

from foundation.commands import Failed
from foundation.models import AuditEntry
from gateway.models import ApiKey, Consumer, Route, Target
from tests import warm
from tests.servers import free_port

from .client import Client
from .client import request as request_bytes
from .odd_upstream import running

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "gateway.yaml")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "gateway", *arguments]
    return warm.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=180
    )


def answers(port: int) -> bool:
    try:
        with Client(port) as client:
            found = client.send(request_bytes("/gateway/health", "Connection: close")).answer()
            return found is not None and found.status == 200
    except OSError:
        return False


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def eventually(claim: Any, within_s: float = 120.0) -> bool:
    """A process that starts takes a second of CPU, which a busy machine may not have for a minute."""
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def edge(
    environment: dict[str, str], *arguments: str, is_up: Callable[[int], bool] = answers
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    process = warm.Popen(
        [sys.executable, "manage.py", "gateway", "--port", str(port), *arguments],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert eventually(lambda: process.poll() is not None or is_up(port)), "the edge does not answer"
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_gateway__whole_life__serves_imports_reloads_and_stops_with_a_hung_exchange(
    data_dir: dict[str, str],
) -> None:
    with running() as (odd,), edge(data_dir) as (process, port):
        with Client(port) as client:
            assert client.send(request_bytes("/svc/x")).answer().status == 404  # type: ignore[union-attr]
        text = f'routes: [{{path: /svc, target_url: "http://{odd.name}", auth_required: false, timeout: 60}}]'
        file = Path(data_dir["BRAIN_DATA_DIR"]) / "svc.yaml"
        file.write_text(text)
        assert run("import", str(file), **data_dir).returncode == 0

        def routed() -> bool:
            with Client(port) as client:
                found = client.send(request_bytes("/svc/x")).answer()
                return found is not None and found.status == 200

        assert eventually(routed)
        hung = Client(port).send(request_bytes("/svc/hang"))
        assert eventually(lambda: odd.requests >= 2)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=45)  # the target would hang for a minute
        assert process.returncode == 0, said
        assert "edge_ready" in said
        hung.close()


def test_gateway__workers__figures_of_all_in_one_answer(data_dir: dict[str, str]) -> None:
    with edge(data_dir, "--workers", "2") as (process, port):
        for _ in range(20):
            with Client(port) as client:
                assert client.send(request_bytes("/missing", "Connection: close")).answer() is not None

        def counted() -> bool:
            with Client(port) as client:
                found = client.send(request_bytes("/gateway/metrics", "Connection: close")).answer()
            text = found.body.decode() if found else ""
            workers = text.count("brain_gateway_snapshot_version{")
            return workers == 2 and 'status="4xx",plan=""} 20.0' in text

        assert eventually(counted)
        hung = Client(port).send(b"GET /gateway/health HTTP/1.1\r\n")  # keeps one worker for its whole grace
        process.send_signal(signal.SIGINT)
        assert eventually(lambda: refuses(port) or process.poll() is not None)
        assert process.poll() is None, "new connections waited for old ones"
        hung.close()
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert said.count("edge_stopped") == 2


SUPERVISE = """
import sys, time
from foundation import lifeline
from gateway import supervisor
if "gateway" in sys.argv:  # a worker
    lifeline.follow()
    time.sleep(600)
supervisor.Workers(supervisor.listen("127.0.0.1", {port}), 2).run()
"""


def test_gateway__supervisor_killed__no_worker_keeps_the_port_from_the_next(tmp_path: Path) -> None:
    port = free_port()
    script = tmp_path / "supervise.py"
    script.write_text(SUPERVISE.format(port=port))
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert eventually(lambda: len(children(process.pid)) == 2 and not refuses(port))
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: refuses(port))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_gateway__busy_port__one_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with pytest.raises(Failed, match=f"port {port} on 127.0.0.1 is in use") as caught:
            call_command("gateway", "--port", port)
    assert "--port" in caught.value.hint
    assert caught.value.returncode == 1


def code(*arguments: str) -> int:
    """How `manage.py gateway …` ends, run in this process."""
    try:
        call_command("gateway", *arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    code(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.django_db
def test_validate__diff__apply__exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("validate", EXAMPLE) == 0
    assert code("diff", EXAMPLE) == 3
    assert not Route.objects.exists()
    assert code("apply", EXAMPLE) == 0
    assert code("diff", EXAMPLE) == 0
    assert code("import", EXAMPLE) == 0  # its older name
    said = capsys.readouterr()
    assert (
        "+ route /api/v1/stats  methods: GET, plan: /api/v1/stats, timeout_s: 30, service: tasks_service"
        in said.out
    )
    assert "no difference" in said.out
    assert "nothing to change" in said.out
    assert (
        "line 4: authentication.jwt_secret: a secret that everybody knows (refused in production)" in said.err
    )
    entry = AuditEntry.objects.filter(action="route.create").first()
    assert entry is not None
    assert entry.source == "cli"
    assert "\x1b" not in said.out  # no terminal, no colours


@pytest.mark.django_db
def test_diff__human_and_json__each_field_before_and_after(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code("apply", EXAMPLE)
    file = tmp_path / "changed.yaml"
    file.write_text(Path(EXAMPLE).read_text().replace("burst_limit: 10", "burst_limit: 20", 1))
    capsys.readouterr()
    assert code("--force-color", "diff", str(file)) == 3
    assert capsys.readouterr().out == "\x1b[33m~ plan /api/v1/tasks  burst_limit: 10 -> 20\x1b[0m\n"
    assert as_json(capsys, "diff", str(file)) == [
        {
            "verb": "update",
            "kind": "plan",
            "name": "/api/v1/tasks",
            "before": {"burst_limit": 10},
            "after": {"burst_limit": 20},
        }
    ]
    assert as_json(capsys, "diff", EXAMPLE) == []
    file.write_text("plans: {}")
    assert [change["verb"] for change in as_json(capsys, "diff", str(file), "--prune")] == ["delete"] * 11


@pytest.mark.django_db
def test_apply__broken_file__names_lines_and_keys_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("routes:\n  - {pth: /x}\n")
    with pytest.raises(
        Failed, match=r"line 2: routes\[0\]\.pth: unknown key; did you mean 'path'\?"
    ) as caught:
        call_command("gateway", "apply", str(file))
    assert caught.value.returncode == 1
    assert "Nothing was changed" in caught.value.hint
    file.write_text("routes:\n  - {path: /x, service: s}\n")
    for verb in ("diff", "apply"):
        with pytest.raises(Failed, match=r"line 2: routes\[0\]\.service: there is no service 's'"):
            call_command("gateway", verb, str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Failed, match="it is not UTF-8"):
        call_command("gateway", "validate", str(file))
    with pytest.raises(Failed, match="cannot be read"):
        call_command("gateway", "validate", str(tmp_path / "missing.yaml"))


@pytest.mark.django_db
def test_export__routes__as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code("apply", EXAMPLE)
    rows = as_json(capsys, "routes")
    assert [row["path"] for row in rows] == ["/api/v1/stats", "/api/v1/tasks"]
    assert rows[0]["targets"] == ", ".join(f"http://localhost:800{n}" for n in (1, 2, 3))
    call_command("gateway", "export")
    exported = capsys.readouterr().out
    assert "path: /api/v1/tasks" in exported
    assert as_json(capsys, "export")["yaml"] == exported


@pytest.mark.django_db
def test_history__rollback__human_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code("apply", EXAMPLE)
    target = ("tasks_service", "http://localhost:8001")
    code("target", "drain", *target)
    capsys.readouterr()
    assert code("rollback", "1") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "~ target tasks_service http://localhost:8001  state: draining -> active",
        "version 3: as after version 1",
    ]
    code("rollback", "1")
    assert "nothing to change" in capsys.readouterr().out
    assert as_json(capsys, "rollback", "3") == {"version": 3, "changes": []}
    listed = as_json(capsys, "history", "--limit", "2")
    assert [(row["version"], row["source"], row["back_to"]) for row in listed] == [
        (3, "cli", 1),
        (2, "cli", None),
    ]
    assert as_json(capsys, "history", "2")[0]["after"] == {"state": "draining"}
    code("history", "1")
    assert "+ consumer demo-key" in capsys.readouterr().out
    with pytest.raises(Failed, match="no version 9 yet; the newest is 3"):
        call_command("gateway", "rollback", "9")
    with pytest.raises(Failed, match="version 9 is not kept, or was never made"):
        call_command("gateway", "history", "9")


@pytest.mark.django_db
def test_target__on_off_drain__audited_and_unknown_ones_named(capsys: pytest.CaptureFixture[str]) -> None:
    code("apply", EXAMPLE)
    target = ("tasks_service", "http://localhost:8001")
    for action, state in (("off", "off"), ("drain", "draining"), ("on", "active")):
        assert as_json(capsys, "target", action, *target)["state"] == state
        assert Target.objects.get(url=target[1]).state == state
    assert AuditEntry.objects.filter(action="target.update").count() == 3
    code("target", "on", *target)
    assert "was active already" in capsys.readouterr().out
    with pytest.raises(Failed, match="has no target") as caught:
        call_command("gateway", "target", "on", "tasks_service", "http://localhost:9")
    assert "http://localhost:8001" in caught.value.hint
    with pytest.raises(Failed, match="there is no service 'x'"):
        call_command("gateway", "target", "on", "x", "y")


@pytest.mark.django_db
def test_key__create_list_rotate_revoke__shown_once_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    Consumer.objects.create(name="c", scopes=["read"])
    call_command("gateway", "key", "create", "c", "--days", "1", "--scopes", "read")
    said = capsys.readouterr()
    text = said.out.strip()
    assert text.startswith("brn_")
    assert "only time" in said.err
    rotated = as_json(capsys, "key", "rotate", text.split("_")[1], "--overlap-s", "60")
    assert rotated["consumer"] == "c"
    first, second = as_json(capsys, "key", "list", "c")
    assert (first["state"], second["state"], second["scopes"]) == ("valid", "valid", "read")
    assert first["expires_at"] < second["expires_at"]
    assert text not in str(first)
    code("key", "revoke", first["sha256"])
    assert "is revoked" in capsys.readouterr().out
    assert [row["state"] for row in as_json(capsys, "key")] == ["revoked", "valid"]
    with pytest.raises(Failed, match="revoked or expired"):
        call_command("gateway", "key", "rotate", text)  # pasted as a whole
    with pytest.raises(Failed, match="there is no such key"):
        call_command("gateway", "key", "revoke", "brn_zzz")
    with pytest.raises(Failed, match="does not have the scope 'write'"):
        call_command("gateway", "key", "create", "c", "--scopes", "write")
    with pytest.raises(Failed, match="there is no consumer 'x'"):
        call_command("gateway", "key", "create", "x")


@pytest.mark.django_db
def test_key__begin_that_several_share__refused() -> None:
    consumer = Consumer.objects.create(name="c")
    for end in "ab":
        ApiKey.objects.create(consumer=consumer, digest="12345678" + end * 56)
    for told in ("12345678", "1234567", ""):
        with pytest.raises(Failed, match="several keys begin so" if len(told) == 8 else "no such key"):
            call_command("gateway", "key", "revoke", told)
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


# --- test ------------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_test__request__told_step_by_step_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    code("apply", EXAMPLE)
    capsys.readouterr()
    caplog.set_level("INFO")
    assert code("test", "GET", "/api/v1/tasks") == 1
    assert [record for record in caplog.records if record.name == "gateway.holder"] == []
    said = capsys.readouterr().out
    assert "+ match         /api/v1/tasks: prefix /api/v1/tasks" in said
    assert "x authenticate  neither an API key nor a bearer token" in said
    assert said.endswith("=> refused with 401: neither an API key nor a bearer token\n")
    key = "X-API-Key: demo-secret"
    assert (
        code("test", "get", "http://any.test/api/v1/tasks?x=1", "--header", key, "--client-ip", "10.0.0.1")
        == 0
    )
    said = capsys.readouterr().out
    assert "=> passed on to tasks_service" in said
    assert "60 a minute, 10 at once (plan /api/v1/tasks)" in said
    assert "demo-secret" not in said
    assert code("test", "GET", "/api/v1/tasks", "--consumer", "demo-key") == 0
    told = as_json(capsys, "test", "DELETE", "/api/v1/stats")
    assert (told["status"], told["route"]) == (405, "/api/v1/stats")
    assert {"rule": "match", "result": "ok", "why": "/api/v1/stats: prefix /api/v1/stats"} in told["steps"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["GET", "tasks"], "the URL begins with /"),
        (["GET", "/x", "--header", "nonsense"], "--header nonsense: has no colon"),
        (["GET", "/x", "--header", "a b: c"], "is not the name of a header"),
        (["GET", "/x", "--client-ip", "here"], "is not an IP address"),
    ],
)
def test_test__what_no_client_can_send__usage(arguments: list[str], told: str) -> None:
    with pytest.raises(Failed, match=told) as refused:
        call_command("gateway", "test", *arguments)
    assert (refused.value.returncode, bool(refused.value.hint)) == (2, True)


@pytest.mark.django_db
def test_test__database_away__failed_instead_of_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise OperationalError("gone")

    monkeypatch.setattr("gateway.holder.current_version", broken)
    with pytest.raises(Failed, match="the configuration cannot be loaded"):
        call_command("gateway", "test", "GET", "/x")
