"""A child that this process started before its exec: all that is left of it is its pid and the pipe it writes to."""

from __future__ import annotations

import asyncio
import os
import threading

LONGEST_LINE_BYTES = 1 << 20


class Adopted:
    """As much of asyncio.subprocess.Process as the supervisor uses. Make one with `adopt`."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader) -> None:
        self.pid, self.stdout = pid, stdout
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._reap, name=f"wait-{pid}", daemon=True).start()

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)  # a waiter's time-out must not end the waiting of the others

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._loop.call_soon_threadsafe(self._ended.set_result, code)


async def adopt(pid: int, output: int) -> Adopted:
    """output: the descriptor of the read end of the child's stdout and stderr."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE_BYTES)
    pipe = open(output, "rb", buffering=0)  # noqa: SIM115  (the transport closes it)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return Adopted(pid, reader)
