"""The surge driver at a real server in front of a simulated model."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from seawall.cli.main import main
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.connection import Connection
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.read_back import read_back
from seawall.lab.surge.scenario import (
    Closed,
    Crowd,
    Instant,
    Open,
    Poisson,
    Scenario,
    Simulated,
)
from tests.issuer import Issuer
from tests.lab.conftest import Site
from tests.servers import command

TIMES = SimTimes(first_token=(0.02, 0.05), duration=(0.1, 0.2), chunks=10)
STALL_SECONDS = 2.0


def at(site: Site, load: Open | Closed, **changes: object) -> Scenario:
    scenario = Scenario(url=site.url, load=load, simulated=Simulated(times=TIMES))
    return msgspec.structs.replace(scenario, **changes)


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_an_open_loop_is_checked_and_read_back(site: Site, *, keep_alive: bool) -> None:
    load = Open([Crowd(shapes=[Instant(40), Poisson(40.0, 1.0)])])
    scenario = at(site, load, keep_alive=keep_alive, read_back=1_000)
    result = await drive(scenario, token=site.issuer.token)
    assert result.errors == {}
    assert result.completed == result.turns > 40
    assert result.durability is not None
    assert result.durability.found == result.durability.looked_up == result.turns
    assert result.good
    assert (result.connections < result.turns) is keep_alive
    assert result.peak_in_flight >= 40
    assert all(each.added is not None and each.added > -0.01 for each in result.outcomes)


async def test_a_long_result_is_complete_with_unbuffered_output(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe takes 64 KiB per write; an unbuffered stream may write only a part."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    tokens = [site.issuer.token(f"customer-{each}") for each in range(8)]
    load = Open([Crowd(shapes=[Instant(400)], tokens=tokens)])
    result = await drive_in_subprocess(at(site, load))
    assert len(msgspec.json.encode(result)) > 1 << 16
    assert len(result.outcomes) == result.completed == 400


async def test_virtual_users_continue_their_sessions(site: Site) -> None:
    scenario = at(site, Closed(users=5, seconds=2.0, turns=3, ramp_up=0.1), read_back=500)
    result = await drive(scenario, token=site.issuer.token)
    assert result.errors == {}
    assert result.peak_in_flight <= 5
    sessions = {each.session for each in result.outcomes}
    assert result.turns / 3 <= len(sessions) <= result.turns / 3 + 5
    assert result.durability is not None
    assert result.durability.missing == []


def test_connections_are_released_without_garbage_collection(site: Site) -> None:
    scenario = at(site, Closed(users=5, seconds=1.5, ramp_up=0.1))
    gc.collect()
    gc.disable()
    try:
        result = asyncio.run(drive(scenario, token=site.issuer.token))  # until its loop has ended
        left = sum(type(each) is Connection for each in gc.get_objects())
    finally:
        gc.enable()
    assert result.connections == result.turns > 10
    assert left <= 5


async def test_a_deleted_turn_is_not_durable(site: Site) -> None:
    scenario = at(site, Open([Crowd(shapes=[Instant(3)])]), read_back=10)
    result = await drive(scenario, token=site.issuer.token)
    lost = result.outcomes[1]
    request = urllib.request.Request(
        f"{site.url}/v1/sessions/{lost.session}",
        method="DELETE",
        headers={"authorization": f"Bearer {site.issuer.token(f'customer-{lost.number}')}"},
    )
    await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())
    found = await read_back(scenario, result.outcomes, site.issuer.token)
    assert (found.looked_up, found.found) == (3, 2)
    assert lost.turn in found.missing[0]


async def test_an_answer_to_another_question_is_an_error(site: Site) -> None:
    """As with another model behind the server."""
    scenario = at(site, Open([Crowd(shapes=[Instant(2)])]))
    scenario = msgspec.structs.replace(scenario, simulated=Simulated(seed=5, times=TIMES))
    result = await drive(scenario, token=site.issuer.token)
    assert result.completed == 0
    assert result.errors == {"the answer does not match the question": 2}


async def test_an_unauthenticated_turn_is_an_error(site: Site) -> None:
    result = await drive(at(site, Open([Crowd(shapes=[Instant(2)], tokens=["unknown"])])))
    assert (result.completed, result.failed, result.refused) == (0, 2, 0)
    assert "status 401" in next(iter(result.errors))


@pytest.fixture
def pausing(site: Site) -> Iterator[list[int]]:
    """The server's processes, which a test may stop; they are continued afterwards."""
    pids = [site.pid, *site.children()]
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


async def stalled(site: Site, pids: list[int], load: Open | Closed) -> SurgeResult:
    """Run a load while the server is stopped from second 1 on."""

    async def stall() -> None:
        await asyncio.sleep(1.0)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(STALL_SECONDS)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    async with asyncio.TaskGroup() as group:
        driving = group.create_task(drive(at(site, load), token=site.issuer.token))
        group.create_task(stall())
    return driving.result()


async def test_a_stall_is_reported_in_full_by_the_open_loop_only(
    site: Site, pausing: list[int]
) -> None:
    """Coordinated omission.

    Arrivals in the first half of the stall wait for longer than its second half: that many must be
    seen, and the longest wait is the stall. The closed loop sees at most one slow turn per user.
    """
    rate, users = 40.0, 4
    opened = await stalled(site, pausing, Open([Crowd(shapes=[Poisson(rate, 4.5)])]))
    slow = [each for each in opened.outcomes if (each.first_text or 0.0) >= STALL_SECONDS / 2]
    assert opened.errors == {}
    assert len(slow) >= 0.5 * rate * STALL_SECONDS / 2
    assert max(each.first_text or 0.0 for each in opened.outcomes) >= 0.9 * STALL_SECONDS
    closed = await stalled(site, pausing, Closed(users=users, seconds=4.5, ramp_up=0.1))
    slow = [each for each in closed.outcomes if each.total >= STALL_SECONDS / 2]
    assert closed.errors == {}
    assert len(slow) <= users
    assert opened.first_text.p95 is not None
    assert opened.first_text.p95 >= 1e3 * STALL_SECONDS / 2


def surge(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return command("surge", *arguments, environment=environment, seconds=120)


def test_the_command_reports_its_results(site: Site, tmp_path: Path) -> None:
    page = tmp_path / "surge.html"
    questions = tmp_path / "asked.csv"
    questions.write_text("text\nWhere is it?\nWhen does it come?\n")
    token = site.issuer.token("ada")
    done = surge(
        *(site.url, "--at-once", "12", "--rate", "5..10", "--for", "1s", "--json", "--outcomes"),
        *("--questions", str(questions), "--simulated", "--chunks", "10", "--html", str(page)),
        SEAWALL_SURGE_TOKEN=token,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["completed"] == result["turns"] == len(result["outcomes"]) >= 12
    assert result["durability"]["found"] == result["turns"]
    assert token not in done.stdout + done.stderr
    text = page.read_text()
    assert "data-chart=" in text
    assert "http://" not in text.replace(site.url, "").replace("http://www.w3.org/2000/svg", "")


def test_a_trace_is_replayed(site: Site, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp\n2026-01-01 00:00:00\n2026-01-01 00:00:04\n2026-01-01 00:00:10\n")
    done = surge(
        *(site.url, "--trace", str(trace), "--speed", "10", "--first", "2"),
        *("--json", "--outcomes"),
        SEAWALL_SURGE_TOKEN=site.issuer.token("ada"),
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)["outcomes"]  # in the order in which they ended
    assert sorted(each.get("due", 0.0) for each in outcomes) == [0.0, 0.4]


def test_missing_and_wrong_options() -> None:
    for arguments, message in (
        (["http://127.0.0.1:1"], "no load"),
        (["localhost", "--at-once", "1"], "URL: not an http or https URL"),
        (["http://127.0.0.1:1", "--rate", "x"], "--rate: 'x' is not a number"),
        (["http://127.0.0.1:1", "--users", "1", "--at-once", "1"], "closed loop"),
    ):
        done = surge(*arguments)
        assert done.returncode == 2, done
        assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rate 0.001 --for 1s", "the crowd is empty"),
        ("--rate 0.001 --for 1s --export-k6 no.js", "the crowd is empty"),
        ("--users 1 --for 0s", "--for must be more than 0"),
        ("--trace no.csv --first 0", "--first must be 1 or more"),
        ("--at-once 1 --turns 2", "--turns and --think need a closed loop"),
        ("--at-once 1 --think 1s", "--turns and --think need a closed loop"),
        ("--users 1 --turns 2 --api chat", "--turns: there are no sessions"),
        ("--at-once 1 --outcomes", "--outcomes is a part of --json"),
        ("--at-once 1 --token-file no --export-locust no.py", "SURGE_TOKEN"),
        ("--at-once 1 --keep-alive --export-k6 no.js", "--keep-alive: in an open loop"),
    ],
)
def test_options_without_effect_are_rejected(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["surge", "http://127.0.0.1:1", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_surge_without_a_server_fails() -> None:
    done = surge("http://127.0.0.1:1", "--at-once", "3", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 3


def test_tokens_are_used_in_rotation(site: Site, tmp_path: Path, issuer: Issuer) -> None:
    file = tmp_path / "tokens"
    file.write_text("\n".join(issuer.token(name) for name in ("ada", "bob")))
    done = surge(site.url, "--at-once", "4", "--json", "--token-file", str(file))
    assert json.loads(done.stdout)["durability"]["found"] == 4, done.stderr
