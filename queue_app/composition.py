"""What a workflow is made of, as values: calls, chains of them, groups and batches; and what its counts mean.

call → chain | group | batch → plan: one slot for each job, behind one gate at most and opening one gate at most

A gate is open when every job that opens it is COMPLETED. So any nesting of chains and groups is two numbers a job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from .failures import is_clean
from .states import OVER, State

if TYPE_CHECKING:
    from .intake import Options

LONGEST_NAME = 100
_DEEPEST = 50  # chains and groups in each other


class BadWorkflow(ValueError):
    """The workflow cannot be stored, and nothing of it is."""


class Kind(StrEnum):
    CHAIN = "chain"
    GROUP = "group"
    BATCH = "batch"


class Role(StrEnum):
    """What a job is in its workflow: one of its jobs, or what a batch calls when something has happened."""

    MEMBER = ""
    ON_SUCCESS = "on_success"  # all jobs are COMPLETED
    ON_COMPLETE = "on_complete"  # all jobs have run once, whatever came of it
    ON_DEATH = "on_death"  # the first of them is a dead letter


class Status(StrEnum):
    RUNNING = "running"
    BLOCKED = "blocked"  # a dead letter holds it up, until it is replayed or discarded
    COMPLETED = "completed"
    CANCELLED = "cancelled"  # it is over, and jobs of it were cancelled


class Counts(NamedTuple):
    """Of a workflow's jobs; a batch's callbacks are not among them. tried: ran once, or are over."""

    total: int
    tried: int = 0
    completed: int = 0
    dead: int = 0
    cancelled: int = 0


class Standing(NamedTuple):
    """Of a job in its workflow. outcome: the state in which it is over, or none; is_held: it waits for others."""

    outcome: str = ""
    is_tried: bool = False
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """An `enqueue` that is still to be done."""

    target: Any
    payload: Any
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chain:
    nodes: tuple[Node, ...]
    name: str = ""

    def then(self, *nodes: Node) -> Chain:
        """Itself, and then these."""
        return Chain((*self.nodes, *nodes), self.name)


@dataclass(frozen=True, slots=True)
class Group:
    nodes: tuple[Node, ...]
    name: str = ""

    def then(self, *nodes: Node) -> Chain:
        """These, one after the other, when all of the group are COMPLETED."""
        return Chain((self, *nodes), self.name)


@dataclass(frozen=True, slots=True)
class Batch:
    nodes: tuple[Node, ...]
    name: str = ""
    callbacks: Mapping[Role, Call] = field(default_factory=dict)


Node = Call | Chain | Group
Flow = Chain | Group | Batch


class Slot(NamedTuple):
    """A job's place. behind: the gate that it waits at; opens: the gate that waits for it; None for none."""

    call: Call
    behind: int | None = None
    opens: int | None = None
    role: Role = Role.MEMBER


def call(target: Any, payload: Any, **options: Unpack[Options]) -> Call:
    """What `enqueue` would take, for a workflow. A delay and an expiry count from when it need wait for no other job."""
    return Call(target, payload, options)


def chain(*nodes: Node, name: str = "") -> Chain:
    """One after the other: each starts when the one before is COMPLETED. Nodes: calls, chains, groups."""
    return Chain(nodes, name)


def group(*nodes: Node, name: str = "") -> Group:
    """Side by side; `group(…).then(call(…))` goes on when all are COMPLETED."""
    return Group(nodes, name)


def batch(
    *nodes: Node,
    name: str = "",
    on_success: Call | None = None,
    on_complete: Call | None = None,
    on_death: Call | None = None,
) -> Batch:
    """Side by side, and open: more may be added until all are over. The callbacks are jobs as well; see `Role`."""
    given = {Role.ON_SUCCESS: on_success, Role.ON_COMPLETE: on_complete, Role.ON_DEATH: on_death}
    return Batch(nodes, name, {role: one for role, one in given.items() if one is not None})


def plan(flow: Flow) -> list[Slot]:
    """The places of all its jobs, in the order in which they were given. Raises BadWorkflow."""
    if not isinstance(flow, Chain | Group | Batch):
        raise BadWorkflow(f"a {type(flow).__name__} is no workflow: give a chain, a group or a batch")
    if not is_clean(flow.name) or len(flow.name) > LONGEST_NAME:
        raise BadWorkflow(f"name is not a text of up to {LONGEST_NAME} characters")
    if not isinstance(flow, Batch):
        return list(_Planner(1).slots(flow, None, None))
    return plan_more(flow.nodes, first_gate=1) + [
        _callback(role, one) for role, one in flow.callbacks.items()
    ]


def plan_more(nodes: tuple[Node, ...], *, first_gate: int) -> list[Slot]:
    """The places of what is put into a batch whose gates below `first_gate` are taken. Raises BadWorkflow."""
    if not nodes:
        raise BadWorkflow("an empty batch: it would never be over")
    planner = _Planner(first_gate)
    return [slot for node in nodes for slot in planner.slots(node, None, None)]


class _Planner:
    def __init__(self, first_gate: int) -> None:
        self._next_gate = first_gate

    def slots(
        self, node: Any, behind: int | None, opens: int | None, path: tuple[int, ...] = ()
    ) -> Iterator[Slot]:
        if isinstance(node, Call):
            yield Slot(node, behind, opens)
            return
        if not isinstance(node, Chain | Group):
            raise BadWorkflow(
                f"a {type(node).__name__} cannot be part of a workflow: give call(…), chain or group"
            )
        if id(node) in path:
            raise BadWorkflow("cyclic workflow: it is a part of itself")
        if len(path) >= _DEEPEST:
            raise BadWorkflow(f"chains and groups are more than {_DEEPEST} deep in each other")
        if not node.nodes:
            raise BadWorkflow(f"an empty {type(node).__name__.lower()}")
        inside = (*path, id(node))
        if isinstance(node, Group):
            for one in node.nodes:
                yield from self.slots(one, behind, opens, inside)
            return
        for one in node.nodes[:-1]:
            gate, self._next_gate = self._next_gate, self._next_gate + 1
            yield from self.slots(one, behind, gate, inside)
            behind = gate
        yield from self.slots(node.nodes[-1], behind, opens, inside)


def _callback(role: Role, given: Any) -> Slot:
    if not isinstance(given, Call):
        raise BadWorkflow(f"{role} is a {type(given).__name__}, not call(…)")
    return Slot(given, role=role)


# --- what a step changes ----------------------------------------------------------------------------------------------
def after(before: Standing, state: State) -> Standing:
    """How a job stands that has gone to `state`: a replay (PENDING) takes its outcome back, what is final stays."""
    if before.outcome in (State.COMPLETED, State.CANCELLED):
        return before
    outcome = str(state) if state in OVER else ""
    return Standing(outcome, before.is_tried or state != State.PENDING, before.is_held and outcome == "")


def counted(counts: Counts, before: Standing, now: Standing) -> Counts:
    """The counts when one of the workflow's jobs, callbacks apart, stands differently."""

    def moved(state: State) -> int:
        return (now.outcome == state) - (before.outcome == state)

    return Counts(
        counts.total,
        counts.tried + now.is_tried - before.is_tried,
        counts.completed + moved(State.COMPLETED),
        counts.dead + moved(State.DEAD_LETTER),
        counts.cancelled + moved(State.CANCELLED),
    )


# --- what the counts mean ---------------------------------------------------------------------------------------------
def is_over(counts: Counts, *, is_cancelled: bool) -> bool:
    """Whether nothing of it will run any more. A dead letter may be replayed, unless the whole was cancelled."""
    given_up = counts.dead if is_cancelled else 0
    return counts.completed + counts.cancelled + given_up == counts.total


def status(counts: Counts, *, is_cancelled: bool) -> Status:
    if is_over(counts, is_cancelled=is_cancelled):
        return Status.COMPLETED if counts.completed == counts.total else Status.CANCELLED
    return Status.BLOCKED if counts.dead else Status.RUNNING


def calls_for(counts: Counts) -> set[Role]:
    """The callbacks of a batch that are to run by now; each runs once, however often this says so."""
    found = set()
    if counts.dead:
        found.add(Role.ON_DEATH)
    if counts.tried == counts.total:
        found.add(Role.ON_COMPLETE)
    if counts.completed == counts.total:
        found.add(Role.ON_SUCCESS)
    return found


def rules_out(counts: Counts) -> set[Role]:
    """The callbacks that can never run any more: nobody need wait for them."""
    if counts.completed + counts.cancelled < counts.total:
        return set()
    return {Role.ON_DEATH} if counts.completed == counts.total else {Role.ON_DEATH, Role.ON_SUCCESS}
