from __future__ import annotations

import pytest

from foundation import checks, settings
from foundation.settings import FoundationConf


@pytest.mark.parametrize(
    ("blocks", "ids"),
    [
        ((), []),
        (("10.8.0.0/16", "fd00::/8", "192.0.2.1"), []),
        (("10.8.0.1/16",), ["foundation.E001"]),
        (("office", "10.8.0.0/33"), ["foundation.E001", "foundation.E001"]),
    ],
)
def test_networks__blocks__unreadable_ones_are_named(blocks, ids, monkeypatch):
    monkeypatch.setattr(settings.conf, "_value", FoundationConf(ALLOWED_NETWORKS=blocks))
    found = checks.networks_are_readable(None)
    assert [message.id for message in found] == ids
    assert all("docs/checks.md#foundation-e001" in message.hint for message in found)
