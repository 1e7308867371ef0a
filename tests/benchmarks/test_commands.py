"""The command lines of benchmarks and drills."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.__main__ import parser


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("benchmarks", ["slice", "queue", "gateway", "cache", "database"]),
        ("tests.drills", ["queue", "gateway", "cache", "database"]),
    ],
)
def test_command__no_name__lists_the_names_and_an_unknown_one_is_exit_code_2(
    module: str, names: list[str]
) -> None:
    listed = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout.split()) == (0, names)
    unknown = subprocess.run([sys.executable, "-m", module, "nope"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert all(name in unknown.stderr for name in names)


def test_queue_options__selections__are_parsed_and_default_to_everything() -> None:
    chosen = parser().parse_args(["queue", "--only", "idle,drain", "--peers", "celery, huey", "--quick"])
    assert (chosen.only, chosen.peers, chosen.quick) == (("idle", "drain"), ("celery", "huey"), True)
    everything = parser().parse_args(["queue"])
    parts = ("drain", "enqueue", "latency", "idle", "backlog", "pages", "rollups", "replay")
    assert (everything.only, everything.peers) == (parts, None)


def test_gateway_options__selections__are_parsed_and_default_to_everything() -> None:
    chosen = parser().parse_args(["gateway", "--only", "door,tokens", "--peers", "envoy, nginx"])
    assert (chosen.only, chosen.peers) == (("door", "tokens"), ("envoy", "nginx"))
    everything = parser().parse_args(["gateway"])
    parts = ("everything", "differing", "door", "tokens", "exact", "latency", "routes", "bodies", "admission")
    assert (everything.only, everything.peers) == (parts, ("haproxy", "nginx", "envoy", "traefik", "usual"))


@pytest.mark.parametrize("arguments", [["--peers", "sidekiq"], ["--only", ","], ["--only", "drain,speed"]])
def test_queue_options__unknown_or_empty__is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(["queue", *arguments])
    assert refused.value.code == 2
    assert "is not of:" in capsys.readouterr().err
