"""Changes of what is remembered of a subject: within bounds, once, also with concurrent writers."""

import asyncio
import random
import re
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct, structs

from seawall.errors import StoreUnavailable
from seawall.settings import MemorySettings
from seawall.storage.facts import Fact, Facts, Memory
from seawall.turn import Principal

__all__ = [
    "FACT_KEY_PATTERN",
    "Change",
    "FactRefused",
    "change_memory",
    "checked_text",
    "correct",
    "current_facts",
    "find_fact",
    "forget",
    "forget_all",
    "remember",
]

FACT_KEY_PATTERN = "^[a-z0-9][a-z0-9_.-]{0,63}$"
"""The name of a fact, as in JSON Schema."""

_key = re.compile(FACT_KEY_PATTERN[:-1] + r"\Z")
_ATTEMPTS = 12
_FIRST_PAUSE_SECONDS = 0.01
_MAX_PAUSE_SECONDS = 0.2
_MAX_APPLIED = 64
_APPLIED_SECONDS = 7 * 86_400.0  # of a memory without facts, so that no late repeat fills it again
_EXPIRED_SECONDS = 7 * 86_400.0  # after which expired facts are deleted: a clock may be wrong

_encode = msgspec.json.Encoder().encode


class FactRefused(Exception):
    """The change is outside a limit; the message says which, for who asked for it."""


class Change(Struct, frozen=True, kw_only=True):
    """Who changes a memory, where and when.

    Attributes:
        at: Unix seconds.
        by: Who.
        agent: Of an agent, its name.
        session: Of an agent, the session.
        turn: Of an agent, the turn.
        key: Of an agent, the idempotency key: a change is made once.
    """

    at: float
    by: Literal["agent", "subject", "operator"]
    agent: str = ""
    session: str = ""
    turn: str = ""
    key: str = ""


def current_facts(memory: Memory, now: float) -> tuple[Fact, ...]:
    """The facts that have not expired at a time in Unix seconds."""
    return tuple(each for each in memory.facts if each.expires_at > now)


def find_fact(memory: Memory, fact: str, now: float) -> Fact | None:
    """The fact of an id, unless it has expired."""
    return next((each for each in current_facts(memory, now) if each.id == fact), None)


def checked_text(text: str, settings: MemorySettings) -> str:
    """The text of a fact without white space around it.

    Raises:
        FactRefused: It is empty, too long, or cannot be stored.
    """
    text = text.strip()
    if not 1 <= len(text) <= settings.characters:
        raise FactRefused(f"A fact must have 1 to {settings.characters} characters.")
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise FactRefused("A fact cannot contain NUL or lone surrogates.")
    return text


def remember(
    memory: Memory,
    change: Change,
    settings: MemorySettings,
    *,
    key: str,
    text: str,
    said: bool,
    seconds: float | None = None,
) -> Memory:
    """The memory with a fact, which replaces one of the same name; as it is if that was done.

    Args:
        memory: As it was read.
        change: Of an agent.
        settings: Their limits apply.
        key: Name of the fact.
        text: What to remember.
        said: Whether the subject said so.
        seconds: How long; None for the configured time, which is also the longest.

    Raises:
        FactRefused: It is outside a limit.
    """
    if change.key in memory.applied:
        return memory
    if not _key.match(key):
        raise FactRefused("The key must be 1 to 64 of a-z, 0-9, _, . and -.")
    text = checked_text(text, settings)
    lasts = min(settings.ttl_seconds, seconds if seconds is not None else settings.ttl_seconds)
    kept = current_facts(memory, change.at)
    before = next((each for each in kept if each.key == key), None)
    fact = Fact(
        id=before.id if before is not None else f"fact_{change.key[:24]}",
        key=key,
        text=text,
        said=said,
        by="agent",
        agent=change.agent,
        session=change.session,
        turn=change.turn,
        version=before.version + 1 if before is not None else 1,
        revision=memory.revision + 1,
        created_at=before.created_at if before is not None else change.at,
        updated_at=change.at,
        expires_at=change.at + lasts,
    )
    return _changed(memory, change, _with(memory, change.at, fact, settings))


def correct(
    memory: Memory, change: Change, settings: MemorySettings, *, fact: Fact, text: str
) -> Memory:
    """The memory with another text of a fact, which begins its time anew.

    Args:
        memory: As it was read.
        change: Of the subject.
        settings: Their limits apply.
        fact: One of the memory.
        text: The new text.

    Raises:
        FactRefused: It is outside a limit.
    """
    corrected = structs.replace(
        fact,
        text=checked_text(text, settings),
        said=True,
        by="subject",
        turn="",
        version=fact.version + 1,
        revision=memory.revision + 1,
        updated_at=change.at,
        expires_at=change.at + settings.ttl_seconds,
    )
    return _changed(memory, change, _with(memory, change.at, corrected, settings))


def forget(memory: Memory, change: Change, *, key: str = "", fact: str = "") -> Memory:
    """The memory without a fact, by its name or its id; as it is if there is none, or it was done.

    Args:
        memory: As it was read.
        change: Who forgets it.
        key: Name of the fact.
        fact: Id of the fact.
    """
    if change.key and change.key in memory.applied:
        return memory
    left = tuple(each for each in memory.facts if each.key != key and each.id != fact)
    found = len(left) < len(memory.facts)
    return _changed(memory, change, left) if change.key or found else memory


def forget_all(memory: Memory, change: Change) -> Memory:
    """The memory without facts; as it is if there are none."""
    return _changed(memory, change, ()) if memory.facts else memory


async def change_memory(
    facts: Facts, owner: Principal, make: Callable[[Memory], Memory]
) -> tuple[Memory, Memory]:
    """Change what is remembered of a subject; again if another was first.

    Args:
        facts: The store.
        owner: The subject.
        make: The new memory; the same one for no change.

    Returns:
        The memory before and after.

    Raises:
        FactRefused: What `make` raises; nothing was changed.
        StoreUnavailable: The store cannot answer, or others were first each time.
    """
    pause = _FIRST_PAUSE_SECONDS
    for _ in range(_ATTEMPTS):
        memory = await facts.read(owner)
        changed = make(memory)
        if changed is memory or await facts.write(owner, changed, expected=memory.revision):
            return memory, changed
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)
    raise StoreUnavailable("What is remembered keeps changing; try again.", retry_after=1.0)


def _with(memory: Memory, now: float, fact: Fact, settings: MemorySettings) -> tuple[Fact, ...]:
    """The facts with another one in the place of that of its name, else at the end."""
    kept = current_facts(memory, now)
    if any(each.key == fact.key for each in kept):
        facts = tuple(fact if each.key == fact.key else each for each in kept)
    else:
        facts = (*kept, fact)
    # A fact that is replaced by a shorter one is never refused, also if limits were lowered.
    if len(facts) > max(settings.facts, len(kept)):
        raise FactRefused(
            f"There are {len(kept)} facts already, which is the limit; forget one first."
        )
    if _size(facts) > max(settings.bytes, _size(kept)):
        raise FactRefused(f"All facts together exceed {settings.bytes} bytes; forget one first.")
    # Facts that have expired are hidden, and stay for a while as far as there is room.
    hidden: tuple[Fact, ...] = ()
    for each in memory.facts:
        recent = each.expires_at <= now < each.expires_at + _EXPIRED_SECONDS
        whole = (*hidden, each, *facts)
        fits = len(whole) <= settings.facts and _size(whole) <= settings.bytes
        if recent and each.key != fact.key and fits:
            hidden = (*hidden, each)
    return (*hidden, *facts)


def _size(facts: tuple[Fact, ...]) -> int:
    return sum(len(_encode(each.key)) + len(_encode(each.text)) for each in facts)


def _changed(memory: Memory, change: Change, facts: tuple[Fact, ...]) -> Memory:
    applied = memory.applied
    if change.key:
        applied = (*applied, change.key)[-_MAX_APPLIED:]
    last = max((each.expires_at for each in facts), default=0.0)
    return Memory(
        revision=memory.revision + 1,
        facts=facts,
        applied=applied,
        ends_at=max(last, change.at + _APPLIED_SECONDS),
    )
