"""Exported scripts, run by Locust itself."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from seawall.lab.surge.export import to_locust
from seawall.lab.surge.scenario import Api, Closed, Crowd, Instant, Open, Poisson, Scenario
from tests.lab.conftest import Site
from tests.parts import require
from tests.parts.tools import locust, missing_locust


@pytest.fixture(autouse=True)
def _locust() -> None:
    require(missing_locust())


def run(site: Site, folder: Path, scenario: Scenario, *options: str) -> "subprocess.Popen[str]":
    script = folder / "surge.py"
    script.write_text(to_locust(scenario))
    return subprocess.Popen(
        [locust(), "-f", script, "--headless", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SURGE_TOKEN": site.issuer.token("ada")},
    )


def counted(process: "subprocess.Popen[str]") -> dict[str, int]:
    """The numbers of requests, first texts and whole turns that Locust counts; none may fail."""
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    # Each worker prints a table of its own, an empty one; two of them may share a line.
    rows = json.loads(re.sub(r"\A(\s*\[\])*(?=\s*\[)", "", output))
    assert not any(row["num_failures"] for row in rows), errors
    return {row["name"]: row["num_requests"] for row in rows}


@pytest.mark.parametrize("api", ["turns", "chat"])
def test_an_open_loop_has_every_turn_once(site: Site, tmp_path: Path, api: Api) -> None:
    load = Open([Crowd(shapes=[Instant(5), Poisson(8.0, 1.0)])])
    scenario = Scenario(url=site.url, load=load, api=api)
    turns = to_locust(scenario).partition("DUE = [")[2].partition("]")[0].count(",") + 1
    found = counted(run(site, tmp_path, scenario, "-u", "40", "-r", "40"))  # it ends without -t
    assert found["first text"] == found["whole turn"] == turns


def test_workers_share_the_arrivals(site: Site, tmp_path: Path) -> None:
    scenario = Scenario(url=site.url, load=Open([Crowd(shapes=[Instant(7)])]))
    found = counted(run(site, tmp_path, scenario, "-u", "9", "-r", "9", "--processes", "2"))
    assert found == {"/v1/turns": 7, "first text": 7, "whole turn": 7}


def test_users_of_a_closed_loop_repeat(site: Site, tmp_path: Path) -> None:
    scenario = Scenario(url=site.url, load=Closed(users=3, seconds=3.0))
    before = completed(site)
    process = run(site, tmp_path, scenario, *("-u", "3", "-r", "3", "-s", "60"))
    try:
        while completed(site) < before + 4:
            assert process.poll() is None
            time.sleep(0.2)
        process.terminate()
    except BaseException:
        process.kill()
        raise
    found = counted(process)
    assert found["first text"] == found["whole turn"] > 3


def completed(site: Site) -> float:
    """Turns that the server has completed."""
    lines = httpx2.get(f"{site.url}/metrics", timeout=60).text.splitlines()
    counts = [line.rpartition(" ")[2] for line in lines if line.startswith("seawall_turns_total{")]
    return sum(map(float, counts))
