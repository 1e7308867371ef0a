"""Mounted by the site at /api/v1/queue/."""

from __future__ import annotations

from django.urls import path

from . import api

app_name = "queue_api"

urlpatterns = [
    path("jobs", api.JobList.as_view(), name="jobs"),
    path("jobs/<uuid:pk>", api.JobDetail.as_view(), name="job"),
    path("jobs/<uuid:pk>/cancel", api.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<uuid:pk>/replay", api.JobReplay.as_view(), name="job-replay"),
    path("workers", api.WorkerList.as_view(), name="workers"),
    path("workers/<uuid:pk>/ask", api.WorkerAsk.as_view(), name="worker-ask"),
    path("queues", api.QueueList.as_view(), name="queues"),
]
