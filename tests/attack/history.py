"""What was done to a store and what it said, and whether that can be true."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from msgspec import Struct

from seawall.turn import TurnRecord

__all__ = ["Operation", "violations"]


class Operation(Struct, frozen=True):
    """One turn that somebody tried to commit.

    turn: the id of the attempt. began, ended: on one clock; ended is None where the answer was
    lost. number: as acknowledged, None where it was not. key: its idempotency key, if any;
    several attempts may share one.
    """

    session: str
    turn: str
    began: float
    ended: float | None = None
    number: int | None = None
    key: str | None = None


def violations(
    operations: Iterable[Operation], stored: dict[str, tuple[TurnRecord, ...]]
) -> list[str]:
    """What contradicts a store that does each turn once, in one order that all agree on.

    stored: the turns of each session afterwards, oldest first.
    """
    operations = list(operations)
    found: list[str] = []
    for session, turns in stored.items():
        numbers = [turn.number for turn in turns]
        if numbers != list(range(1, len(turns) + 1)):
            found.append(f"{session}: versions are not gapless: {numbers[:20]}")
        twice = [turn for turn, count in Counter(turn.id for turn in turns).items() if count > 1]
        found += [f"{session}: turn {turn} is applied twice" for turn in twice]
    places = {turn.id: (session, turn.number) for session in stored for turn in stored[session]}
    by_key: dict[str, set[str]] = defaultdict(set)
    for operation in operations:
        where = places.get(operation.turn)
        if operation.key is not None and where is not None:
            by_key[operation.key].add(operation.turn)
        if operation.number is None:
            continue
        if where is None:
            # A retry under a key is answered with the turn that the key had before.
            if operation.key is None:
                found.append(f"{operation.turn} was acknowledged and is missing")
        elif where != (operation.session, operation.number):
            found.append(f"{operation.turn} was acknowledged as {operation.number}, is {where}")
    found += [
        f"key {key} was applied more than once: {sorted(turns)}"
        for key, turns in by_key.items()
        if len(turns) > 1
    ]
    keyed = {each.key for each in operations if each.key and each.number is not None}
    found += [f"key {key} was acknowledged, nothing is there" for key in keyed - set(by_key)]
    return found + _out_of_order(operations, places)


def _out_of_order(operations: list[Operation], places: dict[str, tuple[str, int]]) -> list[str]:
    """A turn that was acknowledged before another began comes before it (real-time order)."""
    found: list[str] = []
    by_session: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.turn in places:
            by_session[operation.session].append(operation)
    for session, each in by_session.items():
        acknowledged = sorted(
            (one for one in each if one.ended is not None and one.number is not None),
            key=lambda one: one.ended or 0.0,
        )
        highest, index = 0, 0
        for later in sorted(each, key=lambda one: one.began):
            while index < len(acknowledged) and (acknowledged[index].ended or 0.0) < later.began:
                highest = max(highest, places[acknowledged[index].turn][1])
                index += 1
            if places[later.turn][1] < highest:
                found.append(f"{session}: {later.turn} began after {highest} was done, is before")
    return found
