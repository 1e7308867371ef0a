"""How a worker process ends: what runs may end for WARM_STOP_S, the rest waits again, and the process is gone soon after.

    warm: SIGTERM → the loop ends → close → drain (the pool's results are still read) → give back the rest → pool ends
    cold: SIGQUIT → the same with no time to drain
    anew: SIGHUP → warm, then the same program in this process

Signals only set Celery's flags here. Celery works through a cold stop in the handler itself, which may have interrupted
the main thread anywhere: inside a lock that it then waits for, or half-way through a command to the broker.

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
from functools import partial
from typing import Any

import structlog
from celery import platforms, signals
from celery.apps import worker as apps
from celery.platforms import EX_FAILURE
from celery.worker import state

from queue_app.conf import conf

from . import returning
from .engine import Engine

log = structlog.get_logger(__name__)

RECORD_S = 3.0  # for the last ends to reach the database
JOIN_S = 3.0  # for children that have nothing to do to leave; they take one of it to say so
_LOOK_S = 0.1


class Ending:
    """What signals ask of this process. is_anew: that it starts again when the worker has ended.

    Before the worker's row is there: whoever sees that may send one, and what Celery's own handler for SIGHUP hooks into the
    exit, a SIGTERM right behind it would not take back.
    """

    def __init__(self, worker: Any) -> None:
        self.is_anew = False
        signals.worker_shutting_down.connect(self._stay_away, weak=False)
        # An embedded worker is a guest in the process: it can neither end nor replace it, nor does it see signals.
        self.owns_process = isinstance(worker, apps.Worker)
        if self.owns_process:
            _leave_to_the_loop(worker)
            if not worker._isatty and not worker.app.IS_macOS:
                platforms.signals["HUP"] = self._restart

    def forget(self) -> None:
        """The worker has ended."""
        signals.worker_shutting_down.disconnect(self._stay_away)

    def _restart(self, *_: Any) -> None:
        """On SIGHUP. Celery's handler leaves it to an exit hook, which a worker that leaves stuck threads never reaches."""
        self.is_anew = True
        state.should_stop = os.EX_OK

    def _stay_away(self, **_: Any) -> None:
        """A signal asks this worker to end, and not to come back."""
        self.is_anew = False


class Stopping:
    """Of one worker. `close` first; then Celery stops the pool, which is `end_pool` here."""

    def __init__(
        self,
        worker: Any,
        engine: Engine,
        ending: Ending,
        *,
        retire: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        """retire: ends the worker's duties but for its heartbeat; leave: ends that and gives up the worker's row."""
        self._worker, self._engine, self._retire, self._leave = worker, engine, retire, leave
        self._ending, self._owns_process = ending, ending.owns_process
        self._until = 0.0
        self._is_warm = True
        self._waiting: list[Any] = []
        self._pool = _Children(worker) if worker.pool_cls.uses_semaphore else _Threads(worker, engine.runner)
        self._stock_stop = worker.pool.on_stop
        worker.pool.on_stop = self.end_pool
        self._stock_close = worker.blueprint.on_close
        worker.blueprint.on_close = self._withdraw
        self._stock_stopped = worker.blueprint.on_stopped
        worker.blueprint.on_stopped = self.end

    def close(self) -> None:
        """Nothing is claimed or started any more; what waits for a slot goes back."""
        self._until = time.monotonic() + conf().WARM_STOP_S
        self._engine.close()
        self._engine.runner.close()
        self._pool.close()

    def end_pool(self) -> None:
        """In place of the pool's own stop. Nothing is consumed any more."""
        self._give_back_waiting()
        self._drain()
        if not self._is_over():
            self._give_up()
        self._pool.stop(self._stock_stop)
        if not self._pool.is_stuck:
            self._record()

    def end_at_once(self) -> None:
        """After SIGQUIT; Celery's soft shutdown leaves some time even then."""
        self._is_warm = False
        self._until = time.monotonic() + self._worker.app.conf.worker_soft_shutdown_timeout
        self.end_pool()

    def end(self) -> None:
        """When all steps have stopped and the broker's connection is closed."""
        self._stock_stopped()
        self._retire()
        self._record()  # on threads as late as can be: another worker may start what is given back
        self._leave()
        self._ending.forget()
        if self._ending.is_anew:
            _start_anew()
        if self._owns_process and self._pool.is_stuck:  # the interpreter would wait for these threads
            _exit(self._worker.exitcode or 0)

    def fail(self, reason: str) -> None:
        """This worker makes no progress: it must not look alive any longer, so that its supervisor starts it again."""
        log.critical("worker_stalled", reason=reason, pid=os.getpid())
        if not self._owns_process:
            state.should_stop = os.EX_SOFTWARE
            return
        late = threading.Timer(RECORD_S, _exit, (os.EX_SOFTWARE,))  # the database may be what hangs
        late.daemon = True
        late.start()
        self._leave()
        _exit(os.EX_SOFTWARE)

    def recycle_when_stuck(self) -> None:
        """Start this worker anew when a thread does not come back: the only way to be rid of it."""
        since = time.monotonic() - conf().RECYCLE_S
        stuck = [run for run in self._engine.runner.stuck() if run.given_up_at < since]
        if stuck and self._owns_process and not self._engine.is_closed and not self._ending.is_anew:
            log.error("worker_recycled", stuck=len(stuck), jobs=[str(entry.run.id) for entry in stuck])
            self.end_soon(anew=True)

    def end_soon(self, *, anew: bool) -> None:
        """A warm stop, as on SIGTERM, and the same program again when `anew`. From any thread; a second time does nothing."""
        if self._engine.is_closed or self._ending.is_anew:
            return
        if anew and not self._owns_process:
            log.warning("worker_not_recycled", reason="it is embedded in another program")
            return
        self._ending.is_anew = anew
        state.should_stop = os.EX_OK
        self._worker.consumer.call_soon(lambda: None)  # wakes the loop

    def _is_over(self) -> bool:
        return not self._engine.is_alive and not self._pool.is_busy

    def _drain(self) -> None:
        """Celery's loop has ended, and children's results, acknowledgements and time limits depend on it: turn it here."""
        hub = self._worker.hub
        with _turning(hub):
            while not self._is_over() and time.monotonic() < self._until:
                if state.should_terminate and self._is_warm:
                    return
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

    def _withdraw(self) -> None:
        """Before Celery's pool forgets what waits for it."""
        line = returning.line_of(self._worker)
        if line is not None:
            self._waiting = line.withdraw()
        self._stock_close()

    def _give_back_waiting(self) -> None:
        """Celery's own tasks that have not begun: others may run them while this worker drains."""
        waiting, self._waiting = self._waiting, []
        try:
            returning.give_back(waiting)
        except Exception as error:  # noqa: BLE001  (the broker is away: they come again by themselves)
            log.warning("tasks_not_let_go", error=type(error).__name__)

    def _record(self) -> None:
        self._engine.runner.abandon()
        if not self._engine.stop(RECORD_S):  # the lease runs out, and they run again
            log.error("ends_not_recorded", jobs=len(self._engine.held))

    def _give_up(self) -> None:
        log.warning("runs_given_back", running=len(self._engine.running()))
        self._engine.runner.expect_kill()
        self._pool.kill()


def _leave_to_the_loop(worker: Any) -> None:
    """Have the signals of a cold stop set their flag, and nothing more; the loop looks at it every turn."""
    cold = partial(apps._shutdown_handler, how="Cold", exitcode=EX_FAILURE)
    apps.install_worker_term_hard_handler = partial(
        cold, sig="SIGQUIT"
    )  # the second Ctrl-C installs it as well
    cold(worker, sig="SIGQUIT")
    if apps.REMAP_SIGTERM == "SIGQUIT":
        cold(worker, sig="SIGTERM")


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
        self._runner, self._slots = runner, runner.slots

    def close(self) -> None:
        self._slots.close()

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
        return [thread for thread in self._slots.threads if thread.is_alive()]


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
        try:
            self._worker.consumer.cancel_active_requests()  # Celery's own tasks: their messages go back
        except Exception as error:  # noqa: BLE001  (the broker is away, and redelivers them by itself)
            log.warning("tasks_not_cancelled", error=type(error).__name__)
        self._kill_all()

    def stop(self, stock: Callable[[], None]) -> None:
        late = threading.Timer(JOIN_S, self._kill_late)
        late.daemon = True
        late.start()
        try:
            stock()
        finally:
            late.cancel()

    def _kill_late(self) -> None:
        log.warning("children_killed_late")
        self._kill_all()

    def _kill_all(self) -> None:
        pool = self._pool._pool
        for child in list(pool._pool) if pool is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def _drop_unwritten(self) -> None:
        pool = self._pool._pool
        for job in list(pool._cache.values()):
            if not job._accepted and job._write_to is None:
                job.discard()
        pool.outbound_buffer.clear()


def _exit(code: int) -> None:
    """End the process past the threads that do not."""
    _flush()
    os._exit(code)


def _start_anew() -> None:
    """The same program with the same arguments in this process: whatever a thread was stuck in is gone."""
    _flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _flush() -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
