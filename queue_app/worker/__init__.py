"""What runs inside a Celery worker for the ledger: collect messages, claim, run, finish, and watch over all of it.

bootsteps → strategy → engine (claims and finishes) → runner, forks (the two pools) → underway, stopping, liveness

duties holds what a worker does beside its jobs. See docs/ledger.md.
"""
