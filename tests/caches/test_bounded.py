"""Bounded cache: size, expiry and eviction."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.caches import BoundedCache

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "drop", "pass"]),
        st.integers(0, 6),
        st.integers(0, 12),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(entries=st.integers(1, 4), size=st.integers(1, 20), steps=STEPS)
def test_it_behaves_like_a_plain_list(
    entries: int, size: int, steps: list[tuple[str, int, int, int]]
) -> None:
    kept: BoundedCache[int, str] = BoundedCache(entries, size)
    model: list[tuple[int, str, int, float]] = []  # last used last
    now = 0.0
    for number, (what, key, weight, seconds) in enumerate(steps):
        if what == "pass":
            now += seconds
            continue
        found = next((each for each in model if each[0] == key), None)
        if found and (what != "get" or found[3] <= now):
            model.remove(found)
            found = None
        if what == "put":
            kept.put(key, str(number), size=weight, until=now + seconds)
            if weight <= size:
                model.append((key, str(number), weight, now + seconds))
            while len(model) > entries or sum(each[2] for each in model) > size:
                model.pop(0)
        elif what == "drop":
            kept.drop(key)
        else:
            assert kept.get(key, at=now) == (found[1] if found else None)
            if found:
                model.remove(found)
                model.append(found)
        assert len(kept) == len(model) <= entries
        assert kept.bytes == sum(each[2] for each in model) <= size


def test_clearing_removes_all() -> None:
    kept: BoundedCache[str, int] = BoundedCache(2, 10)
    kept.put("a", 1, size=3, until=5.0)
    kept.clear()
    assert (len(kept), kept.bytes, kept.get("a", at=0.0)) == (0, 0, None)
