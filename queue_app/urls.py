"""Mounted by the site at /api/v1/queue/."""

from __future__ import annotations

from django.urls import path

from . import api, api_dead

app_name = "queue_api"

urlpatterns = [
    path("jobs", api.JobList.as_view(), name="jobs"),
    path("jobs/<uuid:pk>", api.JobDetail.as_view(), name="job"),
    path("jobs/<uuid:pk>/cancel", api.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<uuid:pk>/replay", api.JobReplay.as_view(), name="job-replay"),
    path("jobs/<uuid:pk>/payload", api_dead.PayloadEdit.as_view(), name="job-payload"),
    path("dead-letters", api_dead.DeadLetters.as_view(), name="dead-letters"),
    path("dead-letters/replays", api_dead.ReplayList.as_view(), name="replays"),
    path("dead-letters/replays/<uuid:pk>", api_dead.ReplayDetail.as_view(), name="replay"),
    path("dead-letters/replays/<uuid:pk>/stop", api_dead.ReplayStop.as_view(), name="replay-stop"),
    path("queues", api.QueueList.as_view(), name="queues"),
]
