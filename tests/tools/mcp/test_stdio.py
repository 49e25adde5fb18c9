"""Servers that are child processes: their start, their end, and many calls at once."""

import asyncio
import json
import logging
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from seawall.tools.settings import McpSettings, SourceLimits
from tests.tools.mcp.harness import call, context, opened, python_server, until


def settings(behaviour: str, **more: Any) -> McpSettings:
    command = python_server("line_server.py", behaviour)
    return McpSettings(
        command=command,
        limits=SourceLimits(list_seconds=30.0, concurrency=64, min_calls=1_000),
        **more,
    )


def alive(number: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        stat = Path(f"/proc/{number}/stat")
        return not stat.exists() or stat.read_text().split(") ")[1][0] != "Z"
    return False


async def dead(number: int) -> None:
    await until(lambda: not alive(number))


async def test_calls_at_once_get_their_own_answers_in_any_order() -> None:
    async with opened(settings("shuffled")) as catalog:
        calls = (call(catalog, "act", {"n": number}) for number in range(50))
        outcomes = await asyncio.gather(*calls)
    assert [each.content for each in outcomes] == [f"n{n}" for n in range(50)]


async def test_the_environment_is_what_programs_need_and_what_is_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "wanted")
    monkeypatch.setenv("SEAWALL_SECRET", "ours")
    async with opened(settings("plain", env_pass=("SHOP_TOKEN", "ABSENT"))) as catalog:
        found = json.loads((await call(catalog, "environment")).content)
    assert found["SHOP_TOKEN"] == "wanted"
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SHOP_TOKEN"}
    assert set(found) - {"PWD", "__CF_USER_TEXT_ENCODING"} <= allowed


async def test_a_server_that_dies_is_started_again() -> None:
    async with opened(settings("plain")) as catalog:
        before = (await call(catalog, "who")).content
        died = await call(catalog, "die")
        assert died.failed
        assert died.unknown
        meanwhile = await call(catalog, "who")  # it pauses before the next start
        assert meanwhile.failed
        assert not meanwhile.unknown
        assert "Nothing was changed" in meanwhile.content
        while (outcome := await call(catalog, "who")).failed:  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.05)
        assert outcome.content != before
    await dead(int(outcome.content))


@pytest.mark.parametrize("behaviour", ["plain", "stubborn"])
async def test_nothing_of_it_is_left(behaviour: str) -> None:
    """Also of a process that ends neither with its input nor at SIGTERM."""
    async with opened(settings(behaviour)) as catalog:
        number = int((await call(catalog, "who")).content)
        assert alive(number)
    await dead(number)


async def test_what_it_has_started_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seawall.tools.mcp")
    async with opened(settings("parent")) as catalog:
        await call(catalog, "act")
        await until(lambda: "child" in caplog.text)
    found = re.search(r"child (\d+)", caplog.text)
    assert found is not None
    await dead(int(found[1]))


async def test_it_ends_with_its_parent() -> None:
    """Also if the parent is killed, and the child does not notice the end of its input."""
    program = """
import asyncio, os, sys
from tests.tools.mcp.harness import call, opened
from tests.tools.mcp.test_stdio import settings
async def main():
    async with opened(settings("hung")) as catalog:
        print((await call(catalog, "who")).content, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    number = int(await parent.stdout.readline())
    parent.kill()
    await dead(number)
    await parent.wait()


async def test_lines_that_are_no_messages_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seawall.tools.mcp")
    async with opened(settings("noisy")) as catalog:
        assert (await call(catalog, "act")).content == "done"
    assert "not a message" in caplog.text
    assert r"loading \x1b[31mred" in caplog.text


async def test_what_is_not_text_is_no_message_and_ends_nothing() -> None:
    """Bytes that are no UTF-8 deep within a message: in the handshake, and in a progress."""
    async with opened(settings("encoding")) as catalog:
        before = (await call(catalog, "who")).content
        assert before.isdigit()
        assert (await call(catalog, "act")).content == "done"
        assert (await call(catalog, "who")).content == before


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    async with opened(settings("hung")) as catalog:
        task = asyncio.create_task(call(catalog, "act"))
        await until(lambda: catalog.upstreams["server"].in_flight > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await call(catalog, "cancelled")).content == "1"


async def test_answers_to_nothing_and_second_answers_are_ignored() -> None:
    async with opened(settings("wrong-ids")) as catalog:
        assert (await call(catalog, "act")).content == "right"
        assert (await call(catalog, "act")).content == "right"


async def test_a_question_is_declined_and_passed_on() -> None:
    async with opened(settings("elicits")) as catalog:
        outcome = await call(catalog, "act")
    assert outcome.content.startswith("decline\n")
    assert "Size?" in outcome.content


async def test_a_question_of_a_call_that_was_given_up_is_not_passed_on_to_another() -> None:
    async with opened(settings("asks-late")) as catalog:
        assert "Size?" in (await call(catalog, "act", {"n": 0})).content
        assert (await call(catalog, "act", {"n": 1}, context(seconds=0.2))).unknown
        assert (await call(catalog, "act", {"n": 2})).content == "decline"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("endless", "a line of more than"),
        ("flood", "sent more than"),
        ("asks", "asked more than"),
        ("garbage", "what is not a message"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_stopped(
    behaviour: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call fails long before its deadline, and the loop stays responsive."""
    slow = 0.0
    async with opened(settings(behaviour)) as catalog:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(call(catalog, "act", {}, context(seconds=60.0)))
        while not task.done():
            began = loop.time()
            await asyncio.sleep(0.01)
            slow = max(slow, loop.time() - began)
        outcome = task.result()
        assert outcome.failed
        assert outcome.unknown
    assert reason in caplog.text
    assert slow < 2.0


async def test_a_server_that_does_not_read_holds_no_more_than_a_bound() -> None:
    big = {"text": "x" * 60_000}
    async with opened(settings("deaf")) as catalog:
        outcomes = []
        for _ in range(4):
            calls = (call(catalog, "act", big, context(seconds=0.05)) for _ in range(50))
            outcomes += await asyncio.gather(*calls)
    assert all(each.failed for each in outcomes)
    assert any("not available" in each.content for each in outcomes)


async def test_a_program_that_does_not_exist_is_a_source_that_is_down() -> None:
    missing = McpSettings(command=("/no/such/program",))
    async with opened(missing) as catalog:
        assert catalog.unavailable == {"server"}
