"""What people do with facts about a subject: read, correct and delete them, on record.

The record is written before the change: there is none without a record, and what is repeated
because an answer was lost is recorded twice.
"""

import time
from typing import Literal

from seawall.errors import InvalidField, NotFound
from seawall.settings import MemorySettings
from seawall.storage.facts import Fact
from seawall.storage.memory import (
    Change,
    FactRefused,
    change_memory,
    correct,
    current_facts,
    find_fact,
    forget,
    forget_all,
)
from seawall.storage.port import AuditRecord, SessionStore
from seawall.turn import Decision, Principal, SessionKey

__all__ = [
    "AUDIT_SESSION",
    "correct_fact",
    "delete_all_facts",
    "delete_fact",
    "fact_fields",
    "list_facts",
    "show_fact",
]

AUDIT_SESSION = "~memory"
"""The name of the chain of these records, which no session has."""


def fact_fields(fact: Fact) -> dict[str, object]:
    """A fact, as its subject and operators see it."""
    return {
        "id": fact.id,
        "key": fact.key,
        "text": fact.text,
        "said": fact.said,
        "by": fact.by,
        "version": fact.version,
        "agent": fact.agent,
        "session": fact.session,
        "turn": fact.turn,
        "created_at": fact.created_at,
        "updated_at": fact.updated_at,
        "expires_at": fact.expires_at,
    }


async def list_facts(store: SessionStore, owner: Principal) -> tuple[Fact, ...]:
    """The facts about a subject, in the order in which they were remembered first."""
    return current_facts(await store.facts().read(owner), time.time())


async def show_fact(store: SessionStore, owner: Principal, fact: str) -> Fact:
    """A fact about a subject by its id.

    Raises:
        NotFound: There is none.
    """
    found = find_fact(await store.facts().read(owner), fact, time.time())
    if found is None:
        raise _not_found()
    return found


async def correct_fact(
    store: SessionStore, owner: Principal, fact: str, text: str, *, settings: MemorySettings
) -> Fact:
    """Replace the text of a fact by what its subject says; the corrected fact.

    Args:
        store: Open.
        owner: The subject.
        fact: Id of the fact.
        text: The new text.
        settings: Their limits apply.

    Raises:
        NotFound: There is no such fact.
        InvalidField: The text is outside a limit.
    """
    change = Change(at=time.time(), by="subject")
    found = await show_fact(store, owner, fact)
    facts = store.facts()
    try:
        # Refused before it is recorded; again with what is stored then.
        correct(await facts.read(owner), change, settings, fact=found, text=text)
        await _record(store, owner, found, _decision("corrected", change, owner.subject))
        _, after = await change_memory(
            facts,
            owner,
            lambda memory: correct(
                memory,
                change,
                settings,
                fact=_still_there(find_fact(memory, fact, change.at)),
                text=text,
            ),
        )
    except FactRefused as refusal:
        raise InvalidField(str(refusal), field="text") from refusal
    return _still_there(find_fact(after, fact, change.at))


async def delete_fact(
    store: SessionStore,
    owner: Principal,
    fact: str,
    *,
    by: Literal["subject", "operator"],
    name: str,
) -> None:
    """Delete a fact.

    Args:
        store: Open.
        owner: The subject.
        fact: Id of the fact.
        by: Who deletes it.
        name: Their name, for the record.

    Raises:
        NotFound: There is no such fact.
    """
    found = await show_fact(store, owner, fact)
    change = Change(at=time.time(), by=by)
    await _record(store, owner, found, _decision("deleted", change, name))
    await change_memory(store.facts(), owner, lambda memory: forget(memory, change, fact=fact))


async def delete_all_facts(
    store: SessionStore, owner: Principal, *, by: Literal["subject", "operator"], name: str
) -> int:
    """Delete all facts about a subject; their number. Arguments as of `delete_fact`."""
    change = Change(at=time.time(), by=by)
    facts = store.facts()
    count = len(current_facts(await facts.read(owner), change.at))
    if count:
        await _record(store, owner, None, _decision("erased", change, name))
    before, _ = await change_memory(facts, owner, lambda memory: forget_all(memory, change))
    return max(count, len(current_facts(before, change.at)))


def _decision(
    verb: Literal["corrected", "deleted", "erased"], change: Change, name: str
) -> Decision:
    return Decision(verb, name, change.at, note=f"by the {change.by}")


async def _record(
    store: SessionStore, owner: Principal, fact: Fact | None, decision: Decision
) -> None:
    """Append the record of a change; without the text of the fact."""
    await store.append_audit(
        AuditRecord(
            key=SessionKey(owner.tenant, owner.subject, AUDIT_SESSION),
            turn="",
            kind="memory",
            effect=fact.id if fact is not None else "",
            call="",
            tool="",
            agent="",
            arguments="",
            status=decision.verdict,
            at=decision.at,
            decision=decision,
        )
    )


def _still_there(fact: Fact | None) -> Fact:
    if fact is None:
        raise _not_found()
    return fact


def _not_found() -> NotFound:
    return NotFound("There is no such fact.")
