"""BRAIN["FOUNDATION"]: which addresses the platform may be told to connect to."""

from __future__ import annotations

from dataclasses import dataclass

from .conf import Bound, setting


@dataclass(frozen=True, slots=True)
class FoundationConf:
    ALLOW_LOOPBACK_TARGETS: bool = setting(False)  # 127.0.0.0/8 and ::1; on in development
    ALLOW_PRIVATE_TARGETS: bool = setting(False)  # RFC 1918, RFC 4193; on in development
    ALLOWED_NETWORKS: tuple[str, ...] = setting(())  # CIDR blocks allowed besides the public internet


conf = Bound("FOUNDATION", FoundationConf)
