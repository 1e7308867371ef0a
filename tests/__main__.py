"""`./brain test`: everything that must hold before a change lands, in one command; CI runs the same.

    ruff → mypy → import-linter → makemigrations --check → check --deploy → pytest (unit, contract, e2e)

Arguments go to pytest and leave the other steps out: `./brain test tests/gateway -k breaker`. `./brain test --slow` runs
what is left out otherwise, because it takes long and a drill proves the same. BRAIN_TEST_PROFILE=deep takes more time
over the rest: depth.py.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
PACKAGES = [
    "brain_project",
    "foundation",
    "orm_app",
    "cache_app",
    "queue_app",
    "gateway",
    "examples",
    "benchmarks",
    "tests",
]


@dataclass(frozen=True)
class Step:
    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


def steps(scratch: str) -> list[Step]:
    manage = [sys.executable, "manage.py"]
    return [
        Step("ruff", [str(BIN / "ruff"), "check", "."]),
        Step("format", [str(BIN / "ruff"), "format", "--check", "."]),
        Step("mypy", [str(BIN / "mypy")]),
        Step("import-linter", [str(BIN / "lint-imports")]),
        Step("migrations", [*manage, "makemigrations", "--check", "--dry-run"], {"BRAIN_DATA_DIR": scratch}),
        Step("check", [*manage, "check"], {"BRAIN_DATA_DIR": scratch}),
        Step(
            "check --deploy",
            [*manage, "check", "--deploy", "--fail-level", "WARNING"],
            production_like(scratch),
        ),
    ]


def production_like(scratch: str) -> dict[str, str]:
    """A production environment with nothing missing; checks connect to none of it."""
    return {
        "BRAIN_ENV": "production",
        "BRAIN_SECRET_KEY": secrets.token_urlsafe(64),
        "BRAIN_JWT_SECRET": secrets.token_urlsafe(64),
        "BRAIN_ALLOWED_HOSTS": "brain.example.com",
        "BRAIN_DATA_DIR": scratch,
        "DATABASE_URL": "postgres://brain:secret@db.example.com/brain",
        "REDIS_URL": "rediss://redis.example.com:6380/0",
    }


def pytest_step(arguments: list[str]) -> Step:
    # Tests of one file stay together, so that a module's own server is started once. Four processes
    # on two cores: the slow tests mostly wait for other processes.
    is_spread = any(argument.startswith("-n") for argument in arguments)
    spread = [] if is_spread else ["-n", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
    return Step(
        "pytest", [sys.executable, "-m", "pytest", "-q", "-rsx", "--durations=10", *spread, *arguments]
    )


def run(step: Step) -> bool:
    print(f"── {step.name}", flush=True)
    began = time.monotonic()
    clean = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    passed = subprocess.run(step.command, env={**clean, **step.env}).returncode == 0
    print(f"   {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.1f} s", flush=True)
    return passed


def _is_ours(name: str) -> bool:
    """The caller's own platform settings do not colour the result. Without bytecode hundreds of processes compile anew."""
    return name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "PYTHONDONTWRITEBYTECODE") or (
        name.startswith("BRAIN_") and not name.startswith("BRAIN_TEST_")
    )


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="brain-check-") as scratch:
        if arguments == ["--slow"]:
            wanted = [pytest_step(["-m", "drilled"])]
        elif arguments:
            wanted = [pytest_step(arguments)]
        else:
            wanted = [*steps(scratch), pytest_step(["-m", "not drilled"])]
        failed = [step.name for step in wanted if not run(step)]
    verdict = f"failed: {', '.join(failed)}" if failed else "all passed"
    print(
        f"── {verdict} ({time.monotonic() - began:.0f} s); what pytest skipped is listed above with its reason"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
