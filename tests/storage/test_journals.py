"""The contract of turns with effects: journals, waits, decisions, sleeping jobs, audit chains."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, structs

from seawall.errors import InvalidField, SessionConflict, TurnLimitReached
from seawall.storage.audit import missing_before, verify
from seawall.storage.port import AuditRecord, BackgroundJob, JournalWrite, SessionStore, Wait
from seawall.turn import (
    AssistantMessage,
    Decision,
    Journal,
    Principal,
    SessionKey,
    TurnRecord,
    TurnRequest,
    Usage,
    UserMessage,
)
from tests.storage.calls import KEY, NOW, Clock, begin, commit, look

ADA = Principal("acme", "ada")


def journal(revision: int, turn: str = "t1", **changes: Any) -> JournalWrite:
    """Revision `revision` of the turn; `number` and `status` are its record's."""
    owner = changes.get("lease_owner", turn)
    record = TurnRecord(
        id=turn,
        number=changes.pop("number", 1),
        created_at=NOW,
        agent="a",
        intent=None,
        messages=(UserMessage("pay"), AssistantMessage(changes.pop("text", f"step {revision}"))),
        usage=Usage(),
        journal=Journal(status=changes.pop("status", "open"), revision=revision, writer=owner),
    )
    values: dict[str, Any] = {
        "key": KEY,
        "turn": record,
        "lease_owner": owner,
        "until": NOW + 10,
        "agent": "a",
        "state": None,
        "expires_at": NOW + 1_000,
    }
    return JournalWrite(**(values | changes))


def wait_of(number: int = 1, turn: str = "t1", key: SessionKey = KEY) -> Wait:
    return Wait(
        id=f"{turn}.{number}",
        key=key,
        turn=turn,
        number=1,
        call="c1",
        kind="approval",
        tool="pay",
        agent="a",
        arguments="{}",
        created_at=NOW,
        expires_at=NOW + 500,
    )


def audit_of(effect: str = "t1.1", key: SessionKey = KEY, **changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "key": key,
        "turn": "t1",
        "kind": "effect",
        "effect": effect,
        "call": "c1",
        "tool": "pay",
        "agent": "a",
        "arguments": "{}",
        "status": "done",
        "at": NOW,
    }
    return AuditRecord(**(values | changes))


def sleeping_job(attempt: int = 1, turn: str = "t1", key: SessionKey = KEY) -> BackgroundJob:
    request = TurnRequest(id=turn, text="pay", session=key.session, opens=True, background=True)
    return BackgroundJob(
        key=key, request=request, accepted_at=NOW, ends_at=NOW + 900, attempt=attempt
    )


def paused(revision: int = 1, **changes: Any) -> JournalWrite:
    values: dict[str, Any] = {
        "status": "paused",
        "until": None,
        "sleeps": sleeping_job(),
        "sleeps_until": NOW + 500,
        "waits": (wait_of(),),
    }
    return journal(revision, **(values | changes))


async def test_a_journal_is_the_turn_and_keeps_the_lease(store: SessionStore) -> None:
    for revision in (1, 2, 3):
        write = journal(revision, state={"n": "x"} if revision == 1 else None)
        await store.journal(write)
        await store.journal(write)
        loaded = await store.load(KEY, turns=5)
        assert loaded.session is not None
        assert (loaded.session.version, loaded.session.state) == (1, {"n": "x"})
        assert loaded.turns == (write.turn,)
        other = await store.begin(begin(KEY, "other"))
        assert other.session_lease is not None
        assert other.session_lease.owner == "t1"
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 1))
    last = journal(4, status="completed", until=None)
    await store.journal(last)
    await store.journal(last)
    await store.commit(commit(KEY, 1))
    assert [each.id for each in (await store.load(KEY, turns=5)).turns] == ["t1", "t2-hello"]
    page = await store.turns(KEY, limit=5)
    assert page.turns[1] == last.turn


async def test_a_revision_follows_the_one_before_of_the_same_turn(store: SessionStore) -> None:
    with pytest.raises(SessionConflict):
        await store.journal(journal(2))
    await store.journal(journal(1))
    for wrong in (
        journal(3),
        journal(1, text="different"),
        journal(2, "t9"),
        journal(2, lease_owner="t1~2"),
        journal(1, "t9", number=2),
        journal(2, number=2),
    ):
        with pytest.raises(SessionConflict):
            await store.journal(wrong)
    await store.journal(journal(2, until=None))
    with pytest.raises(SessionConflict):  # the lease has ended
        await store.journal(journal(3))
    assert (await store.load(KEY, turns=5)).turns == (journal(2).turn,)
    await store.commit(commit(KEY, 1))
    with pytest.raises(SessionConflict):
        await store.journal(journal(1, "t9", number=2))
    await store.journal(journal(1, "t9", number=3))


async def test_a_lease_that_expired_is_kept_until_another_takes_it(
    store: SessionStore, clock: Clock
) -> None:
    await store.journal(journal(1))
    clock.now = NOW + 11
    await store.journal(journal(2, until=NOW + 20))
    clock.now = NOW + 21
    found = await store.begin(begin(KEY, "other", until=NOW + 40))
    assert found.session_lease is None
    assert found.turns == (journal(2).turn,)
    with pytest.raises(SessionConflict):
        await store.journal(journal(3))
    # The one that took over continues the turn.
    await store.journal(journal(3, lease_owner="other", until=NOW + 50))


async def test_a_lease_ends_with_its_session(store: SessionStore, clock: Clock) -> None:
    await store.journal(journal(1, until=NOW + 20, expires_at=NOW + 5))
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 0, by="t2"))
    clock.now = NOW + 5
    assert (await look(store, KEY, 1, "k")).session_lease is None
    await store.commit(commit(KEY, 0, by="t2"))
    assert [each.id for each in (await look(store, KEY, 1, "k")).turns] == ["t2"]


async def test_the_first_revision_binds_the_key(store: SessionStore) -> None:
    await store.begin(begin(KEY, "t1", opens=True, idempotency_key="k"))
    await store.journal(journal(1, idempotency_key="k", fingerprint="f"))
    replay = (await look(store, SessionKey("acme", "ada", "new"), 1, "k")).replay
    assert replay is not None
    assert (replay.session, replay.fingerprint, replay.turn) == ("s1", "f", journal(1).turn)
    elsewhere = SessionKey("acme", "ada", "s2")
    with pytest.raises(SessionConflict):
        await store.journal(journal(1, "t2", key=elsewhere, idempotency_key="k", fingerprint="f"))
    assert (await store.load(elsewhere, turns=1)).session is None
    await store.journal(journal(2, idempotency_key="k", fingerprint="f"))
    replay = (await look(store, KEY, 1, "k")).replay
    assert replay is not None
    assert replay.turn == journal(2).turn
    await store.journal(journal(3, status="completed", until=None))
    await store.delete(KEY)
    await store.journal(journal(1, "t2", key=elsewhere, idempotency_key="k", fingerprint="f"))


async def test_a_turn_sleeps_until_it_is_decided(store: SessionStore) -> None:
    await store.journal(paused())
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.find_job(ADA, "t1") == sleeping_job()
    assert await store.claim_job(sleeping_job(), until=NOW + 20) is None
    loaded = await store.load(KEY, turns=1)
    assert loaded.session is not None
    assert loaded.session.lease is None
    assert (await store.waits("acme", limit=9)).waits == (wait_of(),)
    assert await store.find_wait("acme", "t1.1") == wait_of()
    decision = Decision("approve", "eve", NOW + 1, note="ü\ud800")
    record = audit_of(kind="decision", status="approve")
    results = await asyncio.gather(*(store.decide(wait_of(), decision, record) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    found = await store.find_wait("acme", "t1.1")
    assert found is not None
    assert found.decision == structs.replace(decision, note="ü\ufffd")
    assert len((await store.audit(limit=9)).records) == 1
    assert await store.orphaned_jobs(limit=9) == (sleeping_job(),)
    claims = [await store.claim_job(sleeping_job(), until=NOW + 20) for _ in range(2)]
    assert claims == [sleeping_job(attempt=2), None]
    assert await store.orphaned_jobs(limit=9) == ()
    again = await store.begin(begin(KEY, "t1~2", until=NOW + 20))
    assert again.session_lease is None
    assert again.turns == (paused().turn,)
    last = journal(
        2,
        lease_owner="t1~2",
        status="completed",
        until=None,
        attempt=2,
        ends_job=True,
        ended=("t1.1",),
        audit=(audit_of(),),
    )
    with pytest.raises(SessionConflict):
        await store.journal(structs.replace(last, attempt=1))
    await store.journal(last)
    await store.journal(last)
    assert await store.find_job(ADA, "t1") is None
    assert await store.find_wait("acme", "t1.1") is None
    assert not await store.decide(wait_of(), decision, record)
    records = (await store.audit(tenant="acme", limit=9)).records
    assert [each.kind for each in records] == ["decision", "effect"]
    assert verify(records) is None


async def test_a_turn_wakes_when_its_time_has_come(store: SessionStore, clock: Clock) -> None:
    await store.journal(paused())
    clock.now = NOW + 499
    assert await store.orphaned_jobs(limit=9) == ()
    clock.now = NOW + 501
    assert await store.orphaned_jobs(limit=9) == (sleeping_job(),)
    claims = await asyncio.gather(
        *(store.claim_job(sleeping_job(), until=NOW + 520) for _ in range(5))
    )
    assert [each for each in claims if each is not None] == [sleeping_job(attempt=2)]
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.find_job(ADA, "t1") == sleeping_job(attempt=2)


async def test_a_decision_between_claim_and_pause_is_not_lost(
    store: SessionStore,
) -> None:
    waits = (wait_of(1), wait_of(2))
    await store.journal(paused(waits=waits))
    assert await store.decide(waits[0], Decision("approve", "eve", NOW), audit_of())
    assert await store.claim_job(sleeping_job(), until=NOW + 20)
    await store.begin(begin(KEY, "t1~2", until=NOW + 20))
    again = paused(
        2,
        lease_owner="t1~2",
        attempt=2,
        sleeps=sleeping_job(2),
        waits=(),
        ended=("t1.1",),
        undecided=("t1.2",),
    )
    assert await store.decide(waits[1], Decision("reject", "eve", NOW), audit_of("t1.2"))
    with pytest.raises(SessionConflict):
        await store.journal(again)
    assert await store.find_wait("acme", "t1.1") is not None
    assert await store.find_job(ADA, "t1") == sleeping_job(attempt=2)
    # Of another that is not decided, it can pause again, and be woken again.
    third = structs.replace(again, waits=(wait_of(3),), undecided=(), ended=("t1.1", "t1.2"))
    await store.journal(third)
    await store.journal(third)
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.decide(wait_of(3), Decision("approve", "eve", NOW), audit_of("t1.3"))
    assert await store.orphaned_jobs(limit=9) == (sleeping_job(attempt=2),)


async def test_waits_are_listed_by_tenant_and_turn(store: SessionStore) -> None:
    waits = tuple(wait_of(number) for number in range(1, 6))
    await store.journal(journal(1, waits=waits))
    other = SessionKey("acme", "eve", "s2")
    await store.journal(journal(1, "t11", key=other, waits=(wait_of(1, "t11", other),)))
    foreign = SessionKey("other", "ada", "s1")
    await store.journal(journal(1, key=foreign, waits=(wait_of(1, "t1", foreign),)))
    for turn, wanted in ((None, 6), ("t1", 5), ("t11", 1), ("t", 0)):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.waits("acme", turn=turn, limit=2, cursor=cursor)
            seen += [each.id for each in page.waits]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(seen) == wanted
        assert seen == sorted(set(seen))
    await store.delete(KEY)
    assert [each.id for each in (await store.waits("acme", limit=9)).waits] == ["t11.1"]
    await store.erase(Principal("acme", "eve"))
    assert (await store.waits("acme", limit=9)).waits == ()
    assert len((await store.waits("other", limit=9)).waits) == 1


async def test_chains_are_complete_whoever_appends(store: SessionStore) -> None:
    await store.journal(journal(1, audit=(audit_of("t1.1"), audit_of("t1.2"))))
    await asyncio.gather(
        *(store.append_audit(audit_of(f"x{number}", outcome="ü\ud800")) for number in range(4)),
        store.journal(journal(2, audit=(audit_of("t1.3"),))),
    )
    eve = SessionKey("acme", "eve", "s1")
    foreign = SessionKey("other", "ada", "s1")
    await store.append_audit(audit_of(key=eve))
    await store.append_audit(audit_of(key=foreign))
    seen: list[AuditRecord] = []
    cursor: str | None = None
    while True:
        page = await store.audit(limit=2, cursor=cursor)
        seen += page.records
        cursor = page.cursor
        if cursor is None:
            break
    mine = [each for each in seen if each.key == KEY]
    assert [each.number for each in mine] == list(range(1, 8))
    assert len(seen) == 9
    assert verify(mine) is None
    assert verify([each for each in seen if each.key == eve]) is None
    assert {each.key.tenant for each in (await store.audit(tenant="acme", limit=99)).records} == {
        "acme"
    }
    # It outlives the session, but not the subject's erasure.
    await store.journal(journal(3, until=None, status="completed"))
    await store.delete(KEY)
    assert len((await store.audit(tenant="acme", limit=99)).records) == 8
    await store.erase(ADA)
    assert [each.key for each in (await store.audit(tenant="acme", limit=99)).records] == [eve]


async def test_deleting_and_erasing_removes_sleeping_jobs(
    store: SessionStore, clock: Clock
) -> None:
    other = SessionKey("acme", "ada", "s2")
    await store.journal(paused())
    await store.journal(
        paused(
            turn="t2",
            key=other,
            sleeps=sleeping_job(turn="t2", key=other),
            waits=(wait_of(1, "t2", other),),
        )
    )
    await store.delete(KEY)
    assert await store.find_job(ADA, "t1") is None
    assert await store.find_job(ADA, "t2") is not None
    clock.now = NOW + 501
    assert [each.request.id for each in await store.orphaned_jobs(limit=9)] == ["t2"]
    assert await store.erase(ADA) == 1
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.find_job(ADA, "t2") is None


async def test_a_large_turn_may_shrink(store: SessionStore) -> None:
    import random  # noqa: PLC0415 - only here

    noise = random.Random(1).randbytes(900_000).hex()
    await store.journal(journal(1, text=noise))
    assert (await store.load(KEY, turns=1)).turns == (journal(1, text=noise).turn,)
    await store.journal(journal(2, text="short"))
    assert (await store.load(KEY, turns=1)).turns == (journal(2, text="short").turn,)
    await store.journal(journal(3, text=noise))
    assert (await store.load(KEY, turns=1)).turns == (journal(3, text=noise).turn,)


async def test_an_expired_sessions_name_is_free_for_a_journal(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0))
    await store.commit(commit(KEY, 1))
    clock.now = NOW + 1_001
    await store.journal(journal(1, until=NOW + 1_020, expires_at=NOW + 2_000))
    assert (await store.load(KEY, turns=9)).turns == (journal(1).turn,)


async def test_archives_have_journals(store: SessionStore) -> None:
    await store.journal(paused())
    (archive,) = (await store.archives(limit=9)).archives
    assert archive.turns == (paused().turn,)
    await store.delete(KEY)
    assert await store.restore(archive)
    assert (await store.load(KEY, turns=9)).turns == (paused().turn,)


async def test_a_clock_that_is_set_back_neither_wakes_nor_locks(
    store: SessionStore, clock: Clock
) -> None:
    await store.journal(paused())
    clock.now = NOW - 100_000
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.claim_job(sleeping_job(), until=clock.now + 20) is None
    clock.now = NOW
    other = SessionKey("acme", "ada", "s2")
    await store.commit(commit(other, 0))
    clock.now = NOW + 900
    await store.begin(begin(other, "dead", until=NOW + 920))
    clock.now = NOW - 900  # that lease would last for too long
    await store.journal(journal(1, "t2", key=other, number=2, until=clock.now + 10))


async def test_hostile_names_and_texts(store: SessionStore) -> None:
    key = SessionKey("a#%", "b#A#", "s#1")
    text = "\ud800\x00ü\U0001f600 {}"
    clean = text.replace("\ud800", "\ufffd")
    wait = structs.replace(wait_of(key=key), arguments=text, tool=text)
    record = audit_of(key=key, outcome=text, arguments=text)
    await store.journal(
        paused(key=key, waits=(wait,), audit=(record,), sleeps=sleeping_job(key=key), text=text)
    )
    assert await store.find_wait("a#%", "t1.1") == structs.replace(
        wait, arguments=clean, tool=clean
    )
    (stored,) = (await store.audit(tenant="a#%", limit=9)).records
    assert (stored.outcome, verify([stored])) == (clean, None)
    assert (await store.audit(tenant="a", limit=9)).records == ()
    assert await store.decide(wait, Decision("approve", text, NOW, note=text), record)
    for name in ("", "\x00", "\ud800", "x" * 3_000):
        assert await store.find_wait("a#%", name) is None
        assert (await store.waits("a#%", turn=name, limit=9)).waits == ()
        assert (await store.audit(tenant=name or "\x00", limit=9)).records == ()
        assert not await store.decide(
            structs.replace(wait, id=name), Decision("x", "", NOW), record
        )
    await store.erase(Principal("a#%", "b#A#"))
    assert (await store.audit(limit=9)).records == ()


async def test_what_is_too_large_or_misnamed_is_refused(store: SessionStore) -> None:
    for wrong in (
        journal(1, waits=(structs.replace(wait_of(), arguments="x" * 400_000),)),
        journal(1, audit=(audit_of(outcome="x" * 400_000),)),
        journal(1, waits=(structs.replace(wait_of(), id="\x00"),)),
        journal(1, ended=("\ud800",)),
        journal(1, key=SessionKey("acme", "ada", "\x00")),
        journal(1, text="x" * (33 << 20)),
    ):
        with pytest.raises((InvalidField, TurnLimitReached)):
            await store.journal(wrong)
    for call in (
        store.waits("acme", limit=3, cursor="no cursor"),
        store.audit(limit=3, cursor="no cursor"),
    ):
        with pytest.raises(InvalidField):
            await call
    assert (await store.load(KEY, turns=1)).session is None


def test_a_changed_chain_is_found() -> None:
    from seawall.storage.audit import chained  # noqa: PLC0415 - as the stores use it

    chain: list[AuditRecord] = []
    for number in range(5):
        chain.append(chained(audit_of(f"t1.{number}"), chain[-1] if chain else None))
    assert verify(chain) is None
    assert verify([]) is None
    assert (verify(chain[2:]), missing_before(chain[2:])) == (None, 2)
    assert verify([*chain[:2], *chain[3:]]) is not None
    assert verify([chain[1], chain[0]]) is not None
    for name, value in (("status", "failed"), ("at", NOW + 1), ("number", 9), ("previous", "x")):
        changed = structs.replace(chain[2], **{name: value})
        assert verify([*chain[:2], changed, *chain[3:]]) is not None
    again = msgspec.json.decode(msgspec.json.encode(chain), type=list[AuditRecord])
    assert verify(again) is None


def test_a_plain_turn_is_stored_without_a_journal() -> None:
    turn = commit(KEY, 0).turn
    assert turn.journal is UNSET
    assert "journal" not in msgspec.to_builtins(turn)
