"""What `up` has prepared, handed to the process that supervises it: a file without a name, so no secret is on a command line."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Planned:
    """A child: supervisor.Child's fields, and what is known of it when it runs already."""

    name: str
    command: list[str]
    stage: int
    env: dict[str, str]
    forks: bool = True  # `up` may start it as a fork of itself; else it has settings of its own
    pid: int | None = None
    output: int | None = None  # descriptor of the read end of its stdout and stderr


@dataclass
class Plan:
    data_dir: str
    state: dict[str, Any]  # of up.json
    children: list[Planned]
    cord: tuple[int, int]  # descriptors of the children's lifeline: read, write
    began: float  # time.monotonic() when `up` started
    valkey_socket: str | None  # None: REDIS_URL is somebody else's
    valkey_claim: int | None  # descriptor; see embedded.hand_on
    lock: int  # descriptor of up.lock
    note: str = ""
    colour: bool = False
    fail_fast: bool = False
    is_json: bool = False

    def hand_over(self) -> int:
        """Write it down; the descriptor to `take` it from after an exec, with all that it names made to outlive that."""
        with tempfile.TemporaryFile("w+", dir=self.data_dir) as file:
            json.dump(asdict(self), file)
            file.flush()
            number = os.dup(file.fileno())
        outputs = [child.output for child in self.children if child.output is not None]
        for descriptor in (number, self.lock, *self.cord, *outputs):
            os.set_inheritable(descriptor, True)
        return number

    @classmethod
    def take(cls, number: int) -> Plan:
        """After the exec. What it names is closed again to whatever this process starts."""
        with open(number) as file:
            file.seek(0)
            given = json.load(file)
        children = [Planned(**child) for child in given.pop("children")]
        plan = cls(children=children, **{**given, "cord": tuple(given["cord"])})
        outputs = [child.output for child in children if child.output is not None]
        for descriptor in (plan.lock, *plan.cord, *outputs):
            os.set_inheritable(descriptor, False)
        return plan
