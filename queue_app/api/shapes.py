"""What answers look like that are put together by hand. For the schema: nothing is checked by them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from queue_app import queues, tenants
from queue_app.histograms import COUNTS
from queue_app.models import Queue, Tenant


class Shape(serializers.Serializer[Any]):
    """Of an answer."""


class EnqueuedSerializer(Shape):
    id = serializers.UUIDField()
    is_duplicate = serializers.BooleanField(help_text="It was there already: its unique key is held.")


class ChangedPayloadSerializer(Shape):
    id = serializers.UUIDField()
    changes = serializers.DictField(help_text="By path: what was there before, and what is after.")


class CutSerializer(Shape):
    jobs_cancelled = serializers.IntegerField()
    jobs_asked = serializers.IntegerField(help_text="Those that run, and were asked to stop.")
    jobs_over = serializers.IntegerField(help_text="Before that.")


class FailureSerializer(Shape):
    """Dead letters that failed alike; type, message and task are the newest one's."""

    fingerprint = serializers.CharField()
    type = serializers.CharField()
    message = serializers.CharField()
    task = serializers.CharField()
    newest = serializers.UUIDField()
    jobs = serializers.IntegerField()
    tasks = serializers.IntegerField(help_text="Different ones.")
    queues = serializers.IntegerField(help_text="Different ones.")
    since = serializers.DateTimeField(allow_null=True)
    latest = serializers.DateTimeField(allow_null=True)


class FailuresSerializer(Shape):
    results = FailureSerializer(many=True)
    more = serializers.BooleanField(help_text="There are others, which are less frequent.")


class DepthSerializer(Shape):
    name = serializers.CharField()
    paused = serializers.BooleanField()
    oldest_due_s = serializers.FloatField(help_text="How long its oldest due job has waited; 0: none is due.")
    jobs = serializers.DictField(
        child=serializers.IntegerField(), help_text="By state; completed and cancelled ones of all time."
    )


class DepthsSerializer(Shape):
    results = DepthSerializer(many=True)


class InUseSerializer(Shape):
    held = serializers.IntegerField(help_text="Jobs with a turn, running or about to.")
    unstarted = serializers.IntegerField(help_text="Those of them that no worker has claimed.")
    waiting = serializers.IntegerField(help_text="For a turn.")


class QueueLimitsSerializer(serializers.ModelSerializer[Queue]):
    in_use = InUseSerializer()

    class Meta:
        model = Queue
        fields = ["name", *queues.LIMITS, "in_use"]


class TenantPolicySerializer(serializers.ModelSerializer[Tenant]):
    class Meta:
        model = Tenant
        fields = ["name", *tenants.EDITABLE]


class TenantStandingSerializer(TenantPolicySerializer):
    waiting, held, unstarted = (serializers.IntegerField() for _ in range(3))

    class Meta(TenantPolicySerializer.Meta):
        fields = [*TenantPolicySerializer.Meta.fields, "waiting", "held", "unstarted"]


class TenantsSerializer(Shape):
    results = TenantStandingSerializer(many=True)


class QuantilesSerializer(Shape):
    """Seconds; null: nothing was measured."""

    p50, p95, p99 = (serializers.FloatField(allow_null=True) for _ in range(3))


class TallySerializer(Shape):
    """Counts of steps, and of waits and runs the percentiles."""

    failure_share = serializers.FloatField(allow_null=True, help_text="Of the runs that ended.")
    wait_s, run_s = QuantilesSerializer(), QuantilesSerializer()

    def get_fields(self) -> dict[str, Any]:
        return {name: serializers.IntegerField() for name in COUNTS} | super().get_fields()


class TaskTallySerializer(TallySerializer):
    queue = serializers.CharField()
    name = serializers.CharField(help_text="The task's.")


class StepTallySerializer(TallySerializer):
    at = serializers.DateTimeField(help_text="Where the step begins.")


class QueueStatisticsSerializer(Shape):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    step_s = serializers.IntegerField()
    summary = TaskTallySerializer(many=True)
    series = StepTallySerializer(many=True)


class FiredSerializer(Shape):
    job = serializers.UUIDField()


class BackfilledSerializer(Shape):
    """moments: of a dry run; jobs: of a backfill."""

    moments = serializers.ListField(child=serializers.DateTimeField(), required=False)
    jobs = serializers.ListField(child=serializers.UUIDField(), required=False)


class WantedSerializer(Shape):
    wanted = serializers.IntegerField(help_text="Jobs that it would look at.")
