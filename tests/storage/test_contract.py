"""The contract of session stores, run on every adapter."""

import asyncio

import pytest

from seawall.errors import InvalidField, SessionConflict, SessionNotFound
from seawall.storage.port import Archive, Lease, SessionStore, Snapshot
from seawall.turn import Principal, SessionKey, Usage, UserMessage
from tests.storage.calls import KEY, NOW, Clock, begin, commit, look


async def test_a_committed_turn_is_loaded(store: SessionStore) -> None:
    assert await store.load(KEY, turns=5) == Snapshot(None)
    for version in range(3):
        await store.commit(commit(KEY, version, f"text {version} \U0001f600 ü"))
    snapshot = await store.load(KEY, turns=2)
    assert snapshot.session is not None
    assert (snapshot.session.version, snapshot.session.state) == (3, {"n": "2"})
    assert [each.number for each in snapshot.turns] == [2, 3]
    assert snapshot.turns[1].messages[0] == UserMessage("text 2 \U0001f600 ü")
    assert snapshot.turns[1].usage == Usage(3, 4)


async def test_the_second_of_two_commits_is_refused_and_changes_nothing(
    store: SessionStore,
) -> None:
    await store.commit(commit(KEY, 0))
    for stale in (commit(KEY, 0, "late"), commit(KEY, 5, "early")):
        with pytest.raises(SessionConflict):
            await store.commit(stale)
    results = await asyncio.gather(
        *(store.commit(commit(KEY, 1, f"r{number}")) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, SessionConflict) for result in results) == 19
    snapshot = await store.load(KEY, turns=9)
    assert [each.number for each in snapshot.turns] == [1, 2]


async def test_a_session_exists_for_its_owner_only(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
    for other in (
        SessionKey("acme", "eve", "s1"),
        SessionKey("other", "ada", "s1"),
        SessionKey("acme", "ada", "s2"),
    ):
        found = await look(store, other, 5, "k")
        assert found.session is None
        assert (found.replay is None) == (other.subject != "ada" or other.tenant != "acme")
        with pytest.raises(SessionNotFound):
            await store.turns(other, limit=5)
        with pytest.raises(SessionNotFound):
            await store.delete(other)
    assert (await store.sessions(Principal("acme", "eve"), limit=5)).sessions == ()
    await store.commit(commit(SessionKey("acme", "eve", "s1"), 0, "hers"))
    assert (await store.load(KEY, turns=5)).turns[0].messages[0] == UserMessage("hello")


async def test_a_session_that_another_has_opened_is_loaded(store: SessionStore) -> None:
    """Two clients may choose the same name for a new session."""
    for version in range(2):
        await store.commit(commit(KEY, version, f"text {version}"))
    found = await store.begin(begin(KEY, "late", opens=True, turns=5))
    assert found.session is not None
    assert [each.number for each in found.turns] == [1, 2]


async def test_an_idempotency_key_finds_its_turn_and_is_used_once(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
    elsewhere = SessionKey("acme", "ada", "new")
    replay = (await look(store, elsewhere, 1, "k")).replay
    assert replay is not None
    assert (replay.session, replay.fingerprint, replay.turn.number) == ("s1", "f", 1)
    with pytest.raises(SessionConflict):
        await store.commit(commit(elsewhere, 0, idempotency_key="k", fingerprint="f"))
    assert (await store.load(elsewhere, turns=1)).session is None
    results = await asyncio.gather(
        *(
            store.commit(
                commit(
                    SessionKey("acme", "ada", f"r{number}"),
                    0,
                    idempotency_key="one",
                    fingerprint="f",
                )
            )
            for number in range(20)
        ),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1


async def test_pages_cover_everything_once(store: SessionStore, clock: Clock) -> None:
    for number in range(7):
        clock.now = NOW + number // 2  # some are equally old
        await store.commit(commit(SessionKey("acme", "ada", f"s{number}"), 0))
    for version in range(1, 7):
        await store.commit(commit(SessionKey("acme", "ada", "s3"), version))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.sessions(Principal("acme", "ada"), limit=3, cursor=cursor)
        seen += [each.key.session for each in page.sessions]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == [f"s{number}" for number in range(7)]
    numbers: list[int] = []
    while True:
        turns = await store.turns(SessionKey("acme", "ada", "s3"), limit=2, cursor=cursor)
        numbers += [each.number for each in turns.turns]
        cursor = turns.cursor
        if cursor is None:
            break
    assert numbers == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("cursor", ["", "x", "ü", "bnVsbA==", "WzEsMl0=", "MQ==", "é" * 100])
async def test_an_invalid_cursor_is_refused(store: SessionStore, cursor: str) -> None:
    await store.commit(commit(KEY, 0))
    with pytest.raises(InvalidField) as caught:
        await store.sessions(Principal("acme", "ada"), limit=3, cursor=cursor)
    assert caught.value.field == "cursor"


async def test_expiry_and_deletion_leave_nothing(store: SessionStore, clock: Clock) -> None:
    await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
    clock.now = NOW + 1_001
    gone = await look(store, KEY, 5, "k")
    assert (gone.session, gone.replay) == (None, None)
    assert (await store.sessions(Principal("acme", "ada"), limit=5)).sessions == ()
    renewed = commit(
        KEY, 0, "again", idempotency_key="k", fingerprint="g", expires_at=clock.now + 100
    )
    await store.commit(renewed)
    assert [each.id for each in (await store.load(KEY, turns=5)).turns] == ["t1-again"]
    await store.delete(KEY)
    assert await look(store, KEY, 5, "k") == Snapshot(None)
    await store.commit(commit(KEY, 0, expires_at=clock.now + 100))


async def test_a_cancelled_commit_is_applied_completely_or_not_at_all(store: SessionStore) -> None:
    async def try_one(number: int) -> None:
        task = asyncio.create_task(
            store.commit(
                commit(
                    SessionKey("acme", "ada", f"c{number}"),
                    0,
                    idempotency_key=f"k{number}",
                    fingerprint="f",
                )
            )
        )
        await asyncio.sleep(0.0002 * (number % 5))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(try_one(number) for number in range(50)))
    for number in range(50):
        found = await look(store, SessionKey("acme", "ada", f"c{number}"), 1, f"k{number}")
        assert (found.session is None) == (found.replay is None) == (not found.turns)


async def test_two_turns_of_one_session(store: SessionStore) -> None:
    """The second finds the first at work; when that one is done, it gets the session."""
    await store.commit(commit(KEY, 0))
    first = await store.begin(begin(KEY, "one"))
    assert (first.session_lease, first.session and first.session.version) == (None, 1)
    second = await store.begin(begin(KEY, "two", until=NOW + 5))
    assert second.session_lease == Lease("one", "s1", NOW + 10)
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 1, by="two"))
    await store.commit(commit(KEY, 1, "first", by="one"))
    again = await store.begin(begin(KEY, "two"))
    assert again.session_lease is None
    assert [each.id for each in again.turns] == ["t1-hello", "one"]
    await store.commit(commit(KEY, 2, by="two"))


async def test_one_of_many_concurrent_turns_leases_the_session(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0))
    found = await asyncio.gather(*(store.begin(begin(KEY, f"t{each}")) for each in range(20)))
    winners = [each for each, snapshot in enumerate(found) if snapshot.session_lease is None]
    assert len(winners) == 1
    owners = {
        snapshot.session_lease.owner for snapshot in found if snapshot.session_lease is not None
    }
    assert owners == {f"t{winners[0]}"}


async def test_an_expired_lease_is_lost_and_prevents_the_commit(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0))
    dead = begin(KEY, "dead")
    await store.begin(dead)
    clock.now = NOW + 9
    assert await store.renew(begin(KEY, "dead", until=NOW + 19))
    clock.now = NOW + 11
    assert (await store.begin(begin(KEY, "next"))).session_lease is not None
    clock.now = NOW + 20
    assert (await store.begin(begin(KEY, "next", until=NOW + 30))).session_lease is None
    assert not await store.renew(dead)
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 1, by="dead"))
    await store.release(dead)  # which is not its to release any more
    assert (await store.begin(begin(KEY, "third"))).session_lease is not None
    await store.commit(commit(KEY, 1, by="next"))


async def test_a_key_is_leased_by_one_turn(store: SessionStore, clock: Clock) -> None:
    first = begin(KEY, "one", idempotency_key="k")
    assert await store.begin(first) == Snapshot(None)
    elsewhere = SessionKey("acme", "ada", "s2")
    second = begin(elsewhere, "two", idempotency_key="k", fingerprint="g", until=NOW + 40)
    found = await store.begin(second)
    assert found.key_lease == Lease("one", "s1", NOW + 10, "f")
    keyed = {"idempotency_key": "k", "fingerprint": "g"}
    with pytest.raises(SessionConflict):
        await store.commit(commit(elsewhere, 0, by="two", **keyed))
    assert (await store.begin(begin(KEY, "eve"))).key_lease is None
    clock.now = NOW + 11
    assert (await store.begin(second)).key_lease is None
    assert not await store.renew(first)
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 0, by="one", idempotency_key="k", fingerprint="f"))
    await store.release(second)
    await store.commit(commit(KEY, 0, by="one", idempotency_key="k", fingerprint="f"))
    replay = (await store.begin(second)).replay
    assert replay is not None
    assert (replay.session, replay.turn.id) == ("s1", "one")


async def test_a_session_that_is_being_opened_is_only_visible_as_a_lease(
    store: SessionStore, clock: Clock
) -> None:
    opening = begin(KEY, "one", opens=True)
    assert await store.begin(opening) == Snapshot(None)
    found = await store.begin(begin(KEY, "two"))
    assert (found.session, found.session_lease) == (None, Lease("one", "s1", NOW + 10))
    assert (await store.load(KEY, turns=1)).session is None
    assert (await store.sessions(Principal("acme", "ada"), limit=5)).sessions == ()
    with pytest.raises(SessionNotFound):
        await store.delete(KEY)
    assert await store.renew(begin(KEY, "one", opens=True, until=NOW + 20))
    clock.now = NOW + 15
    assert (await store.begin(begin(KEY, "two"))).session_lease is not None
    await store.commit(commit(KEY, 0, by="one"))
    assert (await store.begin(begin(KEY, "two"))).session_lease is None
    other = SessionKey("acme", "ada", "s2")
    await store.begin(begin(other, "three", opens=True, until=NOW + 30))
    await store.release(begin(other, "three", opens=True))
    assert (await store.begin(begin(other, "four"))).session_lease is None


async def test_a_commit_is_idempotent(store: SessionStore) -> None:
    for version in range(2):
        once = commit(KEY, version, idempotency_key=f"k{version}", fingerprint="f")
        await store.commit(once)
        await store.commit(once)
    assert [each.number for each in (await store.load(KEY, turns=9)).turns] == [1, 2]


async def test_a_subject_is_erased(store: SessionStore) -> None:
    for session in ("s1", "s2", "s3"):
        key = SessionKey("acme", "ada", session)
        await store.commit(commit(key, 0, idempotency_key=session, fingerprint="f"))
    await store.begin(begin(KEY, "one", idempotency_key="running"))
    hers = SessionKey("acme", "eve", "s1")
    await store.commit(commit(hers, 0, idempotency_key="s1", fingerprint="f"))
    assert await store.erase(Principal("acme", "ada")) == 3
    assert await look(store, KEY, 5, "s1") == Snapshot(None)
    assert (await look(store, KEY, 5, "running")).key_lease is None
    assert (await store.sessions(Principal("acme", "ada"), limit=5)).sessions == ()
    assert (await look(store, hers, 5, "s1")).replay is not None
    assert await store.erase(Principal("acme", "ada")) == 0


async def test_sessions_move_from_store_to_store(store: SessionStore) -> None:
    for owner in ("ada", "eve"):
        for session in ("s1", "s2", "s3"):
            key = SessionKey("acme", owner, session)
            await store.commit(commit(key, 0, idempotency_key=session, fingerprint="f"))
            await store.commit(commit(key, 1, "and then"))
    archives: list[Archive] = []
    cursor: str | None = None
    while True:
        page = await store.archives(limit=2, cursor=cursor)
        archives += page.archives
        cursor = page.cursor
        if cursor is None:
            break
    assert len({each.session.key for each in archives}) == len(archives) == 6
    for owner in ("ada", "eve"):
        await store.erase(Principal("acme", owner))
    for each in archives:
        assert await store.restore(each)
        assert not await store.restore(each)
        found = await look(store, each.session.key, 5, each.session.key.session)
        assert found.session == each.session
        assert found.turns == each.turns
        assert found.replay is not None
        assert found.replay.turn == each.turns[0]
