"""Chains, groups and batches as values: the places of their jobs, what is refused, what their counts mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_app.composition import (
    BadWorkflow,
    Counts,
    Role,
    Standing,
    Status,
    after,
    batch,
    call,
    calls_for,
    chain,
    counted,
    group,
    is_over,
    plan,
    plan_more,
    rules_out,
    status,
)
from queue_app.states import State

A, B, C, D, E = (call(name, {}) for name in "abcde")


def places(flow: Any) -> list[tuple[str, int | None, int | None]]:
    return [(slot.call.target, slot.behind, slot.opens) for slot in plan(flow)]


def test_plan__chain__each_behind_the_gate_that_the_one_before_opens() -> None:
    assert places(chain(A, B, C)) == [("a", None, 1), ("b", 1, 2), ("c", 2, None)]


def test_plan__group_then_callback__all_open_one_gate() -> None:
    assert places(group(A, B).then(C)) == [("a", None, 1), ("b", None, 1), ("c", 1, None)]
    assert places(group(A, B)) == [("a", None, None), ("b", None, None)]


def test_plan__chains_in_a_group__a_gate_of_their_own_and_then_the_common_one() -> None:
    assert places(group(chain(A, B), C).then(group(D, E))) == [
        ("a", None, 2), ("b", 2, 1), ("c", None, 1), ("d", 1, None), ("e", 1, None),
    ]  # fmt: skip
    assert places(chain(A, group(B, C)).then(D)) == [("a", None, 1), ("b", 1, 2), ("c", 1, 2), ("d", 2, None)]


def test_plan__batch__callbacks_are_places_with_a_role() -> None:
    slots = plan(batch(A, chain(B, C), on_death=D, on_success=E, name="import"))
    assert [(slot.call.target, slot.role) for slot in slots[3:]] == [
        ("e", Role.ON_SUCCESS),
        ("d", Role.ON_DEATH),
    ]
    assert [(slot.behind, slot.opens) for slot in plan_more((chain(A, B),), first_gate=7)] == [
        (None, 7),
        (7, None),
    ]


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (chain(), "an empty chain"),
        (chain(A, group()), "an empty group"),
        (batch(), "an empty batch"),
        (chain("a"), "a str cannot be part"),  # type: ignore[arg-type]
        (chain(batch(A)), "a Batch cannot be part"),  # type: ignore[arg-type]
        (A, "a Call is no workflow"),
        (batch(A, on_success="a"), "on_success is a str"),  # type: ignore[arg-type]
        (chain(A, name="n" * 101), "name is not a text"),
        (chain(A, name="caf\udce9"), "name is not a text"),
    ],
)
def test_plan__what_is_none__says_why(flow: Any, why: str) -> None:
    with pytest.raises(BadWorkflow, match=why):
        plan(flow)


def test_plan__part_of_itself_or_too_deep__is_refused() -> None:
    snake = chain(A)
    object.__setattr__(snake, "nodes", (A, snake))
    with pytest.raises(BadWorkflow, match="cyclic"):
        plan(snake)
    deep = chain(A)
    for _ in range(60):
        deep = chain(deep)
    with pytest.raises(BadWorkflow, match="deep"):
        plan(deep)


@pytest.mark.parametrize(
    ("counts", "calls", "never"),
    [
        (Counts(3, 2, 1), set(), set()),
        (Counts(3, 3, 1), {Role.ON_COMPLETE}, set()),  # one of them will be retried
        (Counts(3, 2, 0, 1), {Role.ON_DEATH}, set()),
        (Counts(3, 3, 2, 1), {Role.ON_DEATH, Role.ON_COMPLETE}, set()),
        (Counts(3, 3, 3), {Role.ON_SUCCESS, Role.ON_COMPLETE}, {Role.ON_DEATH}),
        (Counts(3, 3, 2, 0, 1), {Role.ON_COMPLETE}, {Role.ON_DEATH, Role.ON_SUCCESS}),
    ],
)
def test_calls_for__counts__as_the_roles_say(counts: Counts, calls: set[Role], never: set[Role]) -> None:
    assert calls_for(counts) == calls
    assert rules_out(counts) == never


def test_status__counts__running_blocked_or_over() -> None:
    assert status(Counts(2, 1, 1), is_cancelled=False) == Status.RUNNING
    assert status(Counts(2, 2, 1, 1), is_cancelled=False) == Status.BLOCKED
    assert status(Counts(2, 2, 1, 1), is_cancelled=True) == Status.CANCELLED
    assert status(Counts(2, 2, 2), is_cancelled=False) == Status.COMPLETED
    assert not is_over(Counts(2, 2, 1, 1), is_cancelled=False)


def test_after__steps_of_a_job__count_once_and_a_replay_takes_back() -> None:
    waits = Standing()
    failed = after(waits, State.FAILED)
    dead = after(failed, State.DEAD_LETTER)
    assert (failed, dead) == (Standing("", is_tried=True), Standing("DEAD_LETTER", is_tried=True))
    assert after(dead, State.DEAD_LETTER) == dead
    assert after(dead, State.PENDING) == failed
    done = after(failed, State.COMPLETED)
    assert after(done, State.CANCELLED) == done
    assert after(Standing(is_held=True), State.CANCELLED) == Standing("CANCELLED", is_tried=True)
    counts = Counts(3, 1, 1)
    assert counted(counts, waits, failed) == Counts(3, 2, 1)
    assert counted(counted(counts, waits, dead), dead, done) == Counts(3, 2, 2)
    assert counted(counts, done, done) == counts


# --- any nesting ------------------------------------------------------------------------------------------------------
PARTS = st.lists(
    st.recursive(
        st.none(),
        lambda inner: st.tuples(st.sampled_from("cg"), st.lists(inner, min_size=1, max_size=4)),
        max_leaves=12,
    ),
    min_size=1,
    max_size=3,
)  # of a kind and its parts, in each other; a leaf is None


def built(tree: Any, names: Any) -> tuple[Any, list[int], set[tuple[int, int]]]:
    """The node, its leaves, and which of them come before which, by what the words mean."""
    if tree is None:
        name = next(names)
        return call(name, {}), [name], set()
    kind, parts = tree
    nodes, leaves, before = [], [], set[tuple[int, int]]()
    for part in parts:
        node, inside, order = built(part, names)
        before |= order
        if kind == "c":
            before |= {(first, then) for first in leaves for then in inside}
        nodes.append(node)
        leaves += inside
    return (chain if kind == "c" else group)(*nodes), leaves, before


@settings(deadline=None)
@given(tree=st.tuples(st.sampled_from("cg"), PARTS))
def test_plan__any_nesting__gates_say_who_comes_before_whom(tree: Any) -> None:
    node, leaves, before = built(tree, iter(range(10_000)))
    slots = {slot.call.target: slot for slot in plan(node)}
    assert list(slots) == leaves
    found = {
        (first, then)
        for first in leaves
        for then in leaves
        if slots[first].opens is not None and slots[first].opens == slots[then].behind
    }
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    assert found == before
