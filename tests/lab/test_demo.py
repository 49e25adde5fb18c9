"""The demo: a conversation with an approval, then a crowd."""

from seawall.lab.demo import Demo, run_demo
from tests.servers import ROOT


async def test_the_conversation_pauses_for_an_approval_and_goes_on() -> None:
    shown: list[str] = []
    result = await run_demo(
        Demo(
            example=ROOT / "examples/store",
            turns=3,
            seed=0,
            write_line=lambda line: shown.append(line + "\n"),
            write=shown.append,
            progress=lambda _: None,
        )
    )
    text = "".join(shown)
    expected = (
        "User:      Oh, I ordered that by mistake. Please cancel it.",
        "· cancel_pending_order {",
        "· waits for approval by the customer: cancel_pending_order",
        "· paused",
        "· approved",
        "· answered: {",
        "Done: order #W1005754 is cancelled.",
        "· durable as turn 2 of its session",
        "User:      Then cancel #W1000274 as well, please.",
        "· refused: The order is 'delivered'",
        "· durable as turn 3 of its session",
    )
    position = 0
    for each in expected:
        position = text.index(each, position) + len(each)
    assert text.count("waits for approval") == 1
    assert (result.turns, result.completed, result.durable) == (3, 3, 3)
