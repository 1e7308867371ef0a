"""Mounted by the site at /api/v1/queue/."""

from __future__ import annotations

from django.urls import path

from . import api, api_dead, limits_api, schedules_api, stats_api, workflows_api

app_name = "queue_api"

urlpatterns = [
    path("jobs", api.JobList.as_view(), name="jobs"),
    path("jobs/<uuid:pk>", api.JobDetail.as_view(), name="job"),
    path("jobs/<uuid:pk>/cancel", api.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<uuid:pk>/replay", api.JobReplay.as_view(), name="job-replay"),
    path("jobs/<uuid:pk>/cancel-tree", workflows_api.JobTreeCancel.as_view(), name="job-cancel-tree"),
    path("workers", api.WorkerList.as_view(), name="workers"),
    path("workers/<uuid:pk>/ask", api.WorkerAsk.as_view(), name="worker-ask"),
    path("jobs/<uuid:pk>/payload", api_dead.PayloadEdit.as_view(), name="job-payload"),
    path("dead-letters", api_dead.DeadLetters.as_view(), name="dead-letters"),
    path("dead-letters/replays", api_dead.ReplayList.as_view(), name="replays"),
    path("dead-letters/replays/<uuid:pk>", api_dead.ReplayDetail.as_view(), name="replay"),
    path("dead-letters/replays/<uuid:pk>/stop", api_dead.ReplayStop.as_view(), name="replay-stop"),
    path("queues", api.QueueList.as_view(), name="queues"),
    path("stats", stats_api.Stats.as_view(), name="stats"),
    path("workflows", workflows_api.WorkflowList.as_view(), name="workflows"),
    path("workflows/<uuid:pk>", workflows_api.WorkflowDetail.as_view(), name="workflow"),
    path("workflows/<uuid:pk>/jobs", workflows_api.WorkflowJobs.as_view(), name="workflow-jobs"),
    path("workflows/<uuid:pk>/cancel", workflows_api.WorkflowCancel.as_view(), name="workflow-cancel"),
    path("queues/<str:name>/limits", limits_api.QueueLimits.as_view(), name="queue-limits"),
    path("queues/<str:name>/tenants", limits_api.QueueTenants.as_view(), name="queue-tenants"),
    path("schedules", schedules_api.ScheduleList.as_view(), name="schedules"),
    path("schedules/<int:pk>", schedules_api.ScheduleDetail.as_view(), name="schedule"),
    path("schedules/<int:pk>/firings", schedules_api.ScheduleFirings.as_view(), name="schedule-firings"),
    path("schedules/<int:pk>/pause", schedules_api.SchedulePause.as_view(), name="schedule-pause"),
    path("schedules/<int:pk>/resume", schedules_api.ScheduleResume.as_view(), name="schedule-resume"),
    path("schedules/<int:pk>/run", schedules_api.ScheduleRun.as_view(), name="schedule-run"),
    path("schedules/<int:pk>/backfill", schedules_api.ScheduleBackfill.as_view(), name="schedule-backfill"),
]
