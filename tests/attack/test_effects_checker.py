"""The checker of `bench/effects` finds what must not happen, and nothing where it did not."""

from typing import Any

import msgspec
import pytest
from bench.effects.check import Attempt, Evidence, Turn, check, tabulate
from bench.effects.kill_points import Kill
from bench.effects.ledger import Refund
from bench.effects.model import reply, wordings
from bench.effects.wishes import Operation, Wish, parse, render
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

OPERATION = Operation(op="op-1", order="O-1", amount=12.0, tool="refund_unkeyed")
WISH = Wish(operations=(OPERATION,))
DONE = "op-1: refunded, receipt 1"


def turn(**changes: Any) -> Turn:
    known: dict[str, Any] = {
        "wish": WISH,
        "text": render(WISH),
        "mode": "keyed",
        "key": "key-1",
        "session": "s-1",
        "within": "s-1",
        "attempts": [Attempt(0, 10.0, 12.0, "connection"), Attempt(1, 13.0, 14.0, "acknowledged")],
        "turn": "t-1",
        "answer": DONE,
    }
    return Turn(**known | changes)


def refund(number: int = 1, at: float = 11.0, **changes: Any) -> Refund:
    known: dict[str, Any] = {
        "number": number,
        "at": at,
        "op": "op-1",
        "tool": "refund_unkeyed",
        "key": None,
        "body": "{}",
        "applied": True,
    }
    return Refund(**known | changes)


def stored(identifier: str = "t-1", answer: str = DONE, result: str = DONE) -> dict[str, Any]:
    call = {"id": "c-1", "name": "refund_unkeyed", "arguments": '{"op": "op-1"}'}
    return {
        "id": identifier,
        "messages": [
            {"role": "user", "text": render(WISH)},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "call_id": "c-1", "content": result},
            {"role": "assistant", "text": answer},
        ],
    }


def evidence(**changes: Any) -> Evidence:
    known: dict[str, Any] = {
        "turns": [turn()],
        "refunds": [refund()],
        "sessions": {"s-1": [stored()]},
        "effects": [],
        "kills": [Kill(server=0, point="effect:after", at=11.5, session="s-1", op="op-1")],
    }
    return Evidence(**known | changes)


TWO = structs.replace(
    WISH, operations=(*WISH.operations, structs.replace(WISH.operations[0], op="op-2"))
)
ENDED = {"turn": "", "answer": ""}
LISTED = [{"effect": "t-1.1", "session": "s-1", "arguments": '{"op": "op-1"}'}]
ANOTHER = refund(2, 13.5)
RECORDED = Kill(server=0, point="journal.outcome:after", at=11.5, session="s-1", recorded=("op-1",))

WRONG = {
    "doubled": evidence(refunds=[refund(), ANOTHER]),
    "lost": evidence(refunds=[]),
    "forgotten": evidence(turns=[turn(**ENDED, problem="connection")], sessions={"s-1": []}),
    "misreported": evidence(
        turns=[turn(**ENDED, problem="upstream-refused")],
        sessions={"s-1": [stored(answer="", result="refund_unkeyed failed.")]},
    ),
    "not-stored": evidence(sessions={"s-1": [stored("t-2")]}),
    "stored-twice": evidence(sessions={"s-1": [stored(), stored("t-2")]}),
    "unlisted": evidence(turns=[turn(**ENDED, problem="effect-unknown")]),
    "key-misused": evidence(
        refunds=[refund(key="k"), refund(2, key="k", applied=False, body='{"reason": ""}')]
    ),
    "called-again": evidence(refunds=[refund(), refund(2, 13.5, applied=False)], kills=[RECORDED]),
    "conflict": evidence(
        turns=[turn(attempts=[Attempt(0, 1.0, 2.0, "session-conflict"), *turn().attempts])],
        kills=[],
    ),
    "stuck": evidence(turns=[turn(**ENDED, problem="gave-up")]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_must_not_happen_is_found(kind: str) -> None:
    assert [each.kind for each in check(WRONG[kind])] == [kind]


@pytest.mark.parametrize(
    "right",
    [
        evidence(),
        evidence(turns=[turn(**ENDED, problem="connection")], refunds=[], sessions={"s-1": []}),
        evidence(
            turns=[turn(**ENDED, problem="effect-unknown")], sessions={"s-1": []}, effects=LISTED
        ),
        evidence(  # the session is known only by the effect that is listed
            turns=[turn(**ENDED, wish=TWO, problem="effect-unknown", session="")],
            effects=[LISTED[0] | {"arguments": '{"op": "op-2"}'}],
        ),
    ],
)
def test_what_may_happen_is_not(right: Evidence) -> None:
    assert check(right) == []


def test_a_repetition_counts_at_the_kill_point_between() -> None:
    wrong = WRONG["doubled"]
    (violation,) = check(wrong)
    assert (violation.point, violation.way) == ("effect:after", "retry")
    rows = {each.point: each for each in tabulate(wrong, [violation])}
    assert (rows["effect:after"].kills, rows["effect:after"].turns) == (1, 1)
    assert rows["effect:after"].doubled == {"refund_unkeyed": 1}


def test_the_next_turn_may_be_the_one_that_repeats() -> None:
    wish = Wish(operations=(OPERATION,), asks=True)
    asks = turn(
        wish=wish,
        text=render(wish),
        key="key-2",
        turn="t-2",
        attempts=[Attempt(1, 13.0, 14.0, "acknowledged")],
    )
    lost = turn(**ENDED, mode="leaves", key=None, attempts=[Attempt(0, 10.0, 12.0, "left")])
    found = check(
        evidence(
            turns=[lost, asks],
            refunds=[refund(), ANOTHER],
            sessions={"s-1": [stored("t-2") | {"messages": _answered(render(wish))}]},
            kills=[],
        )
    )
    assert [(each.kind, each.way, each.point) for each in found] == [
        ("doubled", "next turn", "client leaves")
    ]


def _answered(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "text": text}, *stored()["messages"][1:]]


@given(st.randoms(use_true_random=False))
def test_wordings_mean_the_same(chance: Any) -> None:
    written = msgspec.json.decode(wordings(OPERATION, chance))
    assert (written["op"], written["order"], float(written["amount"])) == ("op-1", "O-1", 12.0)
    assert set(written) <= {"op", "order", "amount", "reason"}


@given(st.randoms(use_true_random=False))
def test_the_model_goes_on_where_results_are_missing(chance: Any) -> None:
    second = msgspec.structs.replace(OPERATION, op="op-2")
    wish = Wish(operations=(OPERATION, second))
    messages: list[dict[str, Any]] = [{"role": "user", "content": render(wish)}]
    for _ in range(2):
        answer, calls = reply(messages, chance)
        messages += _played(calls)
        if answer:
            break
    else:
        answer, _ = reply(messages, chance)
    assert answer == "op-1: done; op-2: done"
    asked = Wish(operations=(OPERATION,), asks=True)
    said, calls = reply([*messages, {"role": "user", "content": render(asked)}], chance)
    assert (said, calls) == ("op-1: done", [])


def _played(calls: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    entries = [
        {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call, name, arguments in calls
    ]
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": entries}
    results: list[dict[str, Any]] = [
        {
            "role": "tool",
            "tool_call_id": call,
            "content": f"{msgspec.json.decode(arguments)['op']}: done",
        }
        for call, _, arguments in calls
    ]
    return [message, *results] if calls else []


def test_wishes_are_read_back() -> None:
    assert parse(render(WISH)) == WISH
    assert parse("Hello.") is None
