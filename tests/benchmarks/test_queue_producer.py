from __future__ import annotations

import io
import json
import sys

import pytest

from benchmarks.queue.producer import answer, each, serve


def test_answer__single_bulk_and_paced__call_every_number_once() -> None:
    called: list[tuple[str, int]] = []
    batches: list[range] = []

    def one(task: str, number: int) -> None:
        called.append((task, number))

    base = {"task": "noop", "first": 10, "count": 5}
    answer({"do": "single", **base}, one, each(one))
    assert called == [("noop", number) for number in range(10, 15)]
    answer({"do": "bulk", "batch": 2, **base}, one, lambda task, numbers: batches.append(numbers))
    assert batches == [range(10, 12), range(12, 14), range(14, 15)]
    said = answer({"do": "paced", "rate": 1000.0, **base}, one, each(one))
    assert len(said["began_ns"]) == 5
    assert said["began_ns"] == sorted(said["began_ns"])


def test_serve__noisy_library__does_not_mix_with_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    command = {"do": "single", "task": "noop", "first": 0, "count": 1}
    count = {"do": "completed", "task": "", "first": 0, "count": 0}
    answers, noise = io.StringIO(), io.StringIO()
    said = [command, count, {"do": "own", "rate": 5}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, said)) + "\n"))
    monkeypatch.setattr(sys, "stdout", answers)
    monkeypatch.setattr(sys, "stderr", noise)
    own = {"own": lambda command: {"rate": command["rate"]}}
    serve(lambda task, number: print("hello"), each(lambda task, number: None), lambda: 7, own)
    ready, done, completed, more = (json.loads(line) for line in answers.getvalue().splitlines())
    assert (ready, completed, more) == ({"ready": True}, {"completed": 7}, {"rate": 5})
    assert done["seconds"] >= 0
    assert noise.getvalue() == "hello\n"
