"""Background jobs in stores: accepted, claimed, committed, failed, erased."""

import asyncio

import msgspec
import pytest

from seawall.errors import SessionConflict, UpstreamFailed
from seawall.storage.port import (
    BackgroundJob,
    JobFailure,
    Lease,
    Session,
    SessionStore,
    lease_owner_name,
    turn_of_lease_owner,
)
from seawall.turn import Principal, SessionKey, TurnRequest
from tests.storage.calls import KEY, NOW, Clock, begin, commit

ADA = Principal("acme", "ada")
LATER = NOW + 10  # when the first lease has expired


def new_job(turn: str, key: SessionKey = KEY, **changes: object) -> BackgroundJob:
    request = TurnRequest(id=turn, text="Hello ü", session=key.session, opens=True, background=True)
    request = msgspec.structs.replace(request, **changes)
    return BackgroundJob(key=key, request=request, accepted_at=NOW, ends_at=NOW + 500)


async def accept(store: SessionStore, background_job: BackgroundJob, **changes: object) -> None:
    turn = background_job.request.id
    snapshot = await store.begin(
        begin(background_job.key, turn, opens=True, background_job=background_job, **changes)
    )
    assert (snapshot.session_lease, snapshot.key_lease, snapshot.replay) == (None, None, None)


async def test_a_job_in_progress_cannot_be_claimed(store: SessionStore, clock: Clock) -> None:
    first = new_job("t1")
    assert await store.find_job(ADA, "t1") is None
    await accept(store, first)
    assert await store.find_job(ADA, "t1") == first
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.claim_job(first, until=NOW + 20) is None
    clock.now = NOW + 9
    assert await store.renew(begin(KEY, "t1", until=NOW + 19, background_job=first))
    clock.now = NOW + 18
    assert await store.orphaned_jobs(limit=9) == ()
    await store.commit(commit(KEY, 0, by="t1", attempt=1))
    assert await store.find_job(ADA, "t1") is None
    clock.now = NOW + 400
    assert await store.orphaned_jobs(limit=9) == ()


@pytest.mark.parametrize("how", ["by time", "handed over"])
@pytest.mark.parametrize("opens", [True, False])
async def test_a_claim_transfers_the_leases_to_the_new_attempt(
    store: SessionStore, clock: Clock, how: str, opens: bool
) -> None:
    version = 0
    if not opens:
        await store.commit(commit(KEY, 0))
        version = 1
    background_job = new_job("t2", idempotency_key="k")
    await accept(store, background_job, idempotency_key="k")
    if how == "by time":
        clock.now = LATER
        handovers = 0
    else:
        await store.hand_over_job(background_job)
        handovers = 1
        if opens:  # meanwhile its session is still leased
            assert (await store.begin(begin(KEY, "other"))).session_lease is not None
    (orphan,) = await store.orphaned_jobs(limit=9)
    assert orphan == msgspec.structs.replace(background_job, handovers=handovers)
    claims = [await store.claim_job(orphan, until=NOW + 30) for _ in range(3)]
    assert claims == [msgspec.structs.replace(orphan, attempt=2), None, None]
    mine = claims[0]
    assert mine is not None
    assert await store.orphaned_jobs(limit=9) == ()
    # The one before is not dead after all.
    assert not await store.renew(
        begin(KEY, "t2", until=NOW + 30, background_job=background_job, idempotency_key="k")
    )
    with pytest.raises(SessionConflict):
        await store.commit(
            commit(KEY, version, by="t2", attempt=1, idempotency_key="k", fingerprint="f")
        )
    await store.hand_over_job(background_job)
    await store.fail_job(background_job, JobFailure({"code": "x"}), until=NOW + 100)
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.find_job(ADA, "t2") == mine
    # Only the new attempt can lease session and key.
    now = {"until": NOW + 30, "idempotency_key": "k"}
    again = await store.begin(begin(KEY, mine.lease_owner, opens=True, background_job=mine, **now))
    assert (again.session_lease, again.key_lease) == (None, None)
    other = await store.begin(begin(KEY, "other", idempotency_key="k"))
    assert other.key_lease is not None
    assert turn_of_lease_owner(other.key_lease.owner) == "t2"
    last = commit(KEY, version, by="t2", attempt=2, idempotency_key="k", fingerprint="f")
    await store.commit(last)
    await store.commit(last)  # as often as it likes
    assert await store.find_job(ADA, "t2") is None
    snapshot = await store.load(KEY, turns=5)
    assert [each.id for each in snapshot.turns][version:] == ["t2"]


async def test_one_of_many_claims_succeeds(store: SessionStore, clock: Clock) -> None:
    for number in range(5):
        key = SessionKey("acme", "ada", f"s{number}")
        await accept(store, new_job(f"t{number}", key))
    clock.now = LATER
    assert len(await store.orphaned_jobs(limit=3)) == 3
    found = await store.orphaned_jobs(limit=9)
    assert {each.request.id for each in found} == {f"t{number}" for number in range(5)}
    claims = await asyncio.gather(
        *(store.claim_job(each, until=NOW + 30) for each in found for _ in range(4))
    )
    won = [each.request.id for each in claims if each is not None]
    assert sorted(won) == [f"t{number}" for number in range(5)]


async def test_a_turn_without_a_lease_stores_no_background_job(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
    await store.begin(begin(KEY, "another"))
    late = new_job("late", opens=False)
    assert (await store.begin(begin(KEY, "late", background_job=late))).session_lease is not None
    keyed = new_job("keyed", SessionKey("acme", "ada", "s9"))
    replayed = await store.begin(
        begin(keyed.key, "keyed", opens=True, background_job=keyed, idempotency_key="k")
    )
    assert replayed.replay is not None
    clock.now = NOW + 60
    assert await store.orphaned_jobs(limit=9) == ()


async def test_a_failure_is_kept_until_its_end(store: SessionStore, clock: Clock) -> None:
    background_job = new_job("t1")
    await accept(store, background_job)
    reason = JobFailure(UpstreamFailed("The model failed.").as_dict())
    await store.fail_job(background_job, reason, until=NOW + 100)
    assert await store.find_job(ADA, "t1") == reason
    assert await store.find_job(Principal("acme", "eve"), "t1") is None
    assert await store.find_job(Principal("other", "ada"), "t1") is None
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 0, by="t1", attempt=1))
    clock.now = NOW + 101
    assert await store.orphaned_jobs(limit=9) == ()
    assert await store.find_job(ADA, "t1") is None


async def test_erasing_and_deleting_removes_background_jobs(
    store: SessionStore, clock: Clock
) -> None:
    eve = SessionKey("acme", "eve", "s1")
    await store.commit(commit(KEY, 0))
    for background_job in (new_job("t1", opens=False), new_job("t2", eve)):
        await store.begin(
            begin(
                background_job.key,
                background_job.request.id,
                opens=background_job.request.opens,
                background_job=background_job,
            )
        )
    failed = new_job("t3", SessionKey("acme", "ada", "s3"))
    await accept(store, failed)
    await store.fail_job(failed, JobFailure({"code": "x"}), until=NOW + 100)
    assert await store.find_job(Principal("acme", "eve"), "t1") is None
    await store.delete(KEY)
    assert await store.find_job(ADA, "t1") is None
    with pytest.raises(SessionConflict):
        await store.commit(commit(KEY, 1, by="t1", attempt=1))
    assert await store.find_job(ADA, "t3") is not None
    await store.erase(ADA)
    assert await store.find_job(ADA, "t3") is None
    clock.now = LATER
    assert [each.request.id for each in await store.orphaned_jobs(limit=9)] == ["t2"]
    await store.erase(Principal("acme", "eve"))
    assert await store.orphaned_jobs(limit=9) == ()


def test_each_attempt_is_its_own_lease_owner() -> None:
    for turn in ("trn_s.0", "trn_a~5.b", "t"):
        assert [turn_of_lease_owner(lease_owner_name(turn, attempt)) for attempt in (1, 2, 17)] == [
            turn
        ] * 3
    assert lease_owner_name("t", 1) == "t"
    assert lease_owner_name("t", 2) != lease_owner_name("t", 3)


def test_names_of_stored_fields_do_not_change() -> None:
    """Records of earlier versions are read by later ones, and the other way round."""
    job = msgspec.to_builtins(new_job("t"))
    assert set(job) == {"key", "request", "accepted_at", "ends_at", "attempt", "handed", "roles"}
    lease = msgspec.to_builtins(Lease("t", "s", 1.0))
    assert lease == {"turn": "t", "session": "s", "until": 1.0, "fingerprint": None}
    session = Session(KEY, 1, None, {}, NOW, NOW, NOW)
    assert "held" in msgspec.to_builtins(session)
