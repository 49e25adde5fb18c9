"""Turns with effects on DynamoDB Local: lost answers, round trips, what is left behind."""

from typing import Any

import msgspec
import pytest
from msgspec import structs

from seawall.errors import CommitUnknown, SessionConflict
from seawall.turn import Decision
from tests.faulty_server import Answer
from tests.storage.calls import KEY, NOW, begin, commit
from tests.storage.test_dynamodb_faults import Proxy, behind_proxy, everything
from tests.storage.test_journals import ADA, audit_of, journal, paused, sleeping_job, wait_of

APPROVED = Decision("approve", "eve", NOW)


async def test_a_lost_answer_does_not_fail_a_journal(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        for revision in (1, 2, 3):
            proxy.lost.add("TransactWriteItems")
            write = journal(revision, audit=(audit_of(f"t1.{revision}"),))
            await store.journal(write)
            assert (await store.load(KEY, turns=1)).turns == (write.turn,)
        assert [each.number for each in (await store.audit(limit=9)).records] == [1, 2, 3]


async def test_a_journal_whose_answers_are_all_lost_is_unknown(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        for revision in (1, 2):
            write = journal(
                revision,
                idempotency_key="k",
                fingerprint="f",
                audit=(audit_of(f"t1.{revision}"),),
            )
            proxy.mute.add("TransactWriteItems")
            with pytest.raises(CommitUnknown):
                await store.journal(write)
            proxy.mute.clear()
            await store.journal(write)
            assert (await store.load(KEY, turns=1)).turns == (write.turn,)
        with pytest.raises(SessionConflict):
            await store.journal(journal(2, text="other"))
        assert len((await store.audit(limit=9)).records) == 2


async def test_a_lost_answer_does_not_decide_twice(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.journal(paused())
        proxy.lost.add("TransactWriteItems")
        assert await store.decide(wait_of(), APPROVED, audit_of())
        assert not await store.decide(wait_of(), structs.replace(APPROVED, by="x"), audit_of())
        assert len((await store.audit(limit=9)).records) == 1
        assert await store.orphaned_jobs(limit=9) == (sleeping_job(),)


async def test_round_trips(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        calls(proxy)
        await store.commit(commit(KEY, 0))
        assert calls(proxy) == ["TransactWriteItems"]
        found = await store.begin(begin(KEY, "t2"))
        assert calls(proxy) == ["Query", "UpdateItem"]
        assert found.session is not None
        opened: dict[str, Any] = {"opened_at": found.session.created_at, "number": 2}
        await store.commit(commit(KEY, 1, by="t2", opened_at=found.session.created_at))
        assert calls(proxy) == ["TransactWriteItems"]
        assert all(not {"j", "i"} & set(item) for item in await everything(store))
        calls(proxy)
        # One effect: written ahead, its outcome, the end.
        await store.begin(begin(KEY, "t3"))
        calls(proxy)
        opened["number"] = 3
        await store.journal(journal(1, "t3", **opened))
        assert calls(proxy) == ["TransactWriteItems"]
        await store.journal(journal(2, "t3", **opened))
        assert calls(proxy) == ["TransactWriteItems"]
        last = journal(3, "t3", until=None, status="completed", audit=(audit_of(),), **opened)
        await store.journal(last)
        assert calls(proxy) == ["Query", "TransactWriteItems"]
        # A pause of an opening turn, a decision, a resumption.
        await store.delete(KEY)
        calls(proxy)
        await store.journal(paused())
        assert calls(proxy) == ["TransactWriteItems"]
        assert await store.decide(wait_of(), APPROVED, audit_of())
        assert calls(proxy) == ["GetItem", "Query", "TransactWriteItems"]
        claimed = await store.claim_job(sleeping_job(), until=NOW + 20)
        assert claimed is not None
        assert calls(proxy) == ["UpdateItem", "UpdateItem"]
        await store.begin(begin(KEY, claimed.lease_owner))
        # A turn that is not done is read again, with strong consistency.
        assert calls(proxy) == ["Query", "Query", "UpdateItem"]


async def test_sleeping_jobs_are_no_part_of_the_scan(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.journal(paused())
        (alarm,) = (each for each in await everything(store) if each["pk"]["S"].startswith("P#"))
        assert "r" not in alarm
        calls(proxy)
        assert await store.orphaned_jobs(limit=9) == ()
        assert calls(proxy) == ["Query"] * 4
        await store.decide(wait_of(), APPROVED, audit_of())
        (job,) = (each for each in await everything(store) if each["pk"]["S"].startswith("P#"))
        assert "r" in job


async def test_of_many_alarms_the_first_are_read(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        for number in range(9):
            name, key = f"t{number}", structs.replace(KEY, session=f"s{number}")
            asleep = sleeping_job(turn=name, key=key)
            write = paused(key=key, waits=(), sleeps=asleep, sleeps_until=NOW - number)
            turn = structs.replace(write.turn, id=name)
            await store.journal(structs.replace(write, turn=turn, lease_owner=name))
        calls(proxy)
        found = await store.orphaned_jobs(limit=2)
        assert [each.request.id for each in found] == ["t8", "t7"]
        assert calls(proxy) == ["GetItem"] * 2 + ["Query"] * 4


async def test_erasing_a_subject_leaves_nothing(dynamodb: str) -> None:
    """Also when the session, to which it belonged, was deleted before."""
    async with behind_proxy(dynamodb) as (store, _):
        await store.journal(paused(audit=(audit_of(),)))
        await store.delete(KEY)
        left = [item["pk"]["S"][:2] for item in await everything(store)]
        assert sorted(left) == ["A#", "O#"]
        await store.erase(ADA)
        assert await everything(store) == []


async def test_erasing_a_subject_removes_what_is_written_meanwhile(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.journal(paused())

        async def decided(_: dict[str, Any]) -> None:
            proxy.faults.clear()
            assert await store.decide(wait_of(), APPROVED, audit_of())

        proxy.faults["UpdateItem"] = decided  # which ends the session
        assert await store.erase(ADA) == 1
        assert await everything(store) == []


async def test_another_transaction_is_no_other_decision(dynamodb: str) -> None:
    """Also when a record was appended to the chain at the same time."""
    async with behind_proxy(dynamodb) as (store, proxy):
        await store.journal(paused())

        async def cancelled(document: dict[str, Any]) -> Answer:
            proxy.faults.clear()
            reasons = [{"Code": "None"}] * len(document["TransactItems"])
            reasons[0] = {"Code": "TransactionConflict"}
            reasons[-2] = {"Code": "ConditionalCheckFailed"}
            said = {"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}
            return Answer(400, msgspec.json.encode(said))

        proxy.faults["TransactWriteItems"] = cancelled
        assert await store.decide(wait_of(), APPROVED, audit_of())


def calls(proxy: Proxy) -> list[str]:
    """The operations since the last call, sorted within."""
    seen: list[tuple[str, dict[str, Any]]] = list(proxy.seen)
    proxy.seen.clear()
    return sorted(name for name, _ in seen)
