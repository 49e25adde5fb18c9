"""A history of operations on a store, and whether it is possible.

A turn is known by its name, which is the text it brings: so it is recognised in the store whatever
became of its answer. A session's turns stand in one order; so with the numbers it is enough to
look at each pair of "was answered" and "began" (real-time order), instead of searching for an order
as a general linearizability checker must (Herlihy and Wing, TOPLAS 12(3), 1990).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from seawall.turn import TurnRecord, UserMessage

__all__ = ["Observation", "Operation", "violations"]

Stored = dict[str, tuple[TurnRecord, ...]]


class Operation(Struct, frozen=True):
    """One attempt at a turn; a turn may be tried several times.

    began, ended: on one clock. number, turn: the position and id that it was acknowledged with,
    None if it was not. refused: it was reported that nothing of this attempt is stored. Neither:
    the outcome is unknown.
    """

    session: str
    name: str
    began: float
    ended: float | None = None
    number: int | None = None
    turn: str | None = None
    refused: bool = False


class Observation(Struct, frozen=True):
    """A session as it was read: its version, and the id of its newest turn."""

    session: str
    version: int
    newest: str | None
    began: float
    ended: float


def violations(
    operations: Iterable[Operation], stored: Stored, observations: Iterable[Observation] = ()
) -> list[str]:
    """What contradicts a store that does each turn once, in one order that all agree on.

    stored: the turns of each session afterwards, oldest first.
    """
    by_name: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_name[operation.name].append(operation)
    positions = {
        _name(turn): (session, turn.number, turn.id)
        for session, turns in stored.items()
        for turn in turns
    }
    found = _torn(stored)
    found += [
        f"unexpected: {name} is stored but was never sent" for name in positions.keys() - by_name
    ]
    for name, attempts in by_name.items():
        found += _untrue(name, attempts, positions.get(name))
    began = {name: min(each.began for each in attempts) for name, attempts in by_name.items()}
    for session, turns in stored.items():
        found += _out_of_order(session, turns, by_name, began)
    acknowledged = [
        each for attempts in by_name.values() for each in attempts if each.number is not None
    ]
    return found + _impossible_observations(observations, stored, acknowledged, began)


def _name(turn: TurnRecord) -> str:
    first = turn.messages[0]
    return first.text if isinstance(first, UserMessage) else ""


def _torn(stored: Stored) -> list[str]:
    """Versions with gaps, and turns that are there more than once."""
    found: list[str] = []
    for session, turns in stored.items():
        numbers = [turn.number for turn in turns]
        if numbers != list(range(1, len(turns) + 1)):
            found.append(f"gaps: {session}: {numbers[:20]}")
    everything = [turn for turns in stored.values() for turn in turns]
    for what in (_name, lambda turn: str(turn.id)):
        counts = Counter(map(what, everything))
        found += [
            f"twice: {each} was applied {count} times"
            for each, count in counts.items()
            if count > 1
        ]
    return found


def _untrue(
    name: str, attempts: Sequence[Operation], stored_at: tuple[str, int, str] | None
) -> list[str]:
    """Acknowledgements and refusals that the stored turns contradict."""
    found: list[str] = []
    for each in attempts:
        if each.number is None:
            continue
        said = (each.session, each.number, each.turn)
        if stored_at is None:
            found.append(f"missing: {name} was acknowledged as {said}")
        elif said != stored_at:
            found.append(f"elsewhere: {name} was acknowledged as {said}, is {stored_at}")
    if stored_at is not None and all(each.refused for each in attempts):
        found.append(
            f"refused: {name} is stored as {stored_at}, although every attempt was refused"
        )
    return found


def _out_of_order(
    session: str,
    turns: Sequence[TurnRecord],
    by_name: dict[str, list[Operation]],
    began: dict[str, float],
) -> list[str]:
    """A turn that was acknowledged before another began comes before it."""
    found: list[str] = []
    earliest, whose = float("inf"), ""  # the first answer that any later turn was given
    for turn in reversed(turns):
        name = _name(turn)
        if began.get(name, earliest) > earliest:
            found.append(f"order: {session}: {whose} was done when {name} began, comes after it")
        answers = [
            each.ended
            for each in by_name.get(name, ())
            if each.number is not None and each.ended is not None
        ]
        if answers and min(answers) < earliest:
            earliest, whose = min(answers), name
    return found


def _impossible_observations(
    observations: Iterable[Observation],
    stored: Stored,
    acknowledged: Sequence[Operation],
    began: dict[str, float],
) -> list[str]:
    """Old states shown as new, and states that never were."""
    found: list[str] = []
    answers: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for each in acknowledged:
        answers[each.session].append((each.ended or 0.0, each.number or 0))
    for times in answers.values():
        times.sort()
    highest: dict[str, int] = defaultdict(int)
    position: dict[str, int] = defaultdict(int)
    for observation in sorted(observations, key=lambda observation: observation.began):
        session, times = observation.session, answers[observation.session]
        while position[session] < len(times) and times[position[session]][0] < observation.began:
            highest[session] = max(highest[session], times[position[session]][1])
            position[session] += 1
        if observation.version < highest[session]:
            found.append(
                f"stale: {session} was shown at {observation.version} after {highest[session]}"
            )
        turns = stored.get(session, ())
        if observation.version > len(turns) or (
            observation.version and turns[observation.version - 1].id != observation.newest
        ):
            found.append(f"never was: {session} at {observation.version} with {observation.newest}")
        elif (
            observation.version
            and began.get(_name(turns[observation.version - 1]), 0.0) > observation.ended
        ):
            found.append(
                f"too early: {session} was shown at {observation.version} before that began"
            )
    return found
