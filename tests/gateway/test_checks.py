"""System checks: each setting that leaves a door open or cannot work, by its id, with a hint that names the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import checks

DOCS = Path(__file__).parents[2] / "docs" / "checks.md"
STRONG = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def found(gateway_conf: Callable[..., None], settings: Any) -> Callable[..., list[tuple[str, str]]]:
    """found(KEY=value) gives (id, message) of what the checks find."""
    settings.JWT_SECRET = STRONG

    def check(**values: Any) -> list[tuple[str, str]]:
        gateway_conf(**values)
        messages = checks.settings_are_sound(None)
        page = DOCS.read_text()
        for message in messages:
            anchor = str(message.id).replace(".", "-")
            assert f"### {anchor}\n" in page
            assert str(message.hint).endswith(f"See docs/checks.md#{anchor.lower()}.")
        return [(str(message.id), message.msg) for message in messages]

    return check


def test_settings__good_ones__nothing_is_found(found: Any, tmp_path: Path) -> None:
    assert found() == []
    assert (
        found(
            TRUSTED_PROXIES=("10.0.0.0/8", "::1", "192.168.1.7/24"),
            UNIX_SOCKET_DIRS=("/run/upstreams", "/nowhere/yet"),
            PLUGINS=("tests.gateway.documents.Deep", "examples.plugins.SignRequests"),
            SNAPSHOT_FILE=str(tmp_path / "copy.json"),
            ACCESS_LOG_FILE="/dev/null",
        )
        == []
    )


@pytest.mark.parametrize(
    ("values", "identity", "told"),
    [
        (
            {"TRUSTED_PROXIES": ("10.0.0.0/8", "10.0.0.0/33")},
            "gateway.E004",
            "holds '10.0.0.0/33': it is no network",
        ),
        ({"TRUSTED_PROXIES": ("proxy.internal",)}, "gateway.E004", "holds 'proxy.internal'"),
        (
            {"UNIX_SOCKET_DIRS": ("/run", "sockets")},
            "gateway.E005",
            "holds 'sockets': it is not an absolute path",
        ),
        ({"PLUGINS": ("no.such.Plugin",)}, "gateway.E006", "no.such cannot be imported"),
        ({"PLUGINS": ("tests.gateway.documents.Shallow",)}, "gateway.E006", "has no class Shallow"),
        ({"PLUGINS": ("gateway.bucket.Limit",)}, "gateway.E006", "has none of the hooks"),
        (
            {"SNAPSHOT_FILE": "/no/such/place/copy.json"},
            "gateway.W003",
            "there is no directory /no/such/place",
        ),
        ({"SNAPSHOT_FILE": "/etc"}, "gateway.W003", "it is a directory"),
        ({"ACCESS_LOG_FILE": "/no/such/place/log"}, "gateway.W004", "there is no directory /no/such/place"),
        ({"ACCESS_LOG_FILE": "/etc"}, "gateway.W004", "it is a directory"),
        ({"TOKEN_RATE": "often"}, "gateway.E002", "is not a rate"),
        ({"HEADER_TIMEOUT_S": 90.0}, "gateway.W002", "HEADER_TIMEOUT_S is above"),
    ],
)
def test_settings__one_that_cannot_work__by_its_id(
    found: Any, values: dict[str, Any], identity: str, told: str
) -> None:
    ((its_id, text),) = found(**values)
    assert (its_id, told in text) == (identity, True), text


def test_settings__several_mistakes__all_of_them(found: Any) -> None:
    ids = [one for one, _ in found(TRUSTED_PROXIES=("a", "b"), PLUGINS=("c.D",))]
    assert ids == ["gateway.E004", "gateway.E004", "gateway.E006"]


def test_settings__files_that_others_own__warnings(
    found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert found(SNAPSHOT_FILE=str(tmp_path / "copy"), ACCESS_LOG_FILE=str(log)) == [
        (
            "gateway.W003",
            f"BRAIN['GATEWAY']['SNAPSHOT_FILE'] = '{tmp_path}/copy': {tmp_path} cannot be written to.",
        ),
        ("gateway.W004", f"BRAIN['GATEWAY']['ACCESS_LOG_FILE'] = '{log}': it cannot be written to."),
    ]
