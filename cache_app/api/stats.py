"""/api/v1/cache/status and /stats: how the aliases stand, and what all processes counted."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cache_app import keyspace, operations, standing, stats, stats_store
from cache_app.tallies import Tally, by_alias
from foundation.api import asked, by

from .answers import StoreUnavailable, told


class ServerSerializer(serializers.Serializer):
    name = serializers.CharField(help_text="Where it is, without credentials.")
    server = serializers.CharField()
    used_memory_bytes = serializers.IntegerField()
    peak_memory_bytes = serializers.IntegerField()
    resident_bytes = serializers.IntegerField()
    max_memory_bytes = serializers.IntegerField(help_text="0: no limit.")
    policy = serializers.CharField(help_text="What it does at the limit.")
    fragmentation = serializers.FloatField(allow_null=True, help_text="Resident by used memory.")
    hits = serializers.IntegerField(help_text="Of all its clients, since its start.")
    misses = serializers.IntegerField()
    evicted = serializers.IntegerField()
    expired = serializers.IntegerField()
    clients = serializers.IntegerField()
    uptime_s = serializers.IntegerField()


class HeldSerializer(serializers.Serializer):
    """What memory or files hold."""

    entries = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    most_entries = serializers.IntegerField()
    most_bytes = serializers.IntegerField()


class AliasSerializer(serializers.Serializer):
    alias = serializers.CharField()
    kind = serializers.ChoiceField(["redis", "tiered", "memory", "file"])
    prefix = serializers.CharField()
    serializer = serializers.CharField()
    compressor = serializers.CharField(allow_null=True)
    on_down = serializers.CharField()
    error = serializers.CharField(allow_blank=True, help_text="Why it does not answer; empty when it does.")
    servers = ServerSerializer(many=True)
    keys = serializers.IntegerField(allow_null=True)
    keys_exact = serializers.BooleanField(help_text="Else reckoned from a part of the keys.")
    held = HeldSerializer(allow_null=True)
    breakers = serializers.DictField(child=serializers.CharField(), help_text="By server, of this process.")
    tracker = serializers.DictField(
        child=serializers.BooleanField(), allow_null=True, help_text="By server: whether it is heard."
    )
    degraded = serializers.CharField(allow_null=True, help_text="Why somebody should look.")
    is_of_process = serializers.BooleanField(help_text="Another process has another one.")


class CacheStatusSerializer(serializers.Serializer):
    """Of the default alias, and of each."""

    server = serializers.CharField(required=False)
    used_memory_bytes = serializers.IntegerField(required=False)
    max_memory_bytes = serializers.IntegerField(required=False)
    hits = serializers.IntegerField(required=False)
    misses = serializers.IntegerField(required=False)
    evicted = serializers.IntegerField(required=False)
    keys = serializers.IntegerField(required=False)
    keys_exact = serializers.BooleanField(required=False)
    degraded = serializers.CharField(allow_null=True)
    aliases = AliasSerializer(many=True)
    functions = serializers.DictField(
        child=serializers.DictField(child=serializers.DictField(child=serializers.IntegerField())),
        help_text="What this process counted: by alias, namespace and event.",
    )


class LatencySerializer(serializers.Serializer):
    count = serializers.IntegerField()
    mean_s = serializers.FloatField(allow_null=True)
    p50_s = serializers.FloatField(allow_null=True)
    p95_s = serializers.FloatField(allow_null=True)
    p99_s = serializers.FloatField(allow_null=True)


class TallySerializer(serializers.Serializer):
    events = serializers.DictField(child=serializers.IntegerField(), help_text="Those that happened.")
    hits = serializers.IntegerField()
    lookups = serializers.IntegerField()
    hit_ratio = serializers.FloatField(allow_null=True, help_text="0 to 1 of the lookups.")
    l1_ratio = serializers.FloatField(allow_null=True, help_text="0 to 1 of the hits: answered from memory.")
    operations = serializers.DictField(child=LatencySerializer())


class NamedTallySerializer(TallySerializer):
    alias = serializers.CharField()
    namespace = serializers.CharField(
        allow_blank=True, help_text="Empty: what belongs to none. Decorated functions have one each."
    )


class AliasTallySerializer(TallySerializer):
    alias = serializers.CharField()


class StatisticsSerializer(serializers.Serializer):
    is_shared = serializers.BooleanField(
        help_text="Of all processes; else of this one, since Redis does not answer or is not there."
    )
    since = serializers.DateTimeField(allow_null=True, help_text="The last reset.")
    aliases = AliasTallySerializer(many=True)
    namespaces = NamedTallySerializer(many=True)


class SlowSerializer(serializers.Serializer):
    alias = serializers.CharField()
    operation = serializers.CharField()
    key = serializers.CharField(help_text="Of several the first.")
    took_s = serializers.FloatField()
    at = serializers.FloatField(help_text="Seconds since the epoch.")


class SlowListSerializer(serializers.Serializer):
    slow = SlowSerializer(many=True)


class StatusView(APIView):
    """Servers, memory, keys and connections of every alias, as the process that answers sees them."""

    @extend_schema(summary="Read the status", responses=CacheStatusSerializer)
    def get(self, request: Request) -> Response:
        found = standing.all_aliases()
        default = next((one for one in found if one.alias == "default"), None)
        if default is not None and default.error:
            raise StoreUnavailable(f"The cache does not answer: {default.error}")
        sums: dict[str, Any] = {"degraded": None}
        if default is not None and default.servers:
            sums = keyspace.Overview(default.servers, default.keys or 0, default.keys_exact).document()
        aliases = [one.document() for one in found]
        return Response({**sums, "aliases": aliases, "functions": stats.snapshot()})


class StatisticsView(APIView):
    """Hits, misses, loads and latencies of all processes since the last reset, by alias and by namespace."""

    @extend_schema(
        summary="Read the statistics",
        parameters=[OpenApiParameter("alias", str, description="Of this alias alone.")],
        responses=StatisticsSerializer,
    )
    def get(self, request: Request) -> Response:
        alias = asked(request, ["alias"])["alias"]
        with told():
            found = operations.statistics(alias)
        tallies = dict(sorted(found.tallies.items()))
        return Response(
            {
                "is_shared": found.is_shared,
                "since": found.since,
                "aliases": [{"alias": name, **tally.document()} for name, tally in by_alias(tallies).items()],
                "namespaces": [_named(*key, tally) for key, tally in tallies.items()],
            }
        )


class ResetView(APIView):
    """All totals begin at zero, for every alias and process. The counters that Prometheus reads go on."""

    @extend_schema(summary="Reset the statistics", request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        with told():
            operations.reset_statistics(**by(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class SlowView(APIView):
    """The last operations that took longer than BRAIN["CACHE"]["SLOW_MS"], of all processes, the newest first."""

    @extend_schema(summary="List slow operations", responses=SlowListSerializer)
    def get(self, request: Request) -> Response:
        found = [
            {
                "alias": one.alias,
                "operation": one.operation,
                "key": one.key,
                "took_s": one.took_s,
                "at": one.at_s,
            }
            for one in stats_store.slow_operations()
        ]
        return Response({"slow": found})


def _named(alias: str, namespace: str, tally: Tally) -> dict[str, Any]:
    return {"alias": alias, "namespace": namespace, **tally.document()}
