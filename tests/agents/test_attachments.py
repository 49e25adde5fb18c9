"""Which attachments of a conversation are shown: bounded, and the same from turn to turn."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.agents.attachments import ShownBounds, attached, shown_messages
from seawall.turn import AssistantMessage, Attachment, Message, Principal, UserMessage

BOUNDS = ShownBounds(4, 3, 1_000, 300)

_files = st.lists(
    st.tuples(st.sampled_from(["image/png", "application/pdf", "text/plain"]), st.integers(1, 240)),
    max_size=3,
)


def conversation(sent: list[list[tuple[str, int]]]) -> list[Message]:
    messages: list[Message] = []
    for turn, files in enumerate(sent):
        attachments = tuple(
            Attachment(f"file-s.{turn:016x}{index:016x}", kind, f"f{turn}-{index}", size, size // 3)
            for index, (kind, size) in enumerate(files)
        )
        messages += [UserMessage(f"question {turn}", attachments), AssistantMessage("answer")]
    return messages[:-1]


def shown_of(messages: tuple[Message, ...]) -> list[Attachment]:
    return [file for each in messages if isinstance(each, UserMessage) for file in each.attachments]


@given(st.lists(_files, min_size=1, max_size=20))
def test_bounds_are_kept_and_nothing_is_lost_silently(sent: list[list[tuple[str, int]]]) -> None:
    messages = conversation(sent)
    made = shown_messages(messages, BOUNDS)
    shown = shown_of(made)
    images = [each for each in shown if each.media_type == "image/png"]
    assert len(images) <= BOUNDS.images
    assert len(shown) - len(images) <= BOUNDS.documents
    assert sum(each.bytes for each in shown) <= BOUNDS.bytes
    assert sum(each.tokens for each in shown) <= BOUNDS.tokens
    last = messages[-1]
    assert isinstance(last, UserMessage)
    assert made[-1] == last  # all of the newest
    for before, after in zip(messages, made, strict=True):
        if isinstance(before, UserMessage):
            assert isinstance(after, UserMessage)
            for each in before.attachments:
                assert (each in after.attachments) != (f'"{each.name}"' in after.text)
            assert after.text.endswith(before.text)


@given(st.lists(_files, min_size=2, max_size=20))
def test_what_was_sent_stays_the_same_until_a_bound_is_met(
    sent: list[list[tuple[str, int]]],
) -> None:
    """A turn changes what came before at most where the bounds were exceeded, and then by half."""
    whole = conversation(sent)
    changes = 0
    for end in range(3, len(whole) + 1, 2):
        earlier, later = (
            shown_messages(whole[: end - 2], BOUNDS),
            shown_messages(whole[:end], BOUNDS),
        )
        if later[: end - 2] == earlier:
            continue
        changes += 1
        before, after = shown_of(earlier), shown_of(later[: end - 2])
        assert set(after) < set(before)
    files = sum(map(len, sent))
    assert changes <= files


def test_the_prefix_changes_seldom() -> None:
    """With a photo in every turn, two of three turns leave what was sent before untouched."""
    whole = conversation([[("image/png", 10)]] * 60)
    kept = 0
    for end in range(3, len(whole) + 1, 2):
        earlier = shown_messages(whole[: end - 2], BOUNDS)
        kept += shown_messages(whole[:end], BOUNDS)[: end - 2] == earlier
    assert kept >= 38


def test_a_conversation_gets_rid_of_documents_that_fill_a_model() -> None:
    """The next file must not be refused with the earlier ones for ever: they give way to it."""
    bounds = ShownBounds(8, 4, 1 << 20, 100_000)
    first, second = (
        Attachment(f"file-s.{index:032x}", "application/pdf", f"f{index}", 9, 60_000)
        for index in range(2)
    )
    answer = AssistantMessage("answer")
    before = (UserMessage("1", (first,)), answer, UserMessage("2"))
    assert shown_of(shown_messages(before, bounds)) == [first]
    after = (*before, answer, UserMessage("3", (second,)), answer, UserMessage("4"))
    assert shown_of(shown_messages(after, bounds)) == [second]


def test_without_a_store_all_are_named() -> None:
    messages = conversation([[("image/png", 10), ("text/plain", 5)], [("image/png", 1)]])
    made, contents = attached(messages, None, Principal("acme", "ada"))
    assert contents is None
    assert shown_of(made) == []
    assert "f0-0" in made[0].text  # type: ignore[union-attr] # the user's
    assert "f1-0" in made[2].text  # type: ignore[union-attr] # the user's
