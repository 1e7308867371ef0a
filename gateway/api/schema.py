"""What the gateway's API says of itself in the OpenAPI schema, beside what its serializers say."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

__all__ = ["ETAG", "IF_MATCH", "IF_NONE_MATCH", "BearerScheme"]

IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The ETag that was read: the write is refused with 412 when somebody else's came first.",
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="`*`: make it, but replace nothing.",
)
ETAG = OpenApiParameter(
    "ETag",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Of what the body shows, for If-Match.",
    response=[200, 201],
)


class BearerScheme(OpenApiAuthenticationExtension):
    """Registers itself by being defined."""

    target_class = "gateway.issuers.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
