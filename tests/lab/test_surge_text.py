"""The driver's short way for pieces of text judges an answer as the parsers do."""

import asyncio
import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from seawall.lab.surge.connection import Connection, PendingTurn
from seawall.lab.surge.outcome import Outcome
from tests.properties import examples

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = ["Hello", ", ", "wörld ", "of", " ", "straße", "🐟", ' "quoted"', "a\\b", "\n", "end"]


class Transport(asyncio.Transport):
    """Takes everything, and does nothing."""

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Parsed(Connection):
    """Without the short way."""

    __slots__ = ()

    def _take_text(self, data: bytes) -> bytes:
        return data


class Counted(Connection):
    """Counts the bytes that went the short way."""

    __slots__ = ("short",)
    short: int

    def _take_text(self, data: bytes) -> bytes:
        rest = super()._take_text(data)
        self.short += len(data) - len(rest)
        return rest


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(name: str, position: int, **fields: object) -> bytes:
    data = json.dumps({"type": name, **fields}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {name}\nid: {position}\ndata: {data}\n\n".encode()


def answer(pieces: list[str]) -> list[bytes]:
    """What a server sends: head, events, end."""
    parts = [HEAD + chunk(event("turn.started", 1, turn="t", session="s", new=True))]
    position = 1
    for piece in pieces:
        position += len(piece)
        parts.append(chunk(event("text.delta", position, text=piece)))
    end = event("turn.completed", position + 1, turn="t", session="s")
    return [*parts, chunk(end) + b"0\r\n\r\n"]


async def judged(kind: type[Connection], parts: list[bytes]) -> tuple[PendingTurn, Connection]:
    ended: list[PendingTurn] = []

    def end(turn: PendingTurn, connection: Connection, *, keep: bool) -> None:
        assert connection is judging
        turn.retry_after = float(keep)  # to be compared as well
        ended.append(turn)

    judging = kind("turns", end, lambda _: None)
    judging.connection_made(Transport())
    if isinstance(judging, Counted):
        judging.short = 0
    turn = PendingTurn(Outcome(0), b"", "".join(PIECES), 0.0)
    judging.ask(turn)
    for part in parts:
        judging.data_received(part)
    judging.connection_lost(None)
    assert ended == [turn]
    turn.outcome.total = 0.0
    turn.outcome.first_text = None if turn.outcome.first_text is None else 0.0
    return turn, judging


async def test_pieces_of_text_take_the_short_way() -> None:
    parts = answer(PIECES)
    turn, connection = await judged(Counted, parts)
    outcome = turn.outcome
    assert isinstance(connection, Counted)
    assert (outcome.error, outcome.turn, outcome.session) == ("", "t", "s")
    plain = [part for part in parts[2:-1] if not re.search(rb"\\", part)]
    assert connection.short == sum(map(len, plain))
    joined = [b"".join(parts[:4]), b"".join(parts[4:])]
    assert (await judged(Counted, joined))[0] == turn


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "drop", "twice", "swap", "byte", "insert"]),
        st.integers(0, 10_000),
        st.sampled_from(
            [
                *(b"\xff", b"\xc3", b"\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc2\x85"),
                *(b"0", b"9", b"A", b"a", b"-", b"+", b" ", b"\t", b";x=1", b"\x7f"),
                *(b"\r", b"\n", b"\n\n", b"\r\n", b"\n\n\r\n", b"0\r\n\r\n", b"1\r\n\n\r\n"),
                *(
                    b'"',
                    b"\\",
                    b"}",
                    b"\0",
                    b"id: 5\n",
                    b"id\n",
                    b"data:\n",
                    b"event: error\n",
                    b":\n",
                ),
            ]
        ),
    ),
    max_size=3,
)


@examples(short=100, long=4_000)
@given(changes=CHANGES, splits=st.lists(st.integers(0, 2_000), max_size=8), whole=st.booleans())
@example(changes=[("byte", 5_489, b"\xff")], splits=[], whole=False)  # an event without an id
async def test_whatever_is_sent_is_judged_alike(
    changes: list[tuple[str, int, bytes]], splits: list[int], whole: bool
) -> None:
    parts = answer(PIECES)
    for change, where, what in changes:
        index = where % len(parts)
        part = parts[index]
        at = where % max(1, len(part))
        if change == "cut":
            parts[index] = part[:at]
        elif change == "drop":
            parts[index] = b""
        elif change == "twice":
            parts.insert(index, part)
        elif change == "swap":
            other = (index + 1) % len(parts)
            parts[index], parts[other] = parts[other], parts[index]
        elif change == "byte":
            parts[index] = part[:at] + what + part[at + len(what) :]
        else:
            parts[index] = part[:at] + what + part[at:]
    if whole:
        everything = b"".join(parts)
        cuts = sorted({min(each, len(everything)) for each in splits})
        edges = zip([0, *cuts], [*cuts, len(everything)], strict=True)
        parts = [everything[begin:end] for begin, end in edges]
    parts = [part for part in parts if part]
    expected, _ = await judged(Parsed, parts)
    assert (await judged(Connection, parts))[0] == expected
