from __future__ import annotations

import os
from pathlib import Path

from brain_project.plan import Plan, Planned


def test_plan__handed_over_and_taken__is_the_same_and_leaves_no_file(tmp_path: Path):
    (read, write), (output, theirs) = os.pipe(), os.pipe()
    with open(tmp_path / "up.lock", "a") as lock:
        child = Planned("web", ["manage", "runserver"], stage=0, env={"A": "b"}, pid=4, output=output)
        plan = Plan(
            data_dir=str(tmp_path),
            state={"admin": {"password": "secret"}},
            children=[child, Planned("mail", ["mail"], stage=2, env={})],
            cord=(read, write),
            began=1.5,
            valkey_socket=None,
            valkey_claim=None,
            lock=lock.fileno(),
        )
        number = plan.hand_over()
        assert [path.name for path in tmp_path.iterdir()] == ["up.lock"]
        assert all(map(os.get_inheritable, (number, lock.fileno(), read, write, output)))
        assert Plan.take(number) == plan
        assert not any(map(os.get_inheritable, (lock.fileno(), read, write, output)))
    for descriptor in (read, write, output, theirs):
        os.close(descriptor)
