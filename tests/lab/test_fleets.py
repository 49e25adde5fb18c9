"""Fleets on this machine: real processes, and no leftovers."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.lab.control_groups import ControlGroups, ControlGroupsUnavailable
from seawall.lab.fleet.balancer import run_balancer
from seawall.lab.fleet.state import FleetState, load_state, process_start_ticks, save_state
from seawall.lab.processes import MARK, descendants, processes_with_mark
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.settings import SessionSettings
from seawall.storage.open import open_store
from tests.attack.balancer import require_balancer
from tests.dynamodb_local import ENVIRONMENT
from tests.lab.test_fleet_settings import PRODUCTION
from tests.parts import require
from tests.servers import command, running_model, running_server

QUICK = ("--first-token", "0.02..0.05", "--duration", "0.1..0.2", "--chunks", "10")
CHECKS = ("--simulated", "--chunks", "10", "--first-token", "0.02..0.05", "--duration", "0.1..0.2")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only fleets of this test; all are ended afterwards."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    lab("down", "--all")


def lab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return command("lab", *arguments, seconds=180)


def up(*words: str) -> tuple[dict[str, str], FleetState]:
    done = lab("up", *words, "--detach", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    state = load_state("default")
    assert state is not None
    assert state.alive
    return json.loads(done.stdout), state


def surge(fleet: dict[str, str], *arguments: str) -> dict[str, Any]:
    words = ("surge", fleet["url"], "--json", *CHECKS, "--token-file", fleet["token_file"])
    done = command(*words, *arguments, seconds=180)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_pods_behind_a_balancer_share_the_turns_and_the_sessions() -> None:
    require_balancer()
    fleet, state = up("pods=2")
    assert json.loads(lab("ps", "--json").stdout)[0]["state"] == "up"
    result = surge(fleet, "--users", "6", "--for", "2s", "--turns", "3")
    assert result["errors"] == {}
    assert result["durability"]["found"] == result["turns"] > 6
    assert "up already" in lab("up", "pods=1", "--json").stderr
    assert lab("down").returncode == 0
    assert processes_with_mark(state.mark) == []
    assert not Path(state.folder).exists()
    assert load_state("default") is None


def test_a_production_configuration_is_served_in_isolation(tmp_path: Path) -> None:
    require_balancer()
    source = tmp_path / "seawall.toml"
    source.write_text(PRODUCTION)
    fleet, _ = up("pods=1", "--config", str(source))
    result = surge(fleet, "--at-once", "3")
    assert result["errors"] == {}
    assert result["durability"]["found"] == 3


@pytest.mark.parametrize("words", [["pods=2"], ["lambda", "provisioned=2"]])
def test_the_reason_why_a_fleet_does_not_start_is_reported(
    words: list[str], tmp_path: Path
) -> None:
    require_balancer()
    source = tmp_path / "seawall.toml"
    source.write_text(PRODUCTION + '[tools.store]\nfactory = "no_such_module:open"\n')
    done = lab("up", *words, "--config", str(source), *QUICK)
    assert done.returncode == 1
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ended with status" in done.stderr
    assert load_state("default") is None


def test_an_invalid_configuration_is_reported_before_the_start(tmp_path: Path) -> None:
    require_balancer()
    source = tmp_path / "seawall.toml"
    source.write_text("[server]\nprt = 1\n")
    done = lab("up", "pods=2", "--config", str(source), "--detach")
    assert done.returncode != 0
    assert "seawall.toml:2: server.prt: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_table_is_deleted_with_its_fleet(
    dynamodb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_balancer()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    async def open_and_close(settings: SessionSettings) -> None:
        await (await open_store(settings)).close()

    fleet, state = up("pods=1", f"store={dynamodb}")
    assert (state.endpoint, state.region) == (dynamodb, ENVIRONMENT["AWS_REGION"])
    assert surge(fleet, "--at-once", "3")["durability"]["found"] == 3
    settings = SessionSettings(
        store="dynamodb", endpoint=dynamodb, table=state.mark, region=state.region
    )
    await open_and_close(settings)
    # Crashed, and its DynamoDB is gone: nothing listens at that port.
    gone = "http://127.0.0.1:9"
    crashed = FleetState(name="old", mark="seawall-none", pid=1, born=-1, folder="", endpoint=gone)
    save_state(structs.replace(crashed, region=state.region))
    done = lab("down", "old")
    assert done.returncode == 0
    assert f"the table seawall-none at {gone} could not be deleted" in done.stderr
    assert load_state("old") is None
    done = lab("down")
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ConfigError, match="there is no table"):
        await open_and_close(settings)


def test_notes_of_a_fleet_are_listed() -> None:
    save_state(
        FleetState(
            name="old", mark="seawall-none", pid=1, born=-1, folder="", notes=("no processors",)
        )
    )
    assert "  note: no processors\n" in lab("ps").stdout
    assert json.loads(lab("ps", "--json").stdout)[0]["notes"] == ["no processors"]


def test_no_process_outlives_a_killed_lab() -> None:
    """By the kernel's parent-death signal alone."""
    require_balancer()
    _, state = up("pods=2")
    assert len(processes_with_mark(state.mark)) >= 4  # the model, two pods, the balancer
    os.kill(state.pid, signal.SIGKILL)
    until(lambda: processes_with_mark(state.mark) == [])
    assert json.loads(lab("ps", "--json").stdout)[0]["state"] == "crashed"
    assert "had crashed" in lab("down").stdout
    assert not Path(state.folder).exists()


def test_frozen_environments_end_with_their_lab() -> None:
    fleet, state = up("lambda")
    result = surge(fleet, "--at-once", "3")
    assert result["errors"] == {}
    assert result["completed"] == 3
    before = processes_with_mark(state.mark)
    assert len(before) >= 3  # the model, the local Lambda, environments
    os.kill(state.pid, signal.SIGKILL)
    assert lab("down").returncode == 0
    assert processes_with_mark(state.mark) == []
    assert not any(process_start_ticks(pid) for pid in before)


def test_orphans_are_found_by_their_mark() -> None:
    _, state = up("lambda", "provisioned=2")
    for pid in processes_with_mark(state.mark):
        if b"seawall.hosts.aws_lambda" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert lab("down").returncode == 0
    assert processes_with_mark(state.mark) == []


def test_the_processors_of_a_pod_are_limited() -> None:
    require_balancer()
    try:
        groups = ControlGroups()
        groups.remove(groups.make("seawall-test", 1.0))
    except ControlGroupsUnavailable as error:
        require(str(error))
    _, state = up("pods=1", "cpu=0.5")
    folders = list(Path("/sys/fs/cgroup").glob(f"**/{state.mark}-pod0"))
    assert folders
    assert (folders[0] / "cgroup.procs").read_text().split()
    assert lab("down").returncode == 0
    assert not folders[0].exists()


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_both_balancers_spread_turns_over_pods(kind: str, tmp_path: Path) -> None:
    require_balancer(kind)
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    settings = {"IDENTITY__ANONYMOUS": "true", "SERVER__WORKERS": "1"}
    times = SimTimes(first_token=(0.02, 0.05), duration=(0.1, 0.2), chunks=10)
    mark = f"seawall-test-{uuid4().hex}"
    with ExitStack() as stack:
        model = stack.enter_context(running_model(*QUICK))
        pods = [stack.enter_context(running_server(tmp_path, model, **settings)) for _ in range(2)]

        async with run_balancer(
            [pod.url for pod in pods],
            tmp_path,
            found=(kind, str(program)),
            environment=os.environ | {MARK: mark},
        ) as front:
            assert processes_with_mark(mark) == [front.pid]
            assert descendants(front.pid) == []
            load = Open([Crowd(shapes=[Instant(20)])])
            result = await drive(
                Scenario(url=front.url, load=load, simulated=Simulated(times=times))
            )
        served = [
            re.search(r"^seawall_turns_total.* (\d+)", _metrics(pod.url), re.MULTILINE)
            for pod in pods
        ]
    assert result.errors == {}
    assert all(found is not None and float(found[1]) > 0 for found in served)


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        return str(answer.read().decode())
