"""The checker: what a run did wrong, from the ledger's log, the clients' answers and the sessions.

Pure functions over plain data. Operations are counted by the id that every call carries, so the
product's own keys are not part of the judgement.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from bench.effects.kill_points import Kill
from bench.effects.ledger import Refund
from bench.effects.wishes import Wish
from msgspec import Struct, field

__all__ = [
    "KINDS",
    "Attempt",
    "Evidence",
    "Row",
    "Turn",
    "Violation",
    "check",
    "tabulate",
]

KINDS = (
    "doubled",
    "lost",
    "forgotten",
    "misreported",
    "not-stored",
    "stored-twice",
    "unlisted",
    "key-misused",
    "called-again",
    "conflict",
    "stuck",
)
_NO_KILL = "(no kill)"
_BESIDE = "beside"  # killed by the call of another turn, at random, or by SIGTERM
_MODEL_FAILS = "model fails"
_CLIENT_LEAVES = "client leaves"
_ON_THE_WAY_SECONDS = 0.5  # a request that was sent before a kill may arrive after it
_STOPPED_SECONDS = 8.0  # a process that was stopped goes on some seconds later
UNKNOWN = "effect-unknown"


class Attempt(Struct, frozen=True):
    """A request of a client for a turn.

    Attributes:
        server: Its number.
        began: Unix seconds.
        ended: Unix seconds.
        outcome: "acknowledged", a problem's code, or "connection" for none.
    """

    server: int
    began: float
    ended: float
    outcome: str


class Turn(Struct, kw_only=True):
    """A turn as its client saw it.

    Attributes:
        wish: What was asked for; None for a greeting.
        text: The same as text.
        mode: "keyed", "background", "unkeyed", or "leaves" if the client disconnects.
        within: The session that it was sent in; empty if it opens one.
        session: Its session; empty until it is known.
        key: The idempotency key; None for none.
        attempts: In their order.
        turn: Id of the acknowledged turn; empty if it was not acknowledged.
        answer: Its text.
        problem: Code of the problem that it ended with; empty for none.
    """

    wish: Wish | None
    text: str
    mode: str
    key: str | None
    within: str = ""
    session: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    turn: str = ""
    answer: str = ""
    problem: str = ""

    @property
    def follow_up(self) -> bool:
        """Whether the user asks what became of operations of an earlier turn."""
        return self.wish is not None and self.wish.asks


class Evidence(Struct, frozen=True, kw_only=True):
    """What a run left behind.

    Attributes:
        turns: Of all clients, in the order in which they began.
        refunds: The ledger's log.
        sessions: Stored turns by session, oldest first, as the public API shows them.
        effects: What `GET /v1/effects` lists; None where there is no such endpoint.
        kills: In their order.
    """

    turns: Sequence[Turn]
    refunds: Sequence[Refund]
    sessions: Mapping[str, Sequence[Mapping[str, Any]]]
    effects: Sequence[Mapping[str, Any]] | None
    kills: Sequence[Kill]


class Violation(Struct, frozen=True, kw_only=True):
    """Something that must not happen.

    Attributes:
        kind: One of KINDS.
        op: The operation, or the turn.
        tool: Its tool; empty if it is about a turn.
        point: The kill point that caused it, as far as is known.
        mode: Of the turn.
        way: Of a repetition: "retry", or "next turn" if the user asked again.
        detail: What was seen.
    """

    kind: str
    op: str
    tool: str = ""
    point: str
    mode: str
    way: str = ""
    detail: str


def check(evidence: Evidence) -> list[Violation]:
    """All violations."""
    return [
        *_operations(evidence),
        *_turns(evidence),
        *_keys(evidence),
        *_recorded(evidence),
    ]


def _operations(evidence: Evidence) -> Iterable[Violation]:
    made: dict[str, list[Refund]] = defaultdict(list)
    for refund in evidence.refunds:
        if refund.applied:
            made[refund.op].append(refund)
    asked: dict[str, list[Turn]] = defaultdict(list)
    tools: dict[str, str] = {}
    for turn in evidence.turns:
        for operation in turn.wish.operations if turn.wish else ():
            asked[operation.op].append(turn)
            tools[operation.op] = operation.tool
    for op, turns in asked.items():
        case = _Case(evidence, op, tools[op], turns, made[op])
        yield from _repetitions(case)
        yield from _statements(case)


class _Case(Struct, frozen=True):
    """An operation: the turns that asked for it, and the refunds that were made."""

    evidence: Evidence
    op: str
    tool: str
    turns: Sequence[Turn]
    refunds: Sequence[Refund]

    def violation(self, kind: str, detail: str) -> Violation:
        """A violation by the turn that asked first."""
        return _about(self.evidence, kind, self.turns[0], detail, op=self.op, tool=self.tool)


def _repetitions(case: _Case) -> Iterable[Violation]:
    for before, after in itertools.pairwise(case.refunds):
        maker, repeater = _turn_at(case.turns, before.at), _turn_at(case.turns, after.at)
        way = "retry" if maker is repeater else "next turn"
        yield Violation(
            kind="doubled",
            op=case.op,
            tool=case.tool,
            point=_cause(case.evidence, maker, before.at, after.at, way),
            mode=maker.mode,
            way=way,
            detail=f"receipts {before.number} and {after.number}: {before.body} and {after.body}",
        )


def _statements(case: _Case) -> Iterable[Violation]:
    """What clients and sessions say about an operation, compared with what was done."""
    said = _said(case.evidence, case.op, case.turns)
    receipts = {str(each.number) for each in case.refunds}
    claims = {text: _receipt(text, case.op) for text in said}
    for text, receipt in claims.items():
        if receipt and receipt not in receipts:
            yield case.violation("lost", f"nothing was refunded: {text}")
            break
    if not case.refunds:
        return
    if said:
        if all("failed" in text and not receipt for text, receipt in claims.items()):
            yield case.violation("misreported", f"refunded, but: {said[-1]}")
    elif case.op not in _listed(case.evidence) and not _is_unknown(case):
        yield case.violation("forgotten", "refunded, and neither session nor client knows")


def _is_unknown(case: _Case) -> bool:
    """Whether a client learnt that the outcome is unknown, where nothing lists it yet."""
    problems = {each.problem for each in case.turns}
    return case.evidence.effects is None and UNKNOWN in problems


def _listed(evidence: Evidence) -> str:
    """All that `GET /v1/effects` lists, as one text."""
    return msgspec.json.encode(evidence.effects or ()).decode()


def _said(evidence: Evidence, op: str, turns: Sequence[Turn]) -> list[str]:
    """What clients and sessions say about the outcome of an operation."""
    said = [turn.answer for turn in turns if op in turn.answer]
    sessions = {turn.session for turn in turns if turn.session}
    sessions |= {each["session"] for each in evidence.effects or ()}
    for session in sessions:
        for stored in evidence.sessions.get(session, ()):
            said += _results(stored, op)
    return said


def _results(stored: Mapping[str, Any], op: str) -> list[str]:
    """The results of an operation's calls in a stored turn, and what its answer says of it.

    A turn that is not completed has the results of its last step in its journal.
    """
    calls: set[str] = set()
    found: list[str] = []
    for message in (*stored["messages"], *stored.get("journal", {}).get("outcomes", ())):
        if message["role"] == "assistant":
            calls |= {
                each["id"] for each in message.get("tool_calls", ()) if op in each["arguments"]
            }
            found += [message["text"]] if op in message.get("text", "") else []
        elif message["role"] == "tool" and message["call_id"] in calls:
            found.append(message["content"])
    return found


def _receipt(text: str, op: str) -> str:
    """The receipt that a text claims for an operation; empty for none."""
    _, found, rest = text.partition(f"{op}: refunded, receipt ")
    return rest.split(";")[0].strip() if found else ""


def _turns(evidence: Evidence) -> Iterable[Violation]:
    listed = _listed(evidence)
    for turn in evidence.turns:
        stored = evidence.sessions.get(turn.session, ())
        if turn.turn:
            own = [each for each in stored if each["id"] == turn.turn]
            if not own:
                yield _about(evidence, "not-stored", turn, f"session {turn.session}")
            elif not _ends_with(own[0], turn.answer):
                yield _about(evidence, "not-stored", turn, "with another answer")
        same = [each["id"] for each in stored if _text_of(each) == turn.text]
        if len(same) > 1:
            yield _about(evidence, "stored-twice", turn, f"as {', '.join(same)}")
        conflicts = sum(each.outcome == "session-conflict" for each in turn.attempts)
        if conflicts and _points_of(evidence, turn) <= {_NO_KILL, _MODEL_FAILS, _CLIENT_LEAVES}:
            yield _about(evidence, "conflict", turn, f"{conflicts} times")
        if turn.problem == "gave-up":
            yield _about(evidence, "stuck", turn, f"{len(turn.attempts)} attempts")
        if turn.problem == UNKNOWN and evidence.effects is not None and turn.wish is not None:
            ops = [each.op for each in turn.wish.operations]
            if not any(op in listed for op in ops):
                yield _about(evidence, "unlisted", turn, f"none of {', '.join(ops)}")


def _ends_with(stored: Mapping[str, Any], answer: str) -> bool:
    last = stored["messages"][-1]
    return bool(last["role"] == "assistant" and last.get("text", "") == answer)


def _text_of(stored: Mapping[str, Any]) -> str:
    return next((each["text"] for each in stored["messages"] if each["role"] == "user"), "")


def _keys(evidence: Evidence) -> Iterable[Violation]:
    """An idempotency key names one operation, with the same arguments each time."""
    first: dict[str, Refund] = {}
    asked = {each.op: turn for turn in evidence.turns if turn.wish for each in turn.wish.operations}
    for refund in evidence.refunds:
        if refund.key is None:
            continue
        known = first.setdefault(refund.key, refund)
        if known.body != refund.body and refund.op in asked:
            yield _about(
                evidence,
                "key-misused",
                asked[refund.op],
                f"{known.body} and {refund.body}",
                op=refund.op,
                tool=refund.tool,
            )


def _recorded(evidence: Evidence) -> Iterable[Violation]:
    """An effect whose outcome was recorded is not called again, and its outcome not unknown."""
    asked = {
        each.op: turn
        for turn in reversed(evidence.turns)
        if turn.wish
        for each in turn.wish.operations
    }
    for kill in evidence.kills:
        for op in kill.recorded:
            turn = asked.get(op)
            later = [each for each in evidence.refunds if each.op == op and each.at > kill.at]
            if later and turn is not None:
                yield Violation(
                    kind="called-again",
                    op=op,
                    tool=later[0].tool,
                    point=_name(kill),
                    mode=turn.mode,
                    detail=f"at {later[0].at - kill.at:.2f} s, after its outcome was recorded",
                )


def _about(
    evidence: Evidence, kind: str, turn: Turn, detail: str, *, op: str = "", tool: str = ""
) -> Violation:
    began = turn.attempts[0].began if turn.attempts else 0.0
    return Violation(
        kind=kind,
        op=op or turn.turn or turn.key or turn.text,
        tool=tool,
        point=_cause(evidence, turn, began, float("inf")),
        mode=turn.mode,
        detail=detail,
    )


def _turn_at(turns: Sequence[Turn], at: float) -> Turn:
    """The turn of an operation that was in progress then: the last that had begun."""
    begun = [each for each in turns if each.attempts and each.attempts[0].began <= at]
    return begun[-1] if begun else turns[0]


def _cause(evidence: Evidence, turn: Turn, after: float, before: float, way: str = "") -> str:
    """What happened to a turn in a span of time: its own kill, or one beside it, or something else.

    A kill that another turn's call set off is a random one to this turn.
    """
    if way == "next turn" and turn.wish is not None and turn.wish.fails:
        return _MODEL_FAILS
    if way == "next turn" and turn.mode == "leaves":
        return _CLIENT_LEAVES
    own = beside = ""
    for kill in evidence.kills:
        lasts = _STOPPED_SECONDS if kill.action == "stop" else _ON_THE_WAY_SECONDS
        if not after - lasts <= kill.at <= before:
            continue
        if _is_victim(turn, kill):
            own = _name(kill)
        elif _in_flight(turn, kill):
            beside = _BESIDE
    if own or beside:
        return own or beside
    return _NO_KILL


def _is_victim(turn: Turn, kill: Kill) -> bool:
    """Whether it was a call of this turn that reached the kill point."""
    if not (kill.session or kill.key) or not turn.attempts:
        return False
    if kill.op and turn.wish is not None and kill.op not in {e.op for e in turn.wish.operations}:
        return False
    if kill.op and kill.session != turn.session:  # of an attempt that opened another session
        return not turn.follow_up and turn.wish is not None
    if kill.key and turn.key:
        return kill.key == turn.key
    return kill.session == turn.session and turn.attempts[0].began <= kill.at


def _in_flight(turn: Turn, kill: Kill) -> bool:
    """Whether the turn may have been running in the process that was killed."""
    if turn.mode == "background" and turn.attempts:
        return turn.attempts[0].began <= kill.at <= turn.attempts[-1].ended
    return any(
        each.server == kill.server and each.began <= kill.at <= each.ended + 0.05
        for each in turn.attempts
    )


class Row(Struct, kw_only=True):
    """A line of the table.

    Attributes:
        point: The kill point.
        kills: Processes killed there.
        turns: Turns whose own call it was, or that were in flight.
        doubled: Operations made more than once, by tool.
        by_next_turn: How many of these repetitions are the next turn's, whose model did not know.
        unknown: Turns that ended as `effect-unknown`.
        others: Other violations by kind.
    """

    point: str
    kills: int = 0
    turns: int = 0
    doubled: Counter[str] = field(default_factory=Counter)
    by_next_turn: int = 0
    unknown: int = 0
    others: Counter[str] = field(default_factory=Counter)


def tabulate(evidence: Evidence, violations: Sequence[Violation]) -> list[Row]:
    """The table by kill point; a turn counts for each point that hit it."""
    rows: dict[str, Row] = {}

    def row(point: str) -> Row:
        return rows.setdefault(point, Row(point=point))

    for kill in evidence.kills:
        row(_name(kill)).kills += 1
    for turn in evidence.turns:
        if turn.wish is None:
            continue
        for point in _points_of(evidence, turn):
            row(point).turns += 1
        if turn.problem == UNKNOWN:
            row(_cause(evidence, turn, 0.0, float("inf"))).unknown += 1
    for violation in violations:
        at = row(violation.point)
        if violation.kind == "doubled":
            at.doubled[violation.tool] += 1
            at.by_next_turn += violation.way == "next turn"
        else:
            at.others[violation.kind] += 1
    return sorted(rows.values(), key=lambda each: each.point)


def _name(kill: Kill) -> str:
    return kill.point if kill.action == "kill" else f"{kill.point} ({kill.action})"


def _points_of(evidence: Evidence, turn: Turn) -> set[str]:
    """The kill points that hit a turn, or what else ended it."""
    own = {_name(kill) for kill in evidence.kills if _is_victim(turn, kill)}
    if own:
        return own
    if any(_in_flight(turn, kill) for kill in evidence.kills):
        return {_BESIDE}
    if turn.wish is not None and turn.wish.fails:
        return {_MODEL_FAILS}
    return {_CLIENT_LEAVES if turn.mode == "leaves" else _NO_KILL}
