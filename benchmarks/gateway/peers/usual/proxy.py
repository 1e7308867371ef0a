"""Token, role, throttle, the next target, and the answer handed on."""

from __future__ import annotations

import itertools

import requests
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTStatelessUserAuthentication

from benchmarks.gateway.asked import prefix

targets = itertools.cycle(settings.TARGETS)
session = requests.Session()  # kept open; many such views open a connection for every call
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))


class HasRole(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.auth is not None and settings.ROLE in request.auth.get("roles", [])


class ProxyView(APIView):
    authentication_classes = (JWTStatelessUserAuthentication,)
    permission_classes = (HasRole,)
    throttle_classes = (UserRateThrottle,)

    def forward(self, request: Request, rest: str) -> HttpResponse:
        answer = session.request(
            request.method,
            f"{next(targets)}{request.path}",
            params=request.query_params,
            data=request.body,
            headers={"Content-Type": request.content_type or "application/json"},
            timeout=30,
        )
        return HttpResponse(
            answer.content, status=answer.status_code, content_type=answer.headers["Content-Type"]
        )

    get = post = put = delete = forward


urlpatterns = [
    path(f"{prefix(number).lstrip('/')}/<path:rest>", ProxyView.as_view())
    for number in range(settings.ROUTES)
]
