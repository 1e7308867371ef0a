"""/api/v1/database/status, /pools and /replicas: how the databases stand, as the process that answers sees them."""

from __future__ import annotations

import os
from dataclasses import asdict

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from foundation.api import asked
from orm_app import pools, replicas, standing


class PoolInUseSerializer(serializers.Serializer):
    """Connections; waiting: callers."""

    size = serializers.IntegerField()
    idle = serializers.IntegerField()
    waiting = serializers.IntegerField()
    max = serializers.IntegerField()


class DatabaseSerializer(serializers.Serializer):
    alias = serializers.CharField()
    state = serializers.ChoiceField(["ok", "degraded", "down"])
    detail = serializers.CharField(help_text="Why, without secrets.")
    engine = serializers.CharField()
    name = serializers.CharField()
    server = serializers.CharField(allow_blank=True, help_text="user@host:port; empty for a file.")
    version = serializers.CharField(allow_null=True)
    took_ms = serializers.FloatField(help_text="Of the probe.")
    pending_migrations = serializers.IntegerField(allow_null=True)
    pool = PoolInUseSerializer(allow_null=True, help_text="Of the process that answers.")


class DatabasesSerializer(serializers.Serializer):
    databases = DatabaseSerializer(many=True)


class PoolSerializer(serializers.Serializer):
    """Counts are since the pool was made."""

    alias = serializers.CharField()
    engine = serializers.CharField()
    min_size = serializers.IntegerField()
    max_size = serializers.IntegerField()
    size = serializers.IntegerField(help_text="Connections, idle ones too.")
    in_use = serializers.IntegerField()
    available = serializers.IntegerField(help_text="Idle.")
    waiting = serializers.IntegerField(help_text="Callers.")
    requests_num = serializers.IntegerField()
    queued_num = serializers.IntegerField(help_text="Requests that had to wait.")
    wait_ms = serializers.IntegerField(help_text="Of those, together.")
    errors_num = serializers.IntegerField(help_text="Requests that got no connection.")
    usage_ms = serializers.IntegerField(help_text="From lending to giving back, together.")
    connections_num = serializers.IntegerField(help_text="Attempts to connect.")
    connections_errors = serializers.IntegerField()
    lost_num = serializers.IntegerField(help_text="Found dead.")
    bad_num = serializers.IntegerField(help_text="Given back broken.")
    dirty_num = serializers.IntegerField(help_text="Closed because their session was changed (MySQL).")


class PoolsSerializer(serializers.Serializer):
    process = serializers.IntegerField(help_text="Its pid: every process has pools of its own.")
    pools = PoolSerializer(many=True)


class ReplicaSerializer(serializers.Serializer):
    alias = serializers.CharField()
    cluster = serializers.CharField(help_text="The alias of its primary.")
    usable = serializers.BooleanField(help_text="It gets reads.")
    lag_s = serializers.FloatField(allow_null=True, help_text="How old its answers may be; null: not known.")
    reason = serializers.CharField(allow_blank=True, help_text="Why it gets none.")


class ReplicasSerializer(serializers.Serializer):
    replicas = ReplicaSerializer(many=True)


class StatusView(APIView):
    """State, server, version, pool and pending migrations of every configured database."""

    @extend_schema(summary="Read the status", responses=DatabasesSerializer)
    def get(self, request: Request) -> Response:
        asked(request, ())
        return Response({"databases": [asdict(one) for one in standing.every()]})


class PoolsView(APIView):
    """The connection pools of the process that answers. Those of all processes are at /metrics."""

    @extend_schema(summary="Read the pools", responses=PoolsSerializer)
    def get(self, request: Request) -> Response:
        asked(request, ())
        found = [asdict(one) | {"in_use": one.in_use} for one in pools.stats()]
        return Response({"process": os.getpid(), "pools": found})


class ReplicasView(APIView):
    """Every replica, and whether the process that answers sends reads to it."""

    @extend_schema(summary="Read the replicas", responses=ReplicasSerializer)
    def get(self, request: Request) -> Response:
        asked(request, ())
        return Response({"replicas": [asdict(one) for one in replicas.states()]})
