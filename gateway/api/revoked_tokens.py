"""/api/v1/gateway/revoked-tokens: tokens that are refused before they expire."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from foundation import audit, roles
from foundation.api import Strict
from gateway import issuers, revocations, tokens
from gateway.callers import OWN_ISSUER
from gateway.models import JwtIssuer, RevokedToken

from . import lists, references
from .answers import told
from .rows import RowList

_LONGEST_ID = 255


class RevokedTokenSerializer(serializers.ModelSerializer):
    class Meta:
        model = RevokedToken
        fields = ["id", "issuer", "jti", "expires_at", "revoked_at"]


class RevocationSerializer(Strict, serializers.Serializer):
    """Either the token, or its issuer, its id and its end."""

    token = serializers.CharField(required=False, help_text="The token itself. It is not stored.")
    issuer = serializers.CharField(required=False, help_text="The issuer's name with us.")
    jti = serializers.CharField(
        required=False, max_length=_LONGEST_ID, help_text="The token's id at its issuer."
    )
    expires_at = serializers.DateTimeField(required=False, help_text="When the token expires by itself.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        beside = {"issuer", "jti", "expires_at"}
        if "token" in attrs and set(attrs) != {"token"}:
            raise ValidationError("Give the token alone, or issuer, jti and expires_at.")
        missing = {name: ["is needed, where no token is given"] for name in sorted(beside - set(attrs))}
        if "token" not in attrs and missing:
            raise ValidationError(missing)
        return attrs

    def validate_issuer(self, name: str) -> str:
        return known_issuer(name)

    def validate_expires_at(self, at: Any) -> Any:
        if at <= timezone.now():
            raise ValidationError("is over: the token is refused anyway")
        return at


class RevokedTokenList(RowList):
    """GET: the revoked tokens. POST: revoke one, for good. Rows go when the tokens have expired."""

    queryset = RevokedToken.objects.all()
    serializer_class = RevokedTokenSerializer
    orderings = ("-id", "expires_at")
    filters = {
        "issuer": lists.text("issuer", "Of the issuer of this name."),
        "jti": lists.text("jti", "With this id."),
    }

    @extend_schema(request=RevocationSerializer, responses={201: RevokedTokenSerializer})
    def post(self, request: Request, **kwargs: Any) -> Response:
        asked = RevocationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = _revoked(dict(asked.validated_data), audit.by(request, "api"))
        return Response(RevokedTokenSerializer(row).data, status=status.HTTP_201_CREATED)


class RevokedTokenDetail(generics.GenericAPIView):
    """A revoked token. It can neither be changed nor taken back."""

    queryset = RevokedToken.objects.all()
    serializer_class = RevokedTokenSerializer
    required_role = {"GET": roles.VIEWER}

    def get(self, request: Request, ref: int) -> Response:
        return Response(self.get_serializer(references.find(self.get_queryset(), ref)).data)


def known_issuer(name: str) -> str:
    """Raises ValidationError for the name of none."""
    known = [*JwtIssuer.objects.values_list("name", flat=True), OWN_ISSUER]
    if name not in known:
        raise ValidationError(f"is not the name of an issuer; known are {', '.join(known)}")
    return name


def _revoked(given: dict[str, Any], trace: dict[str, Any]) -> RevokedToken:
    try:
        with told():
            if "token" in given:
                verifier = issuers.holder.refresh_if_due().verifier
                return revocations.revoke_token(given["token"], verifier, **trace)
            return revocations.revoke(given.pop("issuer"), **given, **trace)
    except tokens.Rejected as error:
        raise ValidationError({"token": ["is not accepted anyway"]}) from error
    except ValueError as error:
        raise ValidationError(str(error)) from error
