"""What of the configuration cannot be used: it is out of service, and the rest serves.

A route whose guard cannot be built answers 503, whoever asks; an issuer whose key cannot be had accepts no token.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("issuer", "service", "route")


@dataclass(frozen=True, slots=True)
class Outage:
    """kind: one of KINDS. code: for machines, as in X-Brain-Error of a route. reason: for operators alone, it may say what
    a plugin's own exception says."""

    kind: str
    name: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}"
