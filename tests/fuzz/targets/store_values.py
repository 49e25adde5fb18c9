"""Client values that reach the session store: they are stored, or rejected as the client's error.

They never affect other jobs of the same batch.
"""

import asyncio
import atexit
import base64
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from seawall.errors import Problem
from seawall.requests import new_request, session_of
from seawall.storage.dynamodb import head_key, key_record_key, turn_items
from seawall.storage.port import BackgroundJob, Begin, Commit, SessionStore
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import AssistantMessage, Principal, SessionKey, TurnRecord, Usage, UserMessage

__all__ = ["SEEDS", "one_input"]

_ADA = Principal("acme", "ada")
_KEPT = SessionKey("acme", "ada", "kept")
_NOW = 4_000_000_000.0
_KEY_BYTES, _SORT_BYTES, _ITEM_BYTES = 2_048, 1_024, 400_000


def _commit(key: SessionKey, text: str, idempotency_key: str | None = None) -> Commit:
    turn = TurnRecord(
        id=f"trn_{key.session}.1",
        number=1,
        created_at=_NOW,
        agent="a",
        intent=None,
        messages=(UserMessage(text), AssistantMessage(text)),
        usage=Usage(len(text) - 100, len(text) << 60, 1),
    )
    return Commit(
        key=key,
        expected_version=0,
        turn=turn,
        agent="a",
        state={text[:30]: text[:900]},
        expires_at=_NOW + 1_000,
        idempotency_key=idempotency_key,
        fingerprint="f" if idempotency_key is not None else None,
    )


def _begin(key: SessionKey, turn: str, idempotency_key: str | None = None) -> Begin:
    return Begin(
        key=key,
        turn=turn,
        turns=3,
        until=_NOW + 10,
        opens=True,
        idempotency_key=idempotency_key,
        fingerprint="f" if idempotency_key is not None else None,
    )


def _cursor(text: str) -> str:
    """The text as a cursor, and as what is in one."""
    if text[:1] == "!":
        return text[1:]
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _number(text: str) -> int:
    digits = "".join(each for each in text if each in "0123456789")[:400]
    return int(digits or "0") * (-1 if text[:1] == "-" else 1)


async def _background_job(store: SessionStore, text: str) -> None:
    request = new_request(text, session="background", background=True)
    key = SessionKey("acme", "ada", "background")
    background_job = BackgroundJob(key=key, request=request, accepted_at=_NOW, ends_at=_NOW + 60)
    begin = Begin(
        key=key, turn=request.id, turns=1, until=_NOW + 9, opens=True, background_job=background_job
    )
    await store.begin(begin)
    await store.find_job(_ADA, request.id)
    await store.release(begin)


async def _keep(store: SessionStore, text: str) -> None:
    """A turn with that text can be committed, read, and removed again."""
    key = SessionKey("acme", "ada", "odd")
    await store.commit(_commit(key, text))
    found = (await store.load(key, turns=3)).turns
    page = (await store.turns(key, limit=3)).turns
    assert len(found) == 1
    assert found == page
    await store.delete(key)


async def _key(store: SessionStore, text: str) -> None:
    key = SessionKey("acme", "ada", "keyed")
    await store.begin(_begin(key, "t", text))
    await store.commit(_commit(key, "hello", text))
    again = await store.begin(_begin(SessionKey("acme", "ada", "another"), "u", text))
    assert again.replay is not None
    await store.delete(key)


async def _owner(store: SessionStore, text: str) -> None:
    """A subject of that name; its names are allowed as identity allows them."""
    name = "".join(each for each in text if each.isprintable())[:256] or "x"
    owner = Principal(name, name)
    await store.commit(_commit(SessionKey(name, name, "s"), "hello"))
    assert len((await store.sessions(owner, limit=2)).sessions) == 1
    assert await store.erase(owner) == 1


_JOBS: list[Callable[[SessionStore, str], Awaitable[object]]] = [
    lambda store, text: store.turns(_KEPT, limit=2, cursor=_cursor(text)),
    lambda store, text: store.sessions(_ADA, limit=2, cursor=_cursor(text)),
    lambda store, text: store.archives(limit=2, cursor=_cursor(text)),
    lambda store, text: store.turns(_KEPT, limit=_number(text)),
    lambda store, text: store.sessions(_ADA, limit=_number(text)),
    lambda store, text: store.load(SessionKey("acme", "ada", text), turns=2),
    lambda store, text: store.turns(SessionKey("acme", "ada", text), limit=2),
    lambda store, text: store.delete(SessionKey("acme", "bob", text)),
    lambda store, text: store.find_job(_ADA, text),
    lambda store, text: store.load(SessionKey("acme", "ada", session_of(text) or ""), turns=2),
    _background_job,
    _keep,
    _key,
    _owner,
]

SEEDS: list[bytes] = [
    bytes([job]) + text
    for job in range(len(_JOBS))
    for text in (
        b"9223372036854775808",
        b"-1",
        b"3",
        b'"kept"',
        b'["a","b","c"]',
        b"!not base64",
        b"\xed\xa0\x80",  # half a surrogate pair
        b"a\x00b",
        "\U0001f600".encode() * 256,
        b"#%" * 128,
        b"trn_kept.1",
    )
]


class _Stage:
    """A store with a session that is kept, and its event loop; made for the first input."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.mkdtemp(prefix="seawall-fuzz-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self.store = SqliteStore(Path(self._folder) / "s.db", clock=lambda: _NOW)
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        await self.store.open()
        await self.store.commit(_commit(_KEPT, "hello"))

    async def play(self, job: Awaitable[object]) -> BaseException | None:
        """The error of a job in a batch whose other jobs must not fail."""
        before = [self.store.load(_KEPT, turns=2), self.store.turns(_KEPT, limit=2)]
        after = [self.store.sessions(_ADA, limit=2), self.store.load(_KEPT, turns=0)]
        outcomes = await asyncio.gather(*before, job, *after, return_exceptions=True)
        outcome = outcomes.pop(len(before))
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        if failures:
            raise AssertionError("another job failed") from failures[0]
        return outcome if isinstance(outcome, BaseException) else None


_stages: list[_Stage] = []


def one_input(data: bytes) -> None:
    """Do the job that the first byte names with the text that the others are.

    Raises:
        AssertionError: it failed otherwise than as the client's mistake, or another job failed.
    """
    if not data:
        return
    if not _stages:
        _stages.append(_Stage())
    stage = _stages[0]
    text = _text(data[1:])
    job = _JOBS[(data[0] & 0x7F) % len(_JOBS)]
    failure = stage.loop.run_until_complete(stage.play(job(stage.store, text)))
    if failure is not None and not (isinstance(failure, Problem) and failure.status < 500):
        raise AssertionError(f"{type(failure).__name__} is not the client's mistake") from failure
    _check_items(text)


def _text(data: bytes) -> str:
    """Text of any kind, with half surrogate pairs where the bytes are no UTF-8."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def _check_items(text: str) -> None:
    """Requests to DynamoDB are within its limits, or rejected as the client's error.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
    """
    key = SessionKey(text[:256] or "x", "ada", "s")
    try:
        items = [head_key(key), key_record_key(key, "k")]
        items += turn_items(key, _commit(key, text).turn, created_at=_NOW, expires_at=_NOW)
    except Problem as problem:
        if problem.status >= 500 and problem.code != "turn-limit-reached":
            raise AssertionError("it is not the client's mistake") from problem
        return
    except UnicodeEncodeError:  # a name with half a surrogate pair: identity lets none in
        if text[:256].isprintable():
            raise
        return
    for item in items:
        assert 1 <= len(item["pk"]["S"].encode("utf-8", "surrogatepass")) <= _KEY_BYTES
        assert 1 <= len(item["sk"]["S"].encode()) <= _SORT_BYTES
        assert len(item["p"]["B"] if "p" in item else b"") <= _ITEM_BYTES
