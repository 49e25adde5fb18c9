"""Tools that hang, raise unexpected errors, or return too much affect only their own calls."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.hosts.conftest import events
from tests.hosts.test_interruptions import eventually
from tests.hosts.tool_server import ask, log_of, outcomes, pid_of, tool_server
from tests.servers import ServerProcess

RAISED = [
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "CancelledError",
    "BaseException",
    "BaseExceptionGroup",
    "StopIteration",
    "StopAsyncIteration",
    "RecursionError",
    "MemoryError",
    "TimeoutError",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with tool_server(tmp_path_factory.mktemp("tools")) as server:
        yield server


def idle(server: ServerProcess) -> bool:
    return "seawall_turns_in_flight 0.0" in httpx2.get(f"{server.url}/metrics").text


def test_plain_functions_that_never_return(tmp_path: Path) -> None:
    """First others wait for none of their threads; at the limit the tool is refused at once."""
    with tool_server(tmp_path, SERVER__DRAIN_SECONDS="1") as server:
        with ThreadPoolExecutor(24) as clients:
            hanging = [clients.submit(outcomes, server, ("hang", {})) for _ in range(24)]
            time.sleep(0.5)
            assert not outcomes(server, ("healthy", {}))[0]["failed"]  # else it waited for them
            for each in hanging:
                assert each.result()[0]["failed"]
        eventually(lambda: idle(server))
        (outcome,) = outcomes(server, ("hang", {}))
        assert (
            "not available" in outcome["content"]
        )  # otherwise it was called, or waited for a thread
        assert pid_of(server)
        assert "tool hang: a call has not returned by its deadline" in log_of(tmp_path)
        assert server.stop() == 0


def test_async_functions_that_ignore_their_cancellation(tmp_path: Path) -> None:
    """The turn and its slot are released at the deadline, and the process ends."""
    with tool_server(tmp_path, SERVER__DRAIN_SECONDS="1") as server:
        (outcome,) = outcomes(server, ("ignore", {}))
        assert outcome["content"] == "ignore did not answer in time."
        eventually(lambda: idle(server))
        assert "tool ignore: a call ignores its cancellation" in log_of(tmp_path)
        assert pid_of(server)
        assert server.stop() == 0


def test_a_disconnect_frees_the_slot_whatever_the_tool_does(server: ServerProcess) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{server.url}/v1/turns",
            json={"text": '{"attempts": [[[["ignore", "{}"]], "done"]], "left": 1}'},
            timeout=0.3,
        )
    eventually(lambda: idle(server), 2.0)


def test_a_blocked_loop_does_not_keep_the_process(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__DRAIN_SECONDS="1") as server:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{server.url}/v1/turns",
                json={"text": '{"attempts": [[[["block", "{\\"seconds\\": 600}"]], "done"]]}'},
                timeout=0.5,
            )
        assert server.stop() == 0


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_a_tool_raises_is_a_failed_outcome(server: ServerProcess, raised: str) -> None:
    before = pid_of(server)
    for each in outcomes(
        server, ("raises", {"name": raised}), ("healthy", {}), ("raises_later", {"name": raised})
    ):
        assert each["failed"] == each["name"].startswith("raises"), each
        assert raised not in each["content"]
    assert pid_of(server) == before


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("key", ["", "key"])
def test_whatever_a_model_raises_fails_its_turn_only(
    server: ServerProcess, raised: str, key: str
) -> None:
    before = pid_of(server)
    answer = ask(server, [f"raise {raised}"], key=key and f"{key}-{raised}")
    assert answer.status_code == 500, answer.text
    assert answer.json()["code"] == "internal-error"
    streamed = ask(
        server, [[["healthy", "{}"]], f"raise {raised}"], stream=True, key=key and f"s-{raised}"
    )
    assert events(streamed.text)[-1]["type"] == "turn.failed"
    assert pid_of(server) == before


@pytest.mark.parametrize("raised", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_whatever_a_task_of_a_tool_raises_stays_with_it(server: ServerProcess, raised: str) -> None:
    """Out of a task, SystemExit and KeyboardInterrupt stop the event loop that runs it."""
    before = pid_of(server)
    failed, done = outcomes(
        server, ("raises_in_task", {"name": raised}), ("raises_behind", {"name": raised})
    )
    assert failed["content"] == "raises_in_task failed."
    assert not done["failed"]
    assert pid_of(server) == before


def test_a_generator_is_a_failed_outcome(server: ServerProcess) -> None:
    assert outcomes(server, ("generate", {}))[0]["failed"]


def test_memory_errors(server: ServerProcess) -> None:
    assert outcomes(server, ("allocate", {"gigabytes": 1 << 20}))[0]["failed"]
    assert pid_of(server)


def test_results_of_tools_are_truncated(server: ServerProcess) -> None:
    refused, read = outcomes(
        server,
        ("flood", {"characters": 2_000_000, "raised": True}),
        ("flood", {"characters": 2_000_000, "raised": False}),
    )
    assert refused["failed"]
    assert 4_096 <= len(refused["content"]) < 4_300
    assert 32_768 <= len(read["content"]) < 33_000
    for outcome in (refused, read):
        assert outcome["content"].endswith(
            "of 2000000 characters are shown; ask for less at once.]"
        )


def test_a_cancelled_tool_may_clean_up(server: ServerProcess) -> None:
    """The result of a call that ends soon after its deadline is reported, not the timeout."""
    assert outcomes(server, ("swallow", {}))[0]["content"] == "ended"


def test_a_background_turn_with_a_tool_that_hangs(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__DRAIN_SECONDS="1") as server:
        accepted = ask(server, [[["ignore", "{}"]], "done"], background=True)
        assert accepted.status_code == 202
        outcome: list[str] = []
        reader = threading.Thread(
            target=lambda: outcome.append(
                httpx2.get(server.url + accepted.json()["events"], timeout=20).text
            )
        )
        reader.start()
        reader.join(10)
        assert events(outcome[0])[-1]["type"] == "turn.completed"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_a_program_ends_its_own_loop_with_hung_threads() -> None:
    """Not only servers: threads of tools never keep Python from ending."""
    from seawall.tools.execution import CallExecutor  # noqa: PLC0415 - of this test only

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await CallExecutor().in_thread("hang", threading.Event().wait, loop.time() + 0.05)

    began = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - began < 2
    assert all(each.daemon for each in threading.enumerate() if each.name == "tool")
