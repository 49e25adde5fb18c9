from hypothesis import given
from hypothesis import strategies as st

from seawall.agents.window import history_window
from seawall.turn import AssistantMessage, TurnRecord, Usage, UserMessage


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(0, 12), st.integers(0, 300))
def test_whole_turns_newest_first_within_both_bounds(
    sizes: list[int], turns: int, tokens: int
) -> None:
    records = tuple(
        TurnRecord(
            id=f"t{number}",
            number=number,
            created_at=0.0,
            agent="a",
            intent=None,
            messages=(UserMessage(f"{number}:" + "x" * size), AssistantMessage("y")),
            usage=Usage(),
        )
        for number, size in enumerate(sizes)
    )
    window = history_window(records, max_turns=turns, max_tokens=tokens)
    said = [each for each in window if isinstance(each, UserMessage)]
    every = [each.messages[0] for each in records]
    assert len(window) == 2 * len(said)
    assert said == every[len(every) - len(said) :]
    assert len(said) <= turns
    if len(said) < min(len(every), turns):  # one more would have been too long
        more = history_window(records, max_turns=turns, max_tokens=tokens + 10_000)
        assert len(more) > len(window)
