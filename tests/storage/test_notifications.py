"""The contract of notifications: stored with a journal, claimed for each delivery, deleted."""

import asyncio

import pytest
from msgspec import structs

from seawall.errors import InvalidField, SessionConflict, TurnLimitReached
from seawall.storage.port import Notification, SessionStore
from seawall.turn import SessionKey
from tests.storage.calls import KEY, NOW, Clock
from tests.storage.test_dynamodb_faults import behind_proxy, everything
from tests.storage.test_journals import ADA, journal


def notification(number: int = 1, key: SessionKey = KEY, due: float = NOW + 5) -> Notification:
    return Notification(id=f"t1.{number}", key=key, body='{"text":"ü"}', ends_at=NOW + 500, due=due)


async def test_a_notification_is_due_until_it_has_ended(store: SessionStore, clock: Clock) -> None:
    first, second = notification(1), notification(2, due=NOW + 7)
    await store.journal(journal(1, notifications=(second, first)))
    assert await store.due_notifications(limit=9) == ()
    assert await store.claim_notification(first, due=NOW + 20) is None
    clock.now = NOW + 8
    assert await store.due_notifications(limit=9) == (first, second)
    assert await store.due_notifications(limit=1) == (first,)
    claims = await asyncio.gather(
        *(store.claim_notification(first, due=NOW + 20) for _ in range(5))
    )
    claimed = structs.replace(first, tries=2, due=NOW + 20)
    assert [each for each in claims if each is not None] == [claimed]
    assert await store.due_notifications(limit=9) == (second,)
    await store.end_notification(second)
    await store.end_notification(second)
    clock.now = NOW + 21
    assert await store.due_notifications(limit=9) == (claimed,)
    assert await store.claim_notification(first, due=NOW + 30) is None  # as it was before
    again = await store.claim_notification(claimed, due=NOW + 30)
    assert again is not None
    assert again.tries == 3
    await store.end_notification(claimed)  # the delivery before has arrived after all
    clock.now = NOW + 31
    assert await store.due_notifications(limit=9) == ()
    assert await store.claim_notification(again, due=NOW + 40) is None


async def test_a_notification_is_stored_once_with_its_journal(
    store: SessionStore, clock: Clock
) -> None:
    write = journal(1, notifications=(notification(),))
    await store.journal(write)
    await store.end_notification(notification())
    await store.journal(write)  # repeated: the answer was lost
    with pytest.raises(SessionConflict):
        await store.journal(journal(3, notifications=(notification(3),)))
    clock.now = NOW + 6
    assert await store.due_notifications(limit=9) == ()


async def test_notifications_end_with_their_session_and_subject(
    store: SessionStore, clock: Clock
) -> None:
    other = SessionKey("acme", "ada", "s2")
    strange = SessionKey("acme", "bob", "s1")
    for number, key in enumerate((KEY, other, strange), 1):
        write = journal(1, f"t{number}", key=key, notifications=(notification(number, key),))
        await store.journal(write)
    clock.now = NOW + 6
    assert len(await store.due_notifications(limit=9)) == 3
    await store.delete(KEY)
    assert {each.key for each in await store.due_notifications(limit=9)} == {other, strange}
    await store.erase(ADA)
    assert [each.key for each in await store.due_notifications(limit=9)] == [strange]


async def test_what_cannot_be_a_notification(store: SessionStore) -> None:
    strange = SessionKey("acme", "bob", "s1")
    for wrong in (notification(key=strange), structs.replace(notification(), id="x\0")):
        with pytest.raises(InvalidField):
            await store.journal(journal(1, notifications=(wrong,)))
    large = structs.replace(notification(), body="x" * 300_000)
    with pytest.raises(TurnLimitReached):
        await store.journal(journal(1, notifications=(large,)))
    await store.journal(journal(1, notifications=(structs.replace(large, body="x" * 290_000),)))


async def test_nothing_is_left_in_dynamodb(dynamodb: str) -> None:
    clock = Clock()
    async with behind_proxy(dynamodb) as (store, _):
        store.table._clock = clock
        await store.journal(journal(1, notifications=(notification(1), notification(2))))
        clock.now = NOW + 6
        claimed = await store.claim_notification(notification(1), due=NOW + 20)
        assert claimed is not None
        await store.end_notification(claimed)
        left = [item["pk"]["S"][:2] for item in await everything(store)]
        assert left.count("E#") == 1
        # Claimed by another process meanwhile: its alarm is left, and deleted when it rings.
        again = await store.claim_notification(notification(2), due=NOW + 20)
        assert again is not None
        await store.end_notification(notification(2))
        clock.now = NOW + 21
        assert await store.due_notifications(limit=9) == ()
        left = [item["pk"]["S"][:2] for item in await everything(store)]
        assert "E#" not in left
        await store.journal(journal(2, notifications=(notification(3),)))
        await store.erase(ADA)
        assert await everything(store) == []


async def test_a_lost_answer_claims_at_most_once(dynamodb: str) -> None:
    async with behind_proxy(dynamodb) as (store, proxy):
        clock = Clock()
        store.table._clock = clock
        await store.journal(journal(1, notifications=(notification(),)))
        clock.now = NOW + 6
        proxy.lost.add("TransactWriteItems")
        claims = [
            await store.claim_notification(notification(), due=NOW + 20 + each) for each in range(2)
        ]
        assert claims[1] is None
        clock.now = NOW + 21
        (due,) = await store.due_notifications(limit=9)
        assert due.tries == 2
