"""Fleets on this machine: real processes, and nothing of them left."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from seawall.errors import ConfigError
from seawall.lab.fleet.balancer import find_balancer, run_balancer
from seawall.lab.fleet.shares import NoShares, Shares
from seawall.lab.fleet.spec import parse_fleet
from seawall.lab.fleet.state import FleetState, started_at, state_of
from seawall.lab.sim_reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.lab.tether import marked
from tests.attack.balancer import require_balancer
from tests.servers import running_model, running_server

QUICK = ("--first-token", "0.02..0.05", "--duration", "0.1..0.2", "--chunks", "10")
CHECKS = ("--simulated", "--chunks", "10", "--first-token", "0.02..0.05", "--duration", "0.1..0.2")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fleets of this test only; whatever it forgets is ended."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    lab("down", "--all")


def lab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "seawall", "lab", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def up(*words: str) -> tuple[dict[str, str], FleetState]:
    told = lab("up", *words, "--detach", "--json", *QUICK)
    assert told.returncode == 0, told.stderr
    state = state_of("default")
    assert state is not None
    assert state.alive
    return json.loads(told.stdout), state


def surge(fleet: dict[str, str], *arguments: str) -> dict[str, Any]:
    told = subprocess.run(
        [
            *(sys.executable, "-m", "seawall", "surge", fleet["url"], "--json", *CHECKS),
            *("--token-file", fleet["token_file"], *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    result: dict[str, Any] = json.loads(told.stdout)
    return result


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_pods_behind_a_balancer_share_the_turns_and_the_sessions() -> None:
    require_balancer()
    fleet, state = up("pods=2")
    assert json.loads(lab("ps", "--json").stdout)[0]["state"] == "up"
    result = surge(fleet, "--customers", "6", "--for", "2s", "--turns", "3")
    assert result["errors"] == {}
    assert result["durability"]["found"] == result["turns"] > 6
    assert "up already" in lab("up", "pods=1", "--json").stderr
    assert lab("down").returncode == 0
    assert marked(state.mark) == []
    assert not Path(state.folder).exists()
    assert state_of("default") is None


def test_nothing_outlives_a_lab_that_is_killed() -> None:
    """By the kernel's own signal, without anybody who cleans up."""
    require_balancer()
    _, state = up("pods=2")
    assert len(marked(state.mark)) >= 4  # the model, two pods, the balancer
    os.kill(state.pid, signal.SIGKILL)
    until(lambda: marked(state.mark) == [])
    assert json.loads(lab("ps", "--json").stdout)[0]["state"] == "crashed"
    assert "had crashed" in lab("down").stdout
    assert not Path(state.folder).exists()


def test_frozen_environments_end_with_their_lab() -> None:
    fleet, state = up("lambda")
    result = surge(fleet, "--at-once", "3")
    assert result["errors"] == {}
    assert result["completed"] == 3
    before = marked(state.mark)
    assert len(before) >= 3  # the model, the local Lambda, environments
    os.kill(state.pid, signal.SIGKILL)
    assert lab("down").returncode == 0
    assert marked(state.mark) == []
    assert not any(started_at(pid) for pid in before)


def test_what_is_left_when_every_parent_is_killed_is_found_by_its_mark() -> None:
    _, state = up("lambda", "provisioned=2")
    for pid in marked(state.mark):
        if b"seawall.hosts.aws_lambda" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert lab("down").returncode == 0
    assert marked(state.mark) == []


def test_a_pod_gets_no_more_of_the_processors_than_its_share() -> None:
    require_balancer()
    try:
        shares = Shares()
        shares.remove(shares.make("seawall-test", 1.0))
    except NoShares as error:
        pytest.skip(str(error))
    _, state = up("pods=1", "cpu=0.5")
    groups = list(Path("/sys/fs/cgroup").glob(f"**/{state.mark}-pod0"))
    assert groups
    assert (groups[0] / "cgroup.procs").read_text().split()
    assert lab("down").returncode == 0
    assert not groups[0].exists()


@pytest.mark.parametrize("first", [True, False])
def test_both_versions_of_control_groups(tmp_path: Path, *, first: bool) -> None:
    """The files that the kernel's documentation names; here in a folder of our own."""
    own = tmp_path / "own"
    own.write_text("1:cpu,cpuacct:/mine\n" if first else "0::/mine\n")
    base = tmp_path / ("cpu" if first else "") / "mine"
    base.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    folder = Shares(tmp_path, own).make("pod", 0.25)
    assert folder == base / "pod"
    if first:
        assert (folder / "cpu.cfs_quota_us").read_text() == "25000"
    else:
        assert (folder / "cpu.max").read_text() == "25000 100000"


def test_where_no_groups_can_be_made_it_says_so(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("3:memory:/\n")
    with pytest.raises(NoShares, match="no control group with cpu"):
        Shares(tmp_path, own)


def test_pods_need_a_balancer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="install haproxy or nginx"):
        find_balancer(str(tmp_path))


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_either_balancer_spreads_turns_over_pods(kind: str, tmp_path: Path) -> None:
    require_balancer(kind)
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    settings = {"IDENTITY__ANONYMOUS": "true", "SERVER__WORKERS": "1"}
    times = SimTimes(first_token=(0.02, 0.05), duration=(0.1, 0.2), chunks=10)
    with ExitStack() as stack:
        model = stack.enter_context(running_model(*QUICK))
        pods = [stack.enter_context(running_server(tmp_path, model, **settings)) for _ in range(2)]

        async def crowd() -> SurgeResult:
            async with run_balancer(
                [pod.url for pod in pods], tmp_path, found=(kind, str(program))
            ) as front:
                load = Open([Crowd(shapes=[Instant(20)])])
                return await drive(
                    Scenario(url=front.url, load=load, simulated=Simulated(times=times))
                )

        result = asyncio.run(crowd())
        served = [
            re.search(r"^seawall_turns_total.* (\d+)", _metrics(pod.url), re.MULTILINE)
            for pod in pods
        ]
    assert result.errors == {}
    assert all(found is not None and float(found[1]) > 0 for found in served)


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["four"], "is not NAME=VALUE"),
        (["memory=512"], "what kind"),
        (["pods=2", "lambda"], "what kind"),
        (["pods=0"], "pods: must be 1 or more"),
        (["pods=2", "memory=512"], "memory: means nothing for pods"),
        (["lambda", "balance=least"], "balance: means nothing for lambda"),
        (["lambda", "colour=red"], "colour: unknown"),
        (["lambda", "store=here"], "neither sqlite nor"),
    ],
)
def test_words_that_mean_nothing_are_told(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_fleet(words)


def test_words_become_a_fleet() -> None:
    spec = parse_fleet(["lambda", "memory=1769", "in-flight=8", "provisioned=2"])
    assert (spec.kind, spec.memory, spec.in_flight, spec.provisioned) == ("lambda", 1769, 8, 2)
    assert parse_fleet(["pods=4", "cpu=0.5"]).title == "4 pods of 0.5 processors"
