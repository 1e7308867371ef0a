"""One table: what is to be done, and whom to tell."""

from __future__ import annotations

from django.db import models


class Task(models.Model):
    title = models.CharField(max_length=200)
    done = models.BooleanField(default=False)
    assignee_email = models.EmailField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (models.CheckConstraint(condition=~models.Q(title=""), name="task_has_a_title"),)

    def __str__(self) -> str:
        return self.title
