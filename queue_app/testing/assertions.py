"""assert_enqueued and its like: what a test says about the jobs that its code has enqueued.

They look at the ledger's rows, so a job counts from its `enqueue` on, committed or not, whatever has become of it since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Unpack, overload
from unittest.mock import ANY

from queue_app.models import Job

from .expectation import Expectation, Terms, expectation, told

_MOST_TOLD = 10


@overload
def assert_enqueued(
    target: Any, payload: Any = ..., *, count: None = None, **terms: Unpack[Terms]
) -> Job: ...
@overload
def assert_enqueued(target: Any, payload: Any = ..., *, count: int, **terms: Unpack[Terms]) -> list[Job]: ...
def assert_enqueued(
    target: Any, payload: Any = ANY, *, count: int | None = None, **terms: Unpack[Terms]
) -> Job | list[Job]:
    """The newest job of this task that fits; with `count` all that fit, of which there must be so many.

    target: as of `enqueue`. payload: what the handler gets; a dict need not name all of it, at any depth, and a value may
    be ANY, a type or a function that says whether it fits; so may the payload. terms: `Terms`.

    AssertionError lists what was enqueued, and how the nearest job differs. Raises UnknownTask, UnknownOption, ValueError.
    """
    wanted = expectation(target, payload, terms)
    return _asserted(wanted, _jobs(wanted), count)


def refute_enqueued(target: Any, payload: Any = ANY, **terms: Unpack[Terms]) -> None:
    """No such job was enqueued; as `assert_enqueued`."""
    wanted = expectation(target, payload, terms)
    _refuted(wanted, _jobs(wanted))


def all_enqueued(target: Any = None, payload: Any = ANY, **terms: Unpack[Terms]) -> list[Job]:
    """The jobs that fit, in the order in which they were enqueued; without a target those of all tasks."""
    wanted = expectation(target, payload, terms)
    return _fitting(wanted, _jobs(wanted))


class Enqueued(Sequence[Job]):
    """The jobs that a block has enqueued, in their order; there once it has ended."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, index: Any) -> Any:
        return self._jobs[index]

    def __repr__(self) -> str:
        return f"<enqueued {self._jobs!r}>"


@contextmanager
def assert_enqueues(
    target: Any = None, payload: Any = ANY, *, count: int | None = None, **terms: Unpack[Terms]
) -> Iterator[Enqueued]:
    """The block enqueues such a job, or `count` of them (0: none); without a target, a job of any task.

    Jobs of before the block are not seen. A job that a `unique` key gave back was there before. Yields those that fit.
    """
    wanted, before = expectation(target, payload, terms), set(Job.objects.values_list("id", flat=True))
    made = Enqueued()
    yield made
    jobs = [job for job in _jobs(wanted) if job.id not in before]
    _asserted(wanted, jobs, count, where=" by the block")
    made._jobs += _fitting(wanted, jobs)


@contextmanager
def refute_enqueues(target: Any = None, payload: Any = ANY, **terms: Unpack[Terms]) -> Iterator[None]:
    """The block enqueues no such job."""
    with assert_enqueues(target, payload, count=0, **terms):
        yield


def _jobs(wanted: Expectation) -> list[Job]:
    jobs = Job.objects.order_by("id")
    return list(jobs if wanted.task is None else jobs.filter(name=wanted.task.name))


def _fitting(wanted: Expectation, jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if not wanted.differences(job)]


def _asserted(
    wanted: Expectation, jobs: Sequence[Job], count: int | None, where: str = ""
) -> Job | list[Job]:
    found = _fitting(wanted, jobs)
    if count is None and found:
        return found[-1]
    if count == len(found):
        return found
    if not found:
        _fail(f"no job of {wanted} was enqueued{where}", wanted, jobs, found)
    _fail(f"{_jobs_of(found, wanted)} enqueued{where}, {count} expected", wanted, jobs, found)


def _refuted(wanted: Expectation, jobs: Sequence[Job]) -> None:
    found = _fitting(wanted, jobs)
    if found:
        _fail(f"{_jobs_of(found, wanted)} enqueued, none expected", wanted, found, found)


def _fail(said: str, wanted: Expectation, jobs: Sequence[Job], found: Sequence[Job]) -> NoReturn:
    lines = [said, _listed(wanted, jobs)]
    others = [job for job in jobs if job not in found]
    if others:
        nearest = min(reversed(others), key=lambda job: len(wanted.differences(job)))
        lines += [
            f"nearest that does not fit: {nearest.id}",
            *(f"  {one}" for one in wanted.differences(nearest)),
        ]
    if wanted.task is not None and not jobs:
        lines.append(_of_others(wanted.task.name))
    raise AssertionError("\n".join(line for line in lines if line))


def _jobs_of(found: Sequence[Job], wanted: Expectation) -> str:
    return f"{len(found)} {'job' if len(found) == 1 else 'jobs'} of {wanted} {'was' if len(found) == 1 else 'were'}"


def _listed(wanted: Expectation, jobs: Sequence[Job]) -> str:
    if not jobs:
        return "" if wanted.task is None else f"of {wanted.task.name} nothing was enqueued"
    lines = [f"enqueued: {len(jobs)}"]
    lines += [f"  {job.id} {'' if wanted.task else job.name + ' '}{told(job)}" for job in jobs[-_MOST_TOLD:]]
    if len(jobs) > _MOST_TOLD:
        lines.insert(1, f"  … {len(jobs) - _MOST_TOLD} before these")
    return "\n".join(lines)


def _of_others(name: str) -> str:
    counts = Counter(Job.objects.exclude(name=name).values_list("name", flat=True))
    told_ = ", ".join(f"{count} of {other}" for other, count in sorted(counts.items()))
    return f"of other tasks: {told_}" if told_ else "nor of any other task"
