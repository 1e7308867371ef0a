"""/api/v1/gateway/token and token/refresh: signing in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth import authenticate, get_user_model
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer
from rest_framework_simplejwt.views import TokenViewBase

from gateway import cuts, sign_ins
from gateway.issuers import REALM, RefreshToken, signer, user_pk

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 3.0  # a cut reaches a second ahead, and tokens tell whole seconds


class TokenSerializer(TokenObtainPairSerializer):
    """{"username", "password"} → {"access", "refresh", "expires_in"}."""

    token_class = RefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        def sign(at: datetime) -> tuple[Any, dict[str, Any]]:
            user = authenticate(
                self.context["request"], username=attrs[self.username_field], password=attrs["password"]
            )
            if user is None or not user.is_active:
                raise exceptions.AuthenticationFailed("No active account with these credentials.")
            return user, _pair(RefreshToken.for_user(user, at), user, at)

        return _uncut(sign)


class RefreshSerializer(TokenRefreshSerializer):
    token_class = RefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        refresh = RefreshToken(attrs["refresh"])

        def sign(at: datetime) -> tuple[Any, dict[str, Any]]:
            user = get_user_model().objects.filter(pk=user_pk(refresh.get("sub")), is_active=True).first()
            if user is None:
                raise exceptions.AuthenticationFailed("The token's user does not exist or is not active.")
            return user, {"access": str(refresh.access_for(user, at)), "expires_in": signer().expiry_s}

        return _uncut(sign)


def _uncut(sign: Callable[[datetime], tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    """What `sign` makes as of a moment before it looks at the user. Where his tokens have just been cut, what it saw may be
    from before, and a token of this second would be refused: it is done again a second later."""
    while True:
        at = timezone.now()
        user, signed = sign(at)
        wait_s = cuts.uncut_in_s(str(user.pk), at)
        if not wait_s:
            return signed
        if wait_s > _LONGEST_WAIT_S:  # a clock that was set back
            raise exceptions.Throttled(wait=wait_s)
        time.sleep(wait_s)


def _pair(refresh: RefreshToken, user: Any, at: datetime) -> dict[str, Any]:
    access = str(refresh.access_for(user, at))
    return {
        "access": access,
        "refresh": str(refresh),
        "token_type": "Bearer",
        "expires_in": signer().expiry_s,
    }


class AccessSerializer(serializers.Serializer):
    access = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds.")


class PairSerializer(AccessSerializer):
    refresh = serializers.CharField()
    token_type = serializers.CharField()


class TokenView(TokenViewBase):
    """Signing in is counted per user name and address, and per address, so that neither can be guessed
    through."""

    serializer_class = TokenSerializer
    www_authenticate_realm = REALM

    @extend_schema(summary="Sign in", responses=PairSerializer)
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        username = request.data.get("username") if isinstance(request.data, dict) else None
        _hold_up(sign_ins.wait_s(request, username))
        try:
            answer: Response = super().post(request, *args, **kwargs)
        except exceptions.AuthenticationFailed:
            log.warning("sign_in_refused", username=str(username)[:150], ip=request.META.get("REMOTE_ADDR"))
            raise
        answer["Cache-Control"] = "no-store"
        return answer


class RefreshView(TokenViewBase):
    """A new access token, with the roles that the user holds now."""

    serializer_class = RefreshSerializer
    www_authenticate_realm = REALM

    @extend_schema(summary="Renew an access token", responses=AccessSerializer)
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        _hold_up(sign_ins.renewal_wait_s(request))
        try:
            answer: Response = super().post(request, *args, **kwargs)
        except TokenError as error:
            raise exceptions.AuthenticationFailed("The token is not accepted.") from error
        answer["Cache-Control"] = "no-store"
        return answer


def _hold_up(wait_s: int) -> None:
    if wait_s:
        raise exceptions.Throttled(wait=wait_s)
