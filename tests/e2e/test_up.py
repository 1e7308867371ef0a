"""`./brain up` in a clean checkout: every command on its page, the admin in a browser, Ctrl-C, kill -9, and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port

from .browser import page as browser_page
from .conftest import clean_environment, processes_below
from .terminal import Terminal

pytestmark = pytest.mark.slow

READY = "Brain Platform is ready"
INSTALL_TIMEOUT_S = 600


class Platform:
    """`./brain up` on this test's ports; `state` is its up.json."""

    def __init__(self, checkout: Path) -> None:
        self.checkout, self.ports = checkout, (free_port(), free_port())
        self.terminal: Terminal | None = None
        self._token: str | None = None

    def up(self, timeout_s: float = 180) -> str:
        command = ["./brain", "up", "--port", str(self.ports[0]), "--edge-port", str(self.ports[1])]
        self.terminal = Terminal(command, self.checkout, clean_environment())
        return self.terminal.read_until(READY, timeout_s) and self.terminal.read_until("Bearer $TOKEN", 60)

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.checkout / ".brain" / "up.json").read_text())

    def curl(self, command: str) -> str:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def api(self, path: str) -> Any:
        """The answer to the admin. One login is enough: the token endpoint has a limit of its own."""
        state = self.state
        if self._token is None:
            login = json.dumps({key: state["admin"][key] for key in ("username", "password")}).encode()
            typed = {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(state["token_url"], login, typed)) as answer:
                self._token = json.load(answer)["access"]
        request = urllib.request.Request(
            state["site"] + path, headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def job(self, recipient: str) -> dict[str, Any]:
        """The newest job whose mail goes to `recipient`."""
        jobs = [
            self.api(f"/api/v1/queue/jobs/{row['id']}") for row in self.api("/api/v1/queue/jobs")["results"]
        ]
        return next(job for job in jobs if job["payload"]["to"] == recipient)

    def until_state(self, recipient: str, state: str, timeout_s: float = 240) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while (job := self.job(recipient))["state"] != state:
            assert time.monotonic() < deadline, job
            time.sleep(0.3)
        return job


@pytest.fixture(scope="module")
def platform(checkout: Path) -> Iterator[Platform]:
    platform = Platform(checkout)
    yield platform
    if platform.terminal is not None:
        platform.terminal.close()
    deadline = time.monotonic() + 120
    while processes_below(checkout) and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def printed(platform: Platform) -> str:
    return platform.up(INSTALL_TIMEOUT_S)


def commands(printed: str) -> list[str]:
    lines = [line.strip() for line in printed[printed.index(READY) :].splitlines()]
    return [line for line in lines if line.startswith(("curl", "TOKEN="))]


def statuses(answer: str) -> list[int]:
    return [int(code) for code in re.findall(r"^HTTP/1.1 (\d{3})", answer, re.MULTILINE)]


def test_page__every_command__does_what_it_says(platform, printed):
    found = commands(printed)
    assert len(found) == 9
    listed, created, poisoned, stats, refused, health, metrics, token, bearer = found
    assert statuses(platform.curl(listed)) == [200]
    assert statuses(platform.curl(created)) == [201]
    assert statuses(platform.curl(poisoned)) == [201]
    answer = platform.curl(stats)
    assert statuses(answer) == [200]
    assert re.search("^Cache-Status: ", answer, re.MULTILINE | re.IGNORECASE)
    answer = platform.curl(refused)
    assert statuses(answer) == [401]
    assert "application/problem+json" in answer
    assert json.loads(platform.curl(health))["status"] == "ok"
    assert "# TYPE brain_gateway_requests" in platform.curl(metrics)
    assert statuses(platform.curl(f"{token}\n{bearer}")) == [200]


def test_readme__its_commands__work_on_the_running_platform(platform, printed):
    block = re.search(
        r"## Try it.*?```sh\n(.*?)```", (platform.checkout / "README.md").read_text(), re.DOTALL
    )[1]
    doors = {"http://127.0.0.1:8080": platform.state["edge"], "http://127.0.0.1:8000": platform.state["site"]}
    answers = []
    for line in block.strip().splitlines():
        for written, real in doors.items():
            line = line.replace(written, real)
        answers.append(platform.curl(line))
    assert [statuses(answer) for answer in answers] == [[200], [201], [200], [401], [], []]


def test_up_json__ready__is_private_and_complete(platform, printed):
    path = platform.checkout / ".brain" / "up.json"
    assert path.stat().st_mode & 0o777 == 0o600
    state = platform.state
    assert {"site", "edge", "admin", "api_key", "token_url", "pids", "logs"} <= set(state)
    assert set(state["pids"]) == {"up", "web", "edge", "worker", "tasks", "mail"}
    for pid in state["pids"].values():
        os.kill(pid, 0)
    assert all(Path(log).exists() for log in state["logs"].values())


def test_round_robin__twelve_requests_on_both_doors__reach_all_instances(platform, printed):
    state = platform.state
    seen: dict[str, set[str]] = {}
    for door in ("edge", "site"):
        for _ in range(4):
            answer = platform.curl(f"curl -si -H 'X-API-Key: {state['api_key']}' {state[door]}/api/v1/tasks")
            instance = re.search(r"^X-Instance: (\S+)", answer, re.MULTILINE | re.IGNORECASE)
            if instance is None:  # the burst of ten is shared by all tests here
                assert statuses(answer) == [429]
                time.sleep(1.1)
                continue
            seen.setdefault(door, set()).add(instance[1])
    assert len(seen["edge"] | seen["site"]) == 3


def test_limit__a_burst__ends_in_429_with_retry_after_and_ratelimit(platform, printed):
    state = platform.state
    command = f"curl -si -H 'X-API-Key: {state['api_key']}' {state['edge']}/api/v1/tasks"
    # A burst of ten, and one more a second: a machine on which a call takes half of it needs twice as many.
    answers = (platform.curl(command) for _ in range(200))
    refused = next(answer for answer in answers if statuses(answer) != [200])
    assert statuses(refused) == [429]
    for header in ("Retry-After", "RateLimit", "RateLimit-Policy"):
        assert re.search(f"^{header}: ", refused, re.MULTILINE | re.IGNORECASE)
    assert "application/problem+json" in refused


def test_unrouted__edge__is_404_problem_json(platform, printed):
    answer = platform.curl(f"curl -si {platform.state['edge']}/admin/")
    assert statuses(answer) == [404]
    assert "application/problem+json" in answer


def test_request_id__one_post__runs_from_the_gateway_to_the_mail(platform, printed):
    state = platform.state
    request_id, recipient = "e2e-trace-0001", "trace@example.com"
    body = json.dumps({"title": "Trace me", "assignee_email": recipient})
    time.sleep(2.5)  # the burst refills at one a second
    answer = platform.curl(
        f"curl -si -H 'X-API-Key: {state['api_key']}' -H 'X-Request-Id: {request_id}' "
        f"-H 'Content-Type: application/json' -d '{body}' {state['edge']}/api/v1/tasks"
    )
    assert statuses(answer) == [201]
    assert re.search(f"^X-Request-Id: {request_id}", answer, re.MULTILINE | re.IGNORECASE)
    job = platform.until_state(recipient, "COMPLETED")
    assert job["request_id"] == request_id
    mails = [path.read_text() for path in Path(state["demo"]["mail"]).glob("*.eml")]
    assert any(f"X-Request-Id: {request_id}" in mail and recipient in mail for mail in mails)
    for process in ("edge", "tasks", "worker"):
        log = Path(state["logs"][process])
        deadline = time.monotonic() + 60  # the edge writes its lines down once a second
        while request_id not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert request_id in log.read_text(), process


def test_admin__dead_job__is_found_understood_mended_and_replayed_in_the_browser(platform, printed):
    """The walk of docs/queue.md."""
    dead = platform.until_state("poison@example.com", "DEAD_LETTER")
    assert dead["attempt"] == 4  # one run and three retries
    state = platform.state
    with browser_page() as page:
        page.goto(f"{state['site']}/admin/")
        page.fill("input[name=username]", state["admin"]["username"])
        page.fill("input[name=password]", state["admin"]["password"])
        page.click("button[type=submit], input[type=submit]")
        page.get_by_role("link", name="Dead letters").first.click()
        page.get_by_role("link", name="SMTPRecipientsRefused").click()
        page.get_by_role("heading", name="Timeline").wait_for()
        page.get_by_role("link", name="Edit payload").click()
        payload = page.get_by_label("JSON.")
        payload.fill(payload.input_value().replace("poison@", "mended@"))
        page.get_by_role("button", name="Save and replay").click()
        page.get_by_text("Changed: to. Replayed").wait_for()
    done = platform.until_state("mended@example.com", "COMPLETED")
    assert done["id"] == dead["id"]


def test_ctrl_c__running_platform__stops_orderly_and_leaves_nothing(platform, printed):
    terminal = platform.terminal
    pids = platform.state["pids"]
    terminal.interrupt()
    assert terminal.wait(timeout_s=120) == 0
    text = terminal.text
    order = [text.index(f"{name} stopped") for name in ("edge", "worker", "mail")] + [
        text.index("Valkey stopped")
    ]
    assert order == sorted(order)
    assert processes_below(platform.checkout) == {}
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_second_start__same_directory__installs_nothing_and_keeps_all_data(platform, printed):
    password = platform.state["admin"]["password"]
    again = platform.up()
    assert "Installing" not in again
    assert platform.state["admin"]["password"] == password
    assert platform.job("trace@example.com")["state"] == "COMPLETED"


def test_second_up__while_running__says_already_running(platform, printed):
    done = subprocess.run(
        ["./brain", "up"], cwd=platform.checkout, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"already running: pid {platform.state['pids']['up']}" in done.stderr


def test_kill_9__supervisor__leaves_nothing_behind(platform, printed):
    os.kill(platform.state["pids"]["up"], signal.SIGKILL)
    deadline = time.monotonic() + 120
    while left := processes_below(platform.checkout):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    platform.terminal.close()
    platform.terminal = None
