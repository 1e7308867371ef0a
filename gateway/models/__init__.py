"""What the gateway is told: services with their targets, routes with their transforms, plans, consumers with their
keys, token issuers. Written through changes.py alone."""

from __future__ import annotations

from .configuration import Configuration, Revision
from .consumer import ApiKey, Consumer, EndedKey
from .issuer import JwtIssuer, KnownIssuer, RevokedToken, TokenCut
from .plan import Plan
from .route import Route, Transform
from .service import Service, Target

__all__ = [
    "ApiKey",
    "Configuration",
    "Consumer",
    "EndedKey",
    "JwtIssuer",
    "KnownIssuer",
    "Plan",
    "RevokedToken",
    "Revision",
    "Route",
    "Service",
    "Target",
    "TokenCut",
    "Transform",
]
