"""/api/v1/gateway/token-cuts: subjects whose tokens of so far are refused."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from foundation import audit, roles
from foundation.api import Strict
from gateway import auth, cuts
from gateway.models import TokenCut

from . import lists, references
from .answers import told
from .revoked_tokens import known_issuer
from .rows import RowList


class TokenCutSerializer(serializers.ModelSerializer):
    class Meta:
        model = TokenCut
        fields = ["id", "issuer", "subject", "issued_until", "expires_at"]


class CutSerializer(Strict, serializers.Serializer):
    """Either a user of ours, or an issuer and a subject of its."""

    user = serializers.CharField(
        required=False, help_text="The name of a user of ours, all of whose tokens are to be refused."
    )
    issuer = serializers.CharField(required=False, help_text="The issuer's name with us.")
    subject = serializers.CharField(
        required=False,
        max_length=auth.MAX_NAME_CHARACTERS,
        help_text="`sub`; of our own tokens the user's id.",
    )
    issued_until = serializers.DateTimeField(
        required=False,
        help_text="Refused are tokens with an `iat` up to then, and those without one. Default: now, and as much more as "
        "clocks may differ.",
    )
    expires_at = serializers.DateTimeField(
        required=False,
        help_text="When the last of these tokens expires by itself: the cut is kept until then. Of our own issuer it is known.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "user" in attrs:
            if set(attrs) != {"user"}:
                raise ValidationError("Give the user alone, or issuer and subject.")
            return attrs
        missing = {"issuer", "subject"} - set(attrs)
        if attrs.get("issuer", "") not in ("", cuts.own_issuer()):
            missing |= {"expires_at"} - set(attrs)
        if missing:
            raise ValidationError({name: ["is needed"] for name in sorted(missing)})
        return attrs

    def validate_user(self, name: str) -> Any:
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise ValidationError("is the name of no user")
        return user

    def validate_issuer(self, name: str) -> str:
        return known_issuer(name)

    def validate_expires_at(self, at: Any) -> Any:
        if at <= timezone.now():
            raise ValidationError("is over: these tokens are refused anyway")
        return at

    def validate_issued_until(self, at: Any) -> Any:
        if at > timezone.now():
            raise ValidationError("is to come: tokens can be cut up to now")
        return at


class TokenCutList(RowList):
    """GET: the subjects that are cut. POST: refuse all tokens of a subject that were issued so far, everywhere within two
    seconds. Newer ones are good. A cut that is there already is only ever made larger, and goes when the last of its
    tokens has expired."""

    queryset = TokenCut.objects.all()
    serializer_class = TokenCutSerializer
    orderings = ("-id", "expires_at")
    filters = {
        "issuer": lists.text("issuer", "Of the issuer of this name."),
        "subject": lists.text("subject", "Of this subject."),
    }

    @extend_schema(request=CutSerializer, responses={201: TokenCutSerializer})
    def post(self, request: Request, **kwargs: Any) -> Response:
        asked = CutSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given, trace = dict(asked.validated_data), audit.by(request, "api")
        try:
            with told():
                user = given.pop("user", None)
                row = cuts.cut_user(user, **trace) if user is not None else cuts.cut(**given, **trace)
        except ValueError as error:
            raise ValidationError(str(error)) from error
        return Response(TokenCutSerializer(row).data, status=status.HTTP_201_CREATED)


class TokenCutDetail(generics.GenericAPIView):
    """A subject that is cut. It can neither be changed nor taken back."""

    queryset = TokenCut.objects.all()
    serializer_class = TokenCutSerializer
    required_role = {"GET": roles.VIEWER}

    def get(self, request: Request, ref: int) -> Response:
        return Response(self.get_serializer(references.find(self.get_queryset(), ref)).data)
