"""/api/v1/gateway/traffic: how much came in, how long it took and what failed, by route, consumer and time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation.api import unknown
from gateway import traffic
from gateway.errors import TrafficUnavailable
from gateway.traffic_report import CLASSES, SHARES, Report, Sums

from .answers import moment

USUAL_S = 3600.0
_PARAMETERS = ("since", "until", "route", "consumer")


class Unavailable(APIException):
    status_code = 503
    default_code = "traffic_unavailable"


class SumsSerializer(serializers.Serializer):
    """p50_s, p95_s, p99_s: seconds up to the whole answer; null where no latency is known, as of a consumer."""

    requests = serializers.IntegerField()
    errors = serializers.IntegerField(help_text="Answers of 5xx, the gateway's own among them.")
    error_ratio = serializers.FloatField(allow_null=True, help_text="0 to 1; null of no requests.")
    by_class = serializers.DictField(child=serializers.IntegerField(), help_text="2xx, 3xx, 4xx, 5xx.")
    p50_s = serializers.FloatField(allow_null=True)
    p95_s = serializers.FloatField(allow_null=True)
    p99_s = serializers.FloatField(allow_null=True)


class PointSerializer(SumsSerializer):
    at = serializers.DateTimeField(help_text="Its beginning.")


class NamedSumsSerializer(SumsSerializer):
    name = serializers.CharField(allow_blank=True, help_text="Empty: requests that no route matched.")


class TrafficSerializer(serializers.Serializer):
    """The figures of all processes and machines together."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    step_s = serializers.IntegerField(
        help_text="60 within the last two hours, else 3600; kept for seven days."
    )
    total = SumsSerializer()
    points = PointSerializer(many=True, help_text="Without gaps.")
    routes = NamedSumsSerializer(many=True, help_text="The busiest first.")
    consumers = NamedSumsSerializer(
        many=True, help_text='The busiest first; "anonymous", and "other" for the rest.'
    )


class TrafficView(APIView):
    """Requests, failures and latencies. The steps that the time begins and ends in are in it as a whole."""

    @extend_schema(
        summary="Read the traffic",
        parameters=[
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="Usually an hour before `until`."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Usually now."),
            OpenApiParameter("route", str, description="Of this route alone."),
            OpenApiParameter(
                "consumer", str, description="Of this consumer alone, whose latency is not known."
            ),
        ],
        responses=TrafficSerializer,
    )
    def get(self, request: Request) -> Response:
        wall = time.time()  # noqa: TID251  (the minutes that are kept)
        asked = _asked(request, wall)
        try:
            found = traffic.read(wall=wall, **asked)
        except TrafficUnavailable as error:
            raise Unavailable(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
        return Response(_shown(found, asked))


def _asked(request: Request, wall: float) -> dict[str, Any]:
    wrong: dict[str, list[str]] = {}
    given = request.query_params
    for name in given:
        if name not in _PARAMETERS:
            wrong[name] = [unknown(name, _PARAMETERS)]
    times = {}
    for name in ("since", "until"):
        try:
            times[name] = _moment(given[name]) if name in given else None
        except ValueError:
            wrong[name] = ["is a time such as 2027-01-31T12:00:00Z"]
    if wrong:
        raise ValidationError(wrong)
    until = times["until"] if times["until"] is not None else wall
    since = times["since"] if times["since"] is not None else until - USUAL_S
    if since >= until:
        raise ValidationError({"since": ["is before `until`"]})
    return {"since": since, "until": until} | {name: given.get(name, "") for name in ("route", "consumer")}


def _moment(text: str) -> float:
    """Without a zone it is UTC. Raises ValueError."""
    # `+` of a zone in a query that nobody encoded is a space.
    parsed = datetime.fromisoformat(text.strip().replace(" ", "+", 1) if "T" in text else text)
    try:
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except OverflowError as error:
        raise ValueError from error


def _shown(found: Report, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "since": moment(asked["since"]),
        "until": moment(asked["until"]),
        "step_s": found.step_s,
        "total": _sums(found.total),
        "points": [{"at": moment(at), **_sums(sums)} for at, sums in found.points],
        "routes": _named(found.routes),
        "consumers": _named(found.consumers),
    }


def _named(found: Iterable[tuple[str, Sums]]) -> list[dict[str, Any]]:
    return [{"name": name, **_sums(sums)} for name, sums in found]


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "errors": sums.errors,
        "error_ratio": sums.error_ratio,
        "by_class": {name: sums.by_class[kind] for kind, name in enumerate(CLASSES, 2)},
        **{f"{name}_s": value for name, value in zip(SHARES, sums.quantiles_s, strict=True)},
    }
