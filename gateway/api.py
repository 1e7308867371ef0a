"""The gateway's API under /api/v1/gateway/: sign in, refresh, routes, status."""

from __future__ import annotations

from typing import Any

import structlog
from django.contrib.auth import authenticate, get_user_model
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django_ratelimit.core import get_usage
from rest_framework import exceptions, generics, serializers
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer
from rest_framework_simplejwt.views import TokenViewBase

from foundation import audit, roles

from . import changes
from .conf import conf
from .issuers import REALM, RefreshToken, holder, signer, user_pk
from .models import Plan, Route, Service

log = structlog.get_logger(__name__)


class TokenSerializer(TokenObtainPairSerializer):
    """{"username", "password"} → {"access", "refresh", "expires_in"}."""

    token_class = RefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        user = authenticate(
            self.context["request"], username=attrs[self.username_field], password=attrs["password"]
        )
        if user is None or not user.is_active:
            raise exceptions.AuthenticationFailed("No active account with these credentials.")
        return _pair(RefreshToken.for_user(user), user)


class RefreshSerializer(TokenRefreshSerializer):
    token_class = RefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        refresh = RefreshToken(attrs["refresh"])
        user = get_user_model().objects.filter(pk=user_pk(refresh.get("sub")), is_active=True).first()
        if user is None:
            raise exceptions.AuthenticationFailed("The token's user does not exist or is not active.")
        return {"access": str(refresh.access_for(user)), "expires_in": signer().expiry_s}


def _pair(refresh: RefreshToken, user: Any) -> dict[str, Any]:
    access = str(refresh.access_for(user))
    return {
        "access": access,
        "refresh": str(refresh),
        "token_type": "Bearer",
        "expires_in": signer().expiry_s,
    }


class TokenView(TokenViewBase):
    """Signing in is counted per user name and address, and per address, so that neither can be guessed
    through."""

    serializer_class = TokenSerializer
    www_authenticate_realm = REALM

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        username = request.data.get("username") if isinstance(request.data, dict) else None
        address = request.META.get("REMOTE_ADDR", "")
        _count(request, "gateway.token", f"{address}|{username}", conf().TOKEN_RATE)
        _count(request, "gateway.token.ip", address, conf().TOKEN_RATE_PER_IP)
        try:
            answer: Response = super().post(request, *args, **kwargs)
        except exceptions.AuthenticationFailed:
            log.warning("sign_in_refused", username=str(username)[:150], ip=address)
            raise
        answer["Cache-Control"] = "no-store"
        return answer


class RefreshView(TokenViewBase):
    serializer_class = RefreshSerializer
    www_authenticate_realm = REALM

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        _count(request, "gateway.refresh.ip", request.META.get("REMOTE_ADDR", ""), conf().TOKEN_RATE_PER_IP)
        try:
            answer: Response = super().post(request, *args, **kwargs)
        except TokenError as error:
            raise exceptions.AuthenticationFailed("The token is not accepted.") from error
        answer["Cache-Control"] = "no-store"
        return answer


def _count(request: Request, group: str, key: str, rate: str) -> None:
    usage = get_usage(request, group=group, key=lambda group, request: key, rate=rate, increment=True)
    if usage is not None and usage["should_limit"]:
        raise exceptions.Throttled(wait=max(1, usage["time_left"]))


class RouteSerializer(serializers.ModelSerializer):
    service = serializers.SlugRelatedField(slug_field="name", queryset=Service.objects.all())
    plan = serializers.SlugRelatedField(
        slug_field="name", queryset=Plan.objects.all(), allow_null=True, required=False
    )

    class Meta:
        model = Route
        fields = (
            "id",
            "path",
            "methods",
            "service",
            "plan",
            "auth_required",
            "roles",
            "timeout_s",
            "enabled",
        )

    def create(self, validated_data: dict[str, Any]) -> Route:
        return self._written(Route(**validated_data))

    def update(self, instance: Route, validated_data: dict[str, Any]) -> Route:
        for name, value in validated_data.items():
            setattr(instance, name, value)
        return self._written(instance)

    def _written(self, route: Route) -> Route:
        try:
            changes.save(route, **audit.by(self.context["request"], "api"))
        except ValidationError as error:
            raise serializers.ValidationError(error.message_dict) from error
        return route


class ByPath(CursorPagination):
    ordering = "path"


class RouteList(generics.ListCreateAPIView):
    queryset = Route.objects.select_related("service", "plan")
    serializer_class = RouteSerializer
    pagination_class = ByPath
    required_role = {"POST": roles.ADMIN}


class RouteDetail(generics.RetrieveUpdateDestroyAPIView):
    queryset = Route.objects.select_related("service", "plan")
    serializer_class = RouteSerializer
    required_role = {"DELETE": roles.ADMIN}

    def perform_destroy(self, instance: Route) -> None:
        try:
            changes.delete(instance, **audit.by(self.request, "api"))
        except ProtectedError as error:
            raise serializers.ValidationError("Other rows need this one.") from error


class StatusView(APIView):
    """The configuration that this process uses."""

    def get(self, request: Request) -> Response:
        snapshot = holder.refresh_if_due()
        targets = [
            {"name": target.name, "breaker": target.breaker.state, "inflight": target.inflight}
            for target in snapshot.targets
        ]
        return Response(
            {
                "snapshot_version": snapshot.version,
                "routes": len(snapshot.routes),
                "api_keys": len(snapshot.keys),
                "issuers": [issuer.name for issuer in snapshot.issuers],
                "targets": targets,
            }
        )
