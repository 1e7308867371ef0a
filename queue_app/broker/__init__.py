"""The broker's delivery: a plain Celery task, its life told as events, its row written from them.

deliveries (who publishes) → publishing, celery_task (what is told) → journal → stream → recorder → rows

topology names the broker's queues; handlers runs `@task` handlers as Celery tasks; undelivered brings the
messages back that no worker could run. See docs/queue-broker.md.
"""
