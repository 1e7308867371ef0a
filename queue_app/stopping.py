"""How a worker process ends: what runs may end for WARM_STOP_S, the rest waits again, and the process is gone soon after.

    warm: SIGTERM → the loop ends → close → drain (the pool's results are still read) → give back the rest → pool ends
    cold: SIGQUIT → the same with no time to drain

Celery's own stop waits without end for threads, and for children up to 30 s longer than their last task: at the stop it
drops results that they have sent and then waits for them to be counted. Both end here at a deadline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from celery.worker import state

from .conf import conf
from .engine import Engine

log = structlog.get_logger(__name__)

RECORD_S = 3.0  # for the last ends to reach the database
JOIN_S = 3.0  # for children that have nothing to do to leave; they take one of it to say so
_LOOK_S = 0.1


class Stopping:
    """Of one worker. `close` first; then Celery stops the pool, which is `end_pool` here."""

    def __init__(self, worker: Any, engine: Engine, leave: Callable[[], None]) -> None:
        """leave: gives up the worker's row, when nothing is left to record."""
        self._worker, self._engine, self._leave = worker, engine, leave
        self._until = 0.0
        self._is_ending = self._is_recycling = False
        self._pool = _Children(worker) if worker.pool_cls.uses_semaphore else _Threads(worker, engine.runner)
        self._stock_stop = worker.pool.on_stop
        worker.pool.on_stop = self.end_pool
        self._stock_stopped = worker.blueprint.on_stopped
        worker.blueprint.on_stopped = self.end

    def close(self) -> None:
        """Nothing is claimed or started any more; what waits for a slot goes back."""
        self._until = time.monotonic() + conf().WARM_STOP_S
        self._engine.close()
        self._engine.runner.close()
        self._pool.close()

    def end_pool(self) -> None:
        """In place of the pool's own stop."""
        if self._is_ending or state.should_terminate:
            # In the handler of SIGQUIT, which may have interrupted anything: the steps' orderly end follows.
            self._until = 0.0
            return
        self._is_ending = True
        self._drain()
        if not self._is_over():
            self._give_up()
        self._finish()

    def end_at_once(self) -> None:
        """After SIGQUIT."""
        if not self._is_ending:
            self._is_ending = True
            self._give_up()
            self._finish()

    def end(self) -> None:
        """When all steps have stopped and the broker's connection is closed."""
        self._stock_stopped()
        self._leave()
        if self._is_recycling:
            start_anew()
        if self._pool.is_stuck:  # the interpreter would wait for these threads
            leave_now(self._worker.exitcode or 0)

    def recycle_when_stuck(self) -> None:
        """Start this worker anew when a thread does not come back: the only way to be rid of it."""
        since = time.monotonic() - conf().RECYCLE_S
        stuck = [run for run in self._engine.runner.stuck() if run.given_up_at < since]
        if stuck and not self._is_recycling:
            self._is_recycling = True
            log.error("worker_recycled", stuck=len(stuck), jobs=[str(entry.run.id) for entry in stuck])
            state.should_stop = os.EX_OK  # a warm stop, as on SIGTERM
            self._worker.consumer.call_soon(lambda: None)  # wakes the loop

    def _is_over(self) -> bool:
        return not self._engine.is_alive and not self._pool.is_busy

    def _drain(self) -> None:
        """Celery's loop has ended, and children's results, acknowledgements and time limits depend on it: turn it here."""
        hub = self._worker.hub
        with _turning(hub):
            while not self._is_over() and time.monotonic() < self._until:
                self._turn(hub)
                self._pool.look()

    def _turn(self, hub: Any) -> None:
        if hub is None:
            time.sleep(_LOOK_S)
            return
        try:
            hub.run_once()
        except Exception as error:  # noqa: BLE001  (the broker is away: results still come)
            log.warning("loop_failed_at_stop", error=type(error).__name__)
            hub._loop = None
            for descriptor in set(hub.readers) - self._pool.descriptors():
                hub.remove_reader(descriptor)

    def _finish(self) -> None:
        self._pool.stop(self._stock_stop)
        self._engine.runner.abandon()
        if not self._engine.stop(RECORD_S):
            log.error(
                "ends_not_recorded", jobs=len(self._engine.held)
            )  # their lease runs out, and they run again

    def _give_up(self) -> None:
        log.warning("runs_given_back", running=len(self._engine.running()))
        self._engine.runner.expect_kill()
        self._pool.kill()


@contextlib.contextmanager
def _turning(hub: Any) -> Iterator[None]:
    """With a timer, as the loop sleeps until its next one."""
    timer = hub.call_repeatedly(_LOOK_S, lambda: None) if hub is not None else None
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


class _Threads:
    """A pool of threads, or the threads of a pool that has none."""

    def __init__(self, worker: Any, runner: Any) -> None:
        self._runner, self._executor = runner, runner.executor

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    @property
    def is_busy(self) -> bool:
        given_up = {underway.thread for underway in self._runner.stuck()}
        return any(thread.ident not in given_up for thread in self._alive())

    @property
    def is_stuck(self) -> bool:
        return bool(self._alive())

    def descriptors(self) -> set[int]:
        return set()

    def look(self) -> None:
        """Threads need no help."""

    def kill(self) -> None:
        """Threads end with the process."""

    def stop(self, stock: Callable[[], None]) -> None:
        """Not as Celery does, which waits."""

    def _alive(self) -> list[threading.Thread]:
        return [thread for thread in self._executor._threads if thread.is_alive()]


class _Children:
    """Celery's prefork pool on its event loop."""

    is_stuck = False

    def __init__(self, worker: Any) -> None:
        self._worker, self._pool = worker, worker.pool

    def close(self) -> None:
        # The stock flush also drops what a child has read already, whose results then nobody reads.
        self._pool.flush = self._drop_unwritten

    @property
    def is_busy(self) -> bool:
        return bool(self._pool._pool._cache)

    def descriptors(self) -> set[int]:
        return set(self._pool._pool._fileno_to_outq)

    def look(self) -> None:
        """See whose children have died. Celery does not, once the pool is closed."""
        self._pool.did_start_ok()

    def kill(self) -> None:
        self._worker.consumer.cancel_active_requests()  # Celery's own tasks: their messages go back
        for child in list(self._pool._pool._pool):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def stop(self, stock: Callable[[], None]) -> None:
        late = threading.Timer(JOIN_S, self._kill_late)
        late.daemon = True
        late.start()
        try:
            stock()
        finally:
            late.cancel()

    def _kill_late(self) -> None:
        pool = self._pool._pool
        if pool is not None:
            log.warning("children_killed_late", count=len(pool._pool))
            for child in list(pool._pool):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _drop_unwritten(self) -> None:
        pool = self._pool._pool
        for job in list(pool._cache.values()):
            if not job._accepted and job._write_to is None:
                job.discard()
        pool.outbound_buffer.clear()


def leave_now(code: int) -> None:
    """End the process past the threads that do not."""
    _flush()
    os._exit(code)


def start_anew() -> None:
    """The same program with the same arguments in this process: whatever a thread was stuck in is gone."""
    _flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _flush() -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
