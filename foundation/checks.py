"""System checks of the foundation's own settings."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.core.checks import CheckMessage, Error, register

from .settings import conf


@register("foundation")
def networks_are_readable(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"BRAIN['FOUNDATION']['ALLOWED_NETWORKS'] holds {block!r}, which is not a network.",
            hint="Write CIDR blocks without host bits, such as '10.8.0.0/16'. See docs/checks.md#foundation-e001.",
            id="foundation.E001",
        )
        for block in conf().ALLOWED_NETWORKS
        if not _is_network(block)
    ]


def _is_network(block: str) -> bool:
    try:
        ipaddress.ip_network(block)
    except ValueError:
        return False
    return True
