"""The customer's four commands in a clean checkout, after `pip install -r requirements.txt` and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port

from .conftest import clean_environment, processes_below

pytestmark = pytest.mark.slow

ENQUEUE = """
import json

from queue_app import enqueue

from examples.tasks_service.demo import seed
seed()
job = enqueue("email_queue", {"to": "a@example.com", "subject": "hello", "task_id": 1})
print(json.dumps(str(job.pk)))
"""


@pytest.fixture(scope="module")
def python(checkout: Path) -> str:
    base = [sys.executable, "-m", "venv", str(checkout / ".venv")]
    subprocess.run(base, check=True, env=clean_environment())
    path = str(checkout / ".venv" / "bin" / "python")
    install = [path, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.txt"]
    subprocess.run(install, check=True, cwd=checkout, env=clean_environment())
    return path


@contextmanager
def running(
    command: list[str], cwd: Path, log: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition, what: str, timeout_s: float = 180.0):
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.1)


def fetch(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, answer.read().decode()


def test_four_commands__clean_checkout__a_job_runs_and_the_last_one_out_stops_valkey(
    checkout, python, tmp_path
):
    env = clean_environment(DJANGO_SUPERUSER_PASSWORD="a long passphrase")
    manage = [python, "manage.py"]

    def run(*arguments: str, **options) -> str:
        done = subprocess.run(
            [*manage, *arguments], cwd=checkout, env=env, capture_output=True, text=True, **options
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("migrate")
    user = ["--noinput", "--username", "ada", "--email", "ada@example.com"]
    run("createsuperuser", *user)
    assert (checkout / ".brain").stat().st_mode & 0o777 == 0o700
    assert (checkout / ".brain" / "secret_key").stat().st_mode & 0o777 == 0o600

    port = free_port()
    celery = [str(Path(python).with_name("celery")), "-A", "brain_project", "worker"]
    web_log, worker_log = tmp_path / "web.log", tmp_path / "worker.log"
    mail = [
        python,
        "-m",
        "examples.mail_sink",
        "--port",
        str(mail_port := free_port()),
        "--dir",
        str(tmp_path / "mail"),
    ]
    env["BRAIN_SMTP_PORT"] = str(mail_port)
    with (
        running([*manage, "runserver", f"127.0.0.1:{port}"], checkout, web_log, env),
        running(celery, checkout, worker_log, env),
        running(mail, checkout, tmp_path / "mail.log", env),
    ):
        site = f"http://127.0.0.1:{port}"
        until(lambda: fetch(f"{site}/livez")[0] == 200, "runserver answers")
        status, page = fetch(f"{site}/admin/login/")
        assert status == 200
        assert "Brain Platform" in page
        until(lambda: "ready." in worker_log.read_text(errors="replace"), "the worker is ready")
        job = json.loads(run("shell", "--verbosity", "0", "-c", ENQUEUE).splitlines()[-1])
        state = f"from queue_app.models import Job; print(Job.objects.get(pk={job!r}).state)"
        until(lambda: "COMPLETED" in run("shell", "--verbosity", "0", "-c", state), f"job {job} runs")
        assert len(list((tmp_path / "mail").glob("*.eml"))) == 1
    until(lambda: not processes_below(checkout), "Valkey stops with its last user")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"BRAIN_ENV": "production"},
            "BRAIN_ENV=production needs BRAIN_SECRET_KEY, BRAIN_JWT_SECRET, DATABASE_URL, REDIS_URL",
        ),
        ({"BRAIN_ENV": "prod"}, "BRAIN_ENV='prod' is not known: use one of development, production"),
        ({"DATABASE_URL": "oracle://x/y"}, "DATABASE_URL"),
    ],
)
def test_manage__wrong_environment__is_one_line_and_exit_code_1(checkout, python, variables, said):
    done = subprocess.run(
        [python, "manage.py", "check"],
        cwd=checkout,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_dir__elsewhere__moves_everything(checkout, python, tmp_path):
    env = clean_environment(BRAIN_DATA_DIR=str(tmp_path / "data"))
    subprocess.run([python, "manage.py", "migrate", "-v0"], cwd=checkout, env=env, check=True)
    assert {"db.sqlite3", "secret_key", "jwt_secret"} <= {path.name for path in (tmp_path / "data").iterdir()}
