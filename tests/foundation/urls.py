"""Views that go wrong in every way, on API and page paths, for the tests of problems and roles."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotFound
from django.urls import path
from django.views import View
from rest_framework import serializers
from rest_framework.authentication import BasicAuthentication
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation import roles


def fail(request: HttpRequest, kind: str) -> HttpResponse:
    raise {
        "404": Http404("secret detail"),
        "403": PermissionDenied("secret detail"),
        "400": SuspiciousOperation("secret detail"),
        "500": RuntimeError("secret detail"),
    }[kind]


async def afail(request: HttpRequest, kind: str) -> HttpResponse:
    return fail(request, kind)


def bare(request: HttpRequest) -> HttpResponse:
    return HttpResponseNotFound("<h1>gone</h1>")


def upstream(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>their page</h1>", status=404)


class GetOnly(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")


class Line(serializers.Serializer):
    sku = serializers.CharField()
    count = serializers.IntegerField(min_value=1)


class Order(serializers.Serializer):
    email = serializers.EmailField()
    lines = Line(many=True)
    tags = serializers.ListField(child=serializers.IntegerField(), required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["email"].startswith("no-"):
            raise serializers.ValidationError("These do not go together.", code="conflict")
        return attrs


class Api(APIView):
    authentication_classes = [BasicAuthentication]
    permission_classes = [roles.RolePermission]
    required_role = {"DELETE": roles.ADMIN}

    def get(self, request: Request) -> Response:
        return Response({"ok": True})

    post = put = delete = get


class AdminOnly(Api):
    required_role = roles.ADMIN


class Orders(APIView):
    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    def post(self, request: Request) -> Response:
        order = Order(data=request.data)
        order.is_valid(raise_exception=True)
        return Response({"ok": True})

    def get(self, request: Request) -> Response:
        raise Throttled(wait=7)

    def put(self, request: Request) -> Response:
        raise RuntimeError("secret detail")


urlpatterns = [
    path("api/fail/<kind>", fail),
    path("api/afail/<kind>", afail),
    path("api/bare", bare),
    path("api/upstream", upstream),
    path("api/get-only", GetOnly.as_view()),
    path("api/orders", Orders.as_view()),
    path("api/things", Api.as_view()),
    path("api/admin-only", AdminOnly.as_view()),
    path("page/fail/<kind>", fail),
    path("page/bare", bare),
    path("page/get-only", GetOnly.as_view()),
]

handler400 = "foundation.problems.handler400"
handler403 = "foundation.problems.handler403"
handler404 = "foundation.problems.handler404"
handler500 = "foundation.problems.handler500"
