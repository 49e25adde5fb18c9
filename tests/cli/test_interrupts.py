"""Ctrl-C: results so far are reported, compiled code is stopped at once, no traceback."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faulty_server import HANG, Answer, Handler, Hang, Request, serving

DONE = Answer(
    body=b'data: {"id":"c1","choices":[{"delta":{"content":"Hello"}}]}\n\ndata: [DONE]\n\n',
    sized=False,
    cut=1 << 20,
)


def half(request: Request) -> Answer | Hang:
    """Answer only some users."""
    return DONE if b"customer 0." in request.body or b"customer 1." in request.body else HANG


async def surge(handler: Handler, *words: str, interrupts: int) -> tuple[int, str, str, float]:
    """Status, output, errors, and how long it took from the last interrupt on."""
    async with serving(handler) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seawall", "surge", server.url, "--api", "chat", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            while len(server.requests) < 4:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            for _ in range(interrupts):
                process.send_signal(signal.SIGINT)
                await asyncio.sleep(0.02)
            began = time.monotonic()
            out, errors = await process.communicate()
        took = time.monotonic() - began
        return process.returncode or 0, out.decode(), errors.decode(), took


@pytest.mark.parametrize("crowd", ["open", "closed"])
async def test_an_interrupted_surge_reports_its_results(crowd: str) -> None:
    words = ("--rate", "40", "--for", "60s") if crowd == "open" else ("--users", "4")
    status, out, errors, took = await surge(half, *words, interrupts=1)
    assert (status, "Traceback" in errors) == (130, False)
    assert "2 of 2 turns completed, 0 refused, 0 failed, interrupted with " in out
    assert took < 5.0


async def test_an_interrupted_surge_reports_in_json_and_html(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("--at-once", "6", "--json", "--html", str(page))
    status, out, _, _ = await surge(half, *words, interrupts=1)
    figures = json.loads(out)
    assert (status, figures["completed"], figures["failed"]) == (130, 2, 0)
    assert figures["interrupted"] == {"unsent": 0, "abandoned": 4}
    assert "interrupted with 0 not sent and 4 in flight" in page.read_text()


async def test_a_second_interrupt_ends_a_surge_at_once() -> None:
    status, out, errors, took = await surge(half, "--at-once", "6", interrupts=2)
    # The interpreter, once it shuts down, ends by the signal itself, which shells report as 130.
    assert status in (130, -signal.SIGINT)
    assert ("Traceback" in errors, took < 3.0) == (False, True)
    assert out == "" or "interrupted" in out  # where the first was quicker than the second


def test_a_plan_is_stopped_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "plan", "--daily", "200M", "--spike", "90000@20s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},  # it compiles, too
    )
    time.sleep(2.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (130, b"", b"")
    assert time.monotonic() - began < 3.0


def test_a_server_that_is_interrupted_while_it_starts_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(20)\n")
    (tmp_path / "seawall.toml").write_text(
        '[models.default]\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
        '[agents.one]\ninstructions = "Help."\n[tools.t]\nfactory = "slow:make"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "seawall", "serve", "--port", "0", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,  # as a terminal does: the whole group is interrupted
    )
    time.sleep(1.2)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    process.kill()
    out, errors = process.communicate(timeout=30)
    assert b"listening" not in out
    assert b"Traceback" not in errors
