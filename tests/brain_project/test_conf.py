from __future__ import annotations

import pytest
from django.core.checks import run_checks

from gateway.conf import conf as gateway


@pytest.mark.parametrize(
    ("brain", "check_id", "message", "hint"),
    [
        (
            {"GATEWAY": {"HEDER_TIMEOUT_S": 1.0}},
            "brain.E001",
            "Unknown key 'HEDER_TIMEOUT_S' in BRAIN['GATEWAY'].",
            "Did you mean 'HEADER_TIMEOUT_S'? See docs/checks.md#brain-e001.",
        ),
        ({"GATEWEY": {}}, "brain.E001", "Unknown key 'GATEWEY' in BRAIN.", "Did you mean 'GATEWAY'?"),
        ({"GATEWAY": {"HEADER_TIMEOUT_S": "1"}}, "brain.E002", "is a str", "Give it as float."),
        ({"GATEWAY": {"HEADER_TIMEOUT_S": 0}}, "brain.E003", "is out of range", "Use a value from"),
        (
            {"GATEWAY": 3},
            "brain.E002",
            "BRAIN['GATEWAY'] is a int, not a dict.",
            "Write BRAIN['GATEWAY'] = {...}.",
        ),
    ],
)
def test_settings__something_wrong__is_a_check_with_hint_and_anchor(settings, brain, check_id, message, hint):
    settings.BRAIN = brain
    found = [error for error in run_checks(tags=["brain"]) if error.id == check_id]
    assert len(found) == 1
    assert message in found[0].msg
    assert found[0].hint.startswith(hint)
    assert f"docs/checks.md#{check_id.replace('.', '-').lower()}" in found[0].hint


def test_settings__good_value__is_bound_and_a_wrong_one_keeps_the_default(settings):
    default = gateway.shape().HEADER_TIMEOUT_S
    settings.BRAIN = {"GATEWAY": {"HEADER_TIMEOUT_S": 1}}
    assert gateway().HEADER_TIMEOUT_S == 1.0
    assert isinstance(gateway().HEADER_TIMEOUT_S, float)
    settings.BRAIN = {"GATEWAY": {"HEADER_TIMEOUT_S": "soon"}}
    assert default == gateway().HEADER_TIMEOUT_S
