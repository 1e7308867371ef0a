"""Runs the embedded Valkey until its last user is gone: `python keeper.py USERS_FILE VALKEY_SERVER ARGS…`.

Started by embedded.py without site-packages, so it imports the standard library alone and stays small.
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from types import FrameType

STOP_TIMEOUT_S = 30.0


def main(users_file: str, command: list[str]) -> int:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(signum: int, frame: FrameType | None) -> None:
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_outlast, args=(users_file, server), daemon=True).start()
    return server.wait()


def _outlast(users_file: str, server: subprocess.Popen[bytes]) -> None:
    """Wait for the exclusive lock, which comes when no user is left; hold it until Valkey has stopped."""
    with open(users_file, "a+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
