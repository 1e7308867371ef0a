"""Behind the gateway these paths are routes; a browser never comes here."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("api/v1/tasks", views.TasksView.as_view(), name="tasks"),
    path("api/v1/tasks/<int:number>", views.TaskView.as_view(), name="task"),
    path("api/v1/stats", views.stats, name="stats"),
    path("healthz", views.healthz, name="healthz"),
]

handler400 = "foundation.problems.handler400"
handler403 = "foundation.problems.handler403"
handler404 = "foundation.problems.handler404"
handler500 = "foundation.problems.handler500"
