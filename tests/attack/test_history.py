"""The checker on histories written by hand: each kind of violation, and valid histories."""

import pytest

from seawall.turn import AssistantMessage, TurnRecord, Usage, UserMessage
from tests.attack.history import Observation, Operation, violations


def turn(name: str, number: int, attempt: str = "") -> TurnRecord:
    return TurnRecord(
        id=attempt or name,
        number=number,
        created_at=1.0,
        agent="a",
        intent=None,
        messages=(UserMessage(name), AssistantMessage("yes")),
        usage=Usage(),
    )


A = Operation("s", "a", 0.0, 1.0, 1, "a")
B = Operation("s", "b", 2.0, 3.0, 2, "b")
BOTH = (turn("a", 1), turn("b", 2))

POSSIBLE: list[tuple[list[Operation], tuple[TurnRecord, ...], list[Observation]]] = [
    ([A, B], BOTH, [Observation("s", 1, "a", 0.5, 0.6), Observation("s", 2, "b", 3.5, 4.0)]),
    ([Operation("s", "a", 0.0), B], BOTH, []),  # outcome unknown, and it is stored
    ([A, Operation("s", "b", 2.0)], BOTH[:1], []),  # outcome unknown, and it is not stored
    ([A, Operation("s", "b", 2.0, refused=True)], BOTH[:1], []),
    ([A, Operation("s", "b", 2.0, refused=True), B], BOTH, []),
    ([A, Operation("s", "a", 5.0, 6.0, 1, "a"), B], BOTH, []),  # a replay after another turn
    # At the same time: any order will do.
    (
        [Operation("s", "a", 0.0, 5.0, 2, "a"), Operation("s", "b", 4.0, 9.0, 1, "b")],
        (turn("b", 1), turn("a", 2)),
        [],
    ),
]

IMPOSSIBLE: list[tuple[str, list[Operation], tuple[TurnRecord, ...], list[Observation]]] = [
    ("missing", [A, B], BOTH[:1], []),
    ("gaps", [A, B], (turn("a", 1), turn("b", 3)), []),
    ("twice", [A, B], (*BOTH, turn("a", 3, "a again")), []),
    ("elsewhere", [A, Operation("s", "b", 2.0, 3.0, 1, "b")], BOTH, []),
    ("elsewhere", [A, B, Operation("s", "a", 5.0, 6.0, 2, "a")], BOTH, []),  # a replay
    ("elsewhere", [A, B, Operation("z", "a", 5.0, 6.0, 1, "a")], BOTH, []),
    ("elsewhere", [A, B, Operation("s", "a", 5.0, 6.0, 1, "another")], BOTH, []),
    ("unexpected", [A], BOTH, []),
    ("refused", [A, Operation("s", "b", 2.0, refused=True)], BOTH, []),
    (
        "order",
        [Operation("s", "a", 0.0, 1.0, 2, "a"), Operation("s", "b", 2.0, 3.0, 1, "b")],
        (turn("b", 1), turn("a", 2)),
        [],
    ),
    # Its first answer was lost, but a replay was answered before the other began.
    (
        "order",
        [Operation("s", "a", 0.0), Operation("s", "a", 0.5, 1.0, 2, "a"), Operation("s", "b", 2.0)],
        (turn("b", 1), turn("a", 2)),
        [],
    ),
    ("stale", [A, B], BOTH, [Observation("s", 1, "a", 3.5, 4.0)]),
    ("never was", [A, B], BOTH, [Observation("s", 1, "b", 1.5, 1.6)]),
    ("never was", [A, B], BOTH, [Observation("s", 3, "c", 3.5, 4.0)]),
    ("too early", [A, B], BOTH, [Observation("s", 2, "b", 1.5, 1.6)]),
]


@pytest.mark.parametrize(("operations", "turns", "observations"), POSSIBLE)
def test_a_possible_history_has_no_violations(
    operations: list[Operation], turns: tuple[TurnRecord, ...], observations: list[Observation]
) -> None:
    assert violations(operations, {"s": turns}, observations) == []


@pytest.mark.parametrize(("kind", "operations", "turns", "observations"), IMPOSSIBLE)
def test_an_impossible_history_is_found(
    kind: str,
    operations: list[Operation],
    turns: tuple[TurnRecord, ...],
    observations: list[Observation],
) -> None:
    assert any(each.startswith(kind) for each in violations(operations, {"s": turns}, observations))
