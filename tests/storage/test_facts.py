"""The contract of the store of facts, run on every adapter."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from seawall.errors import InvalidField, StoreUnavailable, TurnLimitReached
from seawall.settings import MemorySettings
from seawall.storage.facts import Fact, Facts, Memory
from seawall.storage.memory import (
    Change,
    FactRefused,
    change_memory,
    correct,
    current_facts,
    forget,
    forget_all,
    remember,
)
from seawall.storage.port import SessionStore
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal
from tests.properties import number_of_examples
from tests.storage.calls import KEY, NOW, Clock, commit
from tests.storage.stores import NAMES, make_store, new_location

ADA = Principal("acme", "ada")
SETTINGS = MemorySettings(facts=3, characters=40, bytes=120, ttl_seconds=1_000.0)
STRANGERS = [
    Principal("acme", "eve"),
    Principal("other", "ada"),
    Principal("acme", "ad"),
    Principal("acme#ada", "x"),
    Principal("acm", "e#ada"),
    Principal("acme", "ada%"),
    Principal("acme", ""),
]


@pytest.fixture
async def facts(store: SessionStore) -> Facts:
    return store.facts()


def by_agent(key: str, at: float = NOW, **more: str) -> Change:
    return Change(at=at, by="agent", agent="a", session="s1", turn=f"t-{key}", key=key, **more)


def put(
    name: str, text: str, call: str, at: float = NOW, *, seconds: float | None = None
) -> Callable[[Memory], Memory]:
    return lambda memory: remember(
        memory,
        by_agent(call, at),
        SETTINGS,
        key=name,
        text=text,
        said=True,
        seconds=seconds,
    )


def texts(memory: Memory, at: float = NOW) -> dict[str, str]:
    return {each.key: each.text for each in current_facts(memory, at)}


async def test_a_memory_is_read_as_it_was_written(facts: Facts) -> None:
    assert await facts.read(ADA) == Memory()
    text = 'size "42"\n\\ \U0001f600 ü \u202e \u200d'
    _, written = await change_memory(facts, ADA, put("shoe_size", text, "k1"))
    read = await facts.read(ADA)
    assert read == written
    fact = read.facts[0]
    assert (fact.text, fact.said, fact.by, fact.version) == (text, True, "agent", 1)
    assert (fact.agent, fact.session, fact.turn) == ("a", "s1", "t-k1")
    assert (fact.created_at, fact.expires_at) == (NOW, NOW + 1_000)


async def test_of_concurrent_writers_of_one_revision_one_succeeds(facts: Facts) -> None:
    """Also of those that find no record."""
    for expected in (0, 7):
        made = [
            Memory(revision=expected + 7, applied=(f"k{number}",), ends_at=NOW)
            for number in range(8)
        ]
        results = await asyncio.gather(
            *(facts.write(ADA, each, expected=expected) for each in made)
        )
        assert sum(results) == 1
        assert await facts.read(ADA) == made[results.index(True)]
    assert not await facts.write(ADA, Memory(1), expected=0)
    assert not await facts.write(ADA, Memory(1), expected=6)
    # What was lost on its way back is written again.
    again = await facts.read(ADA)
    assert await facts.write(ADA, again, expected=7)


async def test_many_at_once_keep_the_bound_and_lose_nothing(facts: Facts) -> None:
    roomy = MemorySettings(facts=6, ttl_seconds=1_000.0)

    async def one(number: int) -> bool:
        change = by_agent(f"call{number}")
        try:
            await change_memory(
                facts,
                ADA,
                lambda memory: remember(
                    memory, change, roomy, key=f"n{number}", text=f"{number}", said=False
                ),
            )
        except FactRefused:
            return False
        return True

    done = await asyncio.gather(*map(one, range(9)))
    memory = await facts.read(ADA)
    assert sum(done) == 6
    assert texts(memory) == {f"n{at}": str(at) for at, made in enumerate(done) if made}
    assert memory.revision == 6


async def test_a_change_is_made_once_whatever_happened_since(facts: Facts) -> None:
    """The first attempt's answer may be lost: a repeat must not undo what others did."""
    await change_memory(facts, ADA, put("color", "red", "k1"))
    await change_memory(facts, ADA, put("color", "blue", "k2"))
    before, after = await change_memory(facts, ADA, put("color", "red", "k1"))
    assert before == after
    assert texts(after) == {"color": "blue"}
    assert after.facts[0].version == 2
    await change_memory(facts, ADA, lambda memory: forget(memory, by_agent("k3"), key="color"))
    await change_memory(facts, ADA, put("color", "green", "k4"))
    await change_memory(facts, ADA, lambda memory: forget(memory, by_agent("k3"), key="color"))
    assert texts(await facts.read(ADA)) == {"color": "green"}
    subject = Change(at=NOW, by="subject")
    await change_memory(facts, ADA, lambda memory: forget_all(memory, subject))
    await change_memory(facts, ADA, put("color", "green", "k4"))
    assert texts(await facts.read(ADA)) == {}


async def test_a_name_has_one_fact_with_a_stable_id(facts: Facts) -> None:
    _, first = await change_memory(facts, ADA, put("color", "red", "k1"))
    await change_memory(facts, ADA, put("size", "42", "k2"))
    _, last = await change_memory(facts, ADA, put("color", "blue", "k3", NOW + 5))
    assert [each.key for each in last.facts] == ["color", "size"]
    fact = last.facts[0]
    assert fact.id == first.facts[0].id != last.facts[1].id
    assert (fact.created_at, fact.updated_at, fact.turn) == (NOW, NOW + 5, "t-k3")
    by_subject = Change(at=NOW + 6, by="subject")
    _, corrected = await change_memory(
        facts,
        ADA,
        lambda memory: correct(memory, by_subject, SETTINGS, fact=memory.facts[0], text=" teal "),
    )
    fixed = corrected.facts[0]
    assert (fixed.id, fixed.text, fixed.by, fixed.version) == (fact.id, "teal", "subject", 3)
    assert (fixed.turn, fixed.expires_at) == ("", NOW + 1_006)


async def test_limits_are_exact(facts: Facts) -> None:
    for call, (name, text) in enumerate([("a", "x" * 40), ("b", "y" * 40)]):
        await change_memory(facts, ADA, put(name, text, f"k{call}"))
    for name, text, expected in [
        ("c", "z" * 41, "1 to 40 characters"),
        ("c", " \n ", "1 to 40 characters"),
        ("c", "a\0b", "NUL"),
        ("c", "a\ud800", "surrogates"),
        ("c", "z" * 30, "exceed 120 bytes"),
        ("c", '"' * 20, "exceed 120 bytes"),  # as JSON
        ("C", "z", "The key"),
        ("", "z", "The key"),
        ("c" * 65, "z", "The key"),
        ("c\n", "z", "The key"),
    ]:
        with pytest.raises(FactRefused, match=expected):
            await change_memory(facts, ADA, put(name, text, "no"))
    await change_memory(facts, ADA, put("c", "z", "k3"))
    with pytest.raises(FactRefused, match="3 facts already"):
        await change_memory(facts, ADA, put("d", "z", "k4"))
    await change_memory(facts, ADA, put("a", "short", "k5"))  # a replacement is no more facts
    assert set(texts(await facts.read(ADA))) == {"a", "b", "c"}


async def test_facts_expire_each_at_its_time(facts: Facts) -> None:
    await change_memory(facts, ADA, put("a", "long", "k1"))
    await change_memory(facts, ADA, put("b", "short", "k2", seconds=100.0))
    await change_memory(facts, ADA, put("c", "too long", "k3", seconds=10_000.0))
    memory = await facts.read(ADA)
    assert set(texts(memory, NOW + 99)) == {"a", "b", "c"}
    assert set(texts(memory, NOW + 100)) == {"a", "c"}
    assert set(texts(memory, NOW + 1_000)) == set()
    # What has expired makes room.
    _, after = await change_memory(facts, ADA, put("d", "new", "k4", NOW + 100))
    assert [each.key for each in after.facts] == ["a", "c", "d"]


async def test_a_clock_that_is_ahead_for_a_while_deletes_nothing(facts: Facts) -> None:
    """What it takes for expired is hidden; it is deleted a week later."""
    await change_memory(facts, ADA, put("a", "one", "k1"))
    await change_memory(facts, ADA, put("b", "two", "k2", NOW + 5_000))
    assert set(texts(await facts.read(ADA), NOW + 5_000)) == {"b"}
    assert texts(await facts.read(ADA)) == {"a": "one", "b": "two"}
    late = NOW + 8 * 86_400
    _, after = await change_memory(facts, ADA, put("c", "three", "k3", late))
    assert [each.key for each in after.facts] == ["c"]


async def test_nobody_else_has_it(store: SessionStore) -> None:
    facts = store.facts()
    await change_memory(facts, ADA, put("color", "red", "k1"))
    for other in STRANGERS:
        assert await facts.read(other) == Memory()
    for number, other in enumerate(STRANGERS[:-1]):
        await change_memory(facts, other, put("color", f"{number}", f"o{number}"))
    assert texts(await facts.read(ADA)) == {"color": "red"}
    await store.erase(ADA)
    assert await facts.read(ADA) == Memory()
    for number, other in enumerate(STRANGERS[:-1]):
        assert texts(await facts.read(other)) == {"color": f"{number}"}


async def test_erasing_a_subject_erases_what_is_remembered(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0))
    await change_memory(store.facts(), ADA, put("color", "red", "k1"))
    eve = Principal("acme", "eve")
    await change_memory(store.facts(), eve, put("color", "blue", "k1"))
    assert await store.erase(ADA) == 1
    assert await store.facts().read(ADA) == Memory()
    assert texts(await store.facts().read(eve)) == {"color": "blue"}
    assert await store.erase(eve) == 0  # who has no session
    assert await store.facts().read(eve) == Memory()


async def test_deleting_a_session_deletes_no_fact(store: SessionStore) -> None:
    await store.commit(commit(KEY, 0))
    await change_memory(store.facts(), ADA, put("color", "red", "k1"))
    await store.delete(KEY)
    assert texts(await store.facts().read(ADA)) == {"color": "red"}
    assert (await store.sessions(ADA, limit=5)).sessions == ()


async def test_all_memories_are_listed_in_pages(store: SessionStore) -> None:
    facts = store.facts()
    assert (await facts.page(limit=5)).memories == ()
    owners = [Principal("acme", f"u{number}") for number in range(7)] + STRANGERS[:-1]
    for number, owner in enumerate(owners):
        await change_memory(facts, owner, put("n", str(number), f"k{number}"))
        await store.commit(commit(KEY, number))  # other items of the table
    found: dict[Principal, str] = {}
    cursor = None
    for _ in range(50):
        page = await facts.page(limit=3, cursor=cursor)
        assert len(page.memories) <= 3
        for each in page.memories:
            assert each.owner not in found
            found[each.owner] = each.memory.facts[0].text
        cursor = page.cursor
        if cursor is None:
            break
    assert found == {owner: str(number) for number, owner in enumerate(owners)}
    for wrong in ("x", "", "bnVsbA=="):
        with pytest.raises(InvalidField):
            await facts.page(limit=3, cursor=wrong)
    with pytest.raises(InvalidField):
        await facts.page(limit=0)


async def test_what_cannot_be_stored_is_refused(facts: Facts) -> None:
    fact = Fact(
        id="f",
        key="k",
        text="x" * 400_000,
        revision=1,
        created_at=NOW,
        updated_at=NOW,
        expires_at=NOW + 1,
    )
    with pytest.raises(TurnLimitReached):
        await facts.write(ADA, Memory(1, (fact,), ends_at=NOW + 1), expected=0)
    for owner in (Principal("a\0", "b"), Principal("a", "b" * 2_000)):
        assert await facts.read(owner) == Memory()
        with pytest.raises(InvalidField):
            await facts.write(owner, Memory(1, ends_at=NOW), expected=0)


async def test_a_writer_that_is_always_second_gives_up(facts: Facts) -> None:
    class Contended:
        async def read(self, owner: Principal) -> Memory:
            return await facts.read(owner)

        async def write(self, *_: object, **__: object) -> bool:
            return False

    contended: Any = Contended()
    with pytest.raises(StoreUnavailable, match="keeps changing"):
        await change_memory(contended, ADA, put("a", "b", "k"))


class _Model(RuleBasedStateMachine):
    """Any sequence of changes by two subjects of two tenants, checked against dictionaries."""

    name = ""
    endpoint = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.facts: dict[Principal, dict[str, tuple[str, float]]] = {}
        self.calls = 0
        self.repeatable: list[tuple[Principal, Callable[[Memory], Memory]]] = []

    @initialize()
    def start(self) -> None:
        async def opened() -> None:
            self.store = make_store(self.name, new_location(self.name), self.endpoint, self.clock)
            await self.store.open()

        self.loop.run_until_complete(opened())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()

    def _run(self, owner: Principal, make: Callable[[Memory], Memory]) -> None:
        self.loop.run_until_complete(change_memory(self.store.facts(), owner, make))

    def _kept(self, owner: Principal) -> dict[str, tuple[str, float]]:
        kept = self.facts.setdefault(owner, {})
        for key in [key for key, (_, ends) in kept.items() if ends <= self.clock.now]:
            del kept[key]
        return kept

    def _check(self) -> None:
        for tenant in ("acme", "other"):
            for subject in ("ada", "eve"):
                owner = Principal(tenant, subject)
                read = self.loop.run_until_complete(self.store.facts().read(owner))
                shown = texts(read, self.clock.now)
                assert shown == {key: each[0] for key, each in self._kept(owner).items()}

    owners = st.builds(
        Principal, st.sampled_from(["acme", "other"]), st.sampled_from(["ada", "eve"])
    )
    names = st.sampled_from(["a", "b", "c", "d"])

    @rule(
        owner=owners,
        name=names,
        text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
        seconds=st.sampled_from([None, 5.0]),
    )
    def remembers(self, owner: Principal, name: str, text: str, seconds: float | None) -> None:
        self.calls += 1
        change = put(name, text, f"k{self.calls}", self.clock.now, seconds=seconds)
        kept = self._kept(owner)
        try:
            self._run(owner, change)
        except FactRefused:
            full = name not in kept and len(kept) >= SETTINGS.facts
            assert full or not text.strip() or len(str(kept)) + len(text) > 40
        else:
            kept[name] = text.strip(), self.clock.now + (seconds or SETTINGS.ttl_seconds)
            self.repeatable.append((owner, change))
        self._check()

    @rule(owner=owners, name=names)
    def forgets(self, owner: Principal, name: str) -> None:
        self.calls += 1
        change = by_agent(f"k{self.calls}", self.clock.now)
        self._run(owner, lambda memory: forget(memory, change, key=name))
        self._kept(owner).pop(name, None)
        self._check()

    @rule(data=st.data())
    def repeats(self, data: st.DataObject) -> None:
        """A call whose answer was lost is made again: nothing changes."""
        if self.repeatable:
            self._run(*data.draw(st.sampled_from(self.repeatable[-20:])))
            self._check()

    @rule(owner=owners, whole=st.booleans())
    def forgets_all(self, owner: Principal, whole: bool) -> None:
        if whole:
            self.loop.run_until_complete(self.store.erase(owner))
            self.repeatable = [each for each in self.repeatable if each[0] != owner]
        else:
            subject = Change(at=self.clock.now, by="subject")
            self._run(owner, lambda memory: forget_all(memory, subject))
        self.facts[owner] = {}
        self._check()

    @rule(seconds=st.sampled_from([1.0, 6.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self._check()


@pytest.mark.parametrize("name", NAMES)
def test_any_sequence(name: str, request: pytest.FixtureRequest) -> None:
    endpoint = str(request.getfixturevalue("dynamodb")) if name == "dynamodb" else ""
    run_state_machine_as_test(
        type("Model", (_Model,), {"name": name, "endpoint": endpoint}),
        settings=hypothesis_settings(
            max_examples=number_of_examples(4, 60), stateful_step_count=20, deadline=None
        ),
    )


async def test_expired_memories_are_purged_from_sqlite(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / "s.db", clock=clock, idle_seconds=0.05, steady=clock)
    await store.open()
    try:
        await change_memory(store.facts(), ADA, put("a", "one", "k1"))
        eve = Principal("acme", "eve")
        forgotten = put("a", "one", "k2", NOW - 9 * 86_400)
        await change_memory(store.facts(), eve, forgotten)
        for _ in range(500):
            if (await store.facts().read(eve)).revision == 0:
                break
            await asyncio.sleep(0.02)
        assert await store.facts().read(eve) == Memory()
        assert texts(await store.facts().read(ADA)) == {"a": "one"}
    finally:
        await store.close()
