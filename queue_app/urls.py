"""Mounted by the site at /api/v1/queue/."""

from __future__ import annotations

from django.urls import path

from .api import (
    alerts,
    bulk_actions,
    dead_letters,
    jobs,
    limits,
    queues,
    schedules,
    stats,
    workers,
    workflows,
)

app_name = "queue_api"

urlpatterns = [
    path("jobs", jobs.JobList.as_view(), name="jobs"),
    path("jobs/<uuid:pk>", jobs.JobDetail.as_view(), name="job"),
    path("jobs/<uuid:pk>/cancel", jobs.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<uuid:pk>/replay", jobs.JobReplay.as_view(), name="job-replay"),
    path("jobs/<uuid:pk>/discard", jobs.JobDiscard.as_view(), name="job-discard"),
    path("jobs/<uuid:pk>/run", jobs.JobRun.as_view(), name="job-run"),
    path("jobs/<uuid:pk>/cancel-tree", workflows.JobTreeCancel.as_view(), name="job-cancel-tree"),
    path("workers", workers.WorkerList.as_view(), name="workers"),
    path("workers/<uuid:pk>/ask", workers.WorkerAsk.as_view(), name="worker-ask"),
    path("jobs/<uuid:pk>/payload", dead_letters.PayloadEdit.as_view(), name="job-payload"),
    path("dead-letters", dead_letters.DeadLetters.as_view(), name="dead-letters"),
    path("bulk-actions", bulk_actions.BulkActionList.as_view(), name="bulk-actions"),
    path("bulk-actions/<uuid:pk>", bulk_actions.BulkActionDetail.as_view(), name="bulk-action"),
    path("bulk-actions/<uuid:pk>/stop", bulk_actions.BulkActionStop.as_view(), name="bulk-action-stop"),
    path("queues", queues.QueueList.as_view(), name="queues"),
    path("stats", stats.Stats.as_view(), name="stats"),
    path("workflows", workflows.WorkflowList.as_view(), name="workflows"),
    path("workflows/<uuid:pk>", workflows.WorkflowDetail.as_view(), name="workflow"),
    path("workflows/<uuid:pk>/jobs", workflows.WorkflowJobs.as_view(), name="workflow-jobs"),
    path("workflows/<uuid:pk>/cancel", workflows.WorkflowCancel.as_view(), name="workflow-cancel"),
    path("queues/<str:name>", queues.QueueDetail.as_view(), name="queue"),
    path("queues/<str:name>/pause", queues.QueuePause.as_view(), name="queue-pause"),
    path("queues/<str:name>/resume", queues.QueueResume.as_view(), name="queue-resume"),
    path("queues/<str:name>/purge", queues.QueuePurge.as_view(), name="queue-purge"),
    path("queues/<str:name>/limits", limits.QueueLimits.as_view(), name="queue-limits"),
    path("queues/<str:name>/tenants", limits.QueueTenants.as_view(), name="queue-tenants"),
    path("alerts", alerts.AlertList.as_view(), name="alerts"),
    path("alerts/<int:pk>", alerts.AlertDetail.as_view(), name="alert"),
    path("alerts/<int:pk>/silence", alerts.AlertSilence.as_view(), name="alert-silence"),
    path("alerts/rules", alerts.RuleList.as_view(), name="alert-rules"),
    path("alerts/rules/<int:pk>", alerts.RuleDetail.as_view(), name="alert-rule"),
    path("alerts/silences", alerts.SilenceList.as_view(), name="alert-silences"),
    path("alerts/silences/<int:pk>/end", alerts.SilenceEnd.as_view(), name="alert-silence-end"),
    path("schedules", schedules.ScheduleList.as_view(), name="schedules"),
    path("schedules/<int:pk>", schedules.ScheduleDetail.as_view(), name="schedule"),
    path("schedules/<int:pk>/firings", schedules.ScheduleFirings.as_view(), name="schedule-firings"),
    path("schedules/<int:pk>/pause", schedules.SchedulePause.as_view(), name="schedule-pause"),
    path("schedules/<int:pk>/resume", schedules.ScheduleResume.as_view(), name="schedule-resume"),
    path("schedules/<int:pk>/run", schedules.ScheduleRun.as_view(), name="schedule-run"),
    path("schedules/<int:pk>/backfill", schedules.ScheduleBackfill.as_view(), name="schedule-backfill"),
]
