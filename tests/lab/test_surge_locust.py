"""Exported scripts, run by Locust itself."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from seawall.lab.surge.export import to_locust
from seawall.lab.surge.scenario import Api, Closed, Crowd, Instant, Open, Poisson, Scenario
from tests.lab.conftest import Site
from tests.parts import require
from tests.parts.tools import locust, missing_locust


@pytest.fixture(autouse=True)
def _locust() -> None:
    require(missing_locust())


def counted(site: Site, folder: Path, scenario: Scenario, *options: str) -> dict[str, int]:
    """The numbers of requests, first texts and whole turns that Locust counts; none may fail."""
    script = folder / "surge.py"
    script.write_text(to_locust(scenario))
    done = subprocess.run(
        [locust(), "-f", script, "--headless", "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "SURGE_TOKEN": site.issuer.token("ada")},
    )
    assert done.returncode == 0, done.stderr
    # Each worker prints a table of its own, an empty one; two of them may share a line.
    rows = json.loads(re.sub(r"\A(\s*\[\])*(?=\s*\[)", "", done.stdout))
    assert not any(row["num_failures"] for row in rows), done.stderr
    return {row["name"]: row["num_requests"] for row in rows}


@pytest.mark.parametrize("api", ["turns", "chat"])
def test_an_open_loop_has_every_turn_once(site: Site, tmp_path: Path, api: Api) -> None:
    load = Open([Crowd(shapes=[Instant(5), Poisson(8.0, 1.0)])])
    scenario = Scenario(url=site.url, load=load, api=api)
    turns = to_locust(scenario).partition("DUE = [")[2].partition("]")[0].count(",") + 1
    found = counted(site, tmp_path, scenario, "-u", "40", "-r", "40")  # it ends without -t
    assert found["first text"] == found["whole turn"] == turns


def test_workers_share_the_arrivals(site: Site, tmp_path: Path) -> None:
    scenario = Scenario(url=site.url, load=Open([Crowd(shapes=[Instant(7)])]))
    found = counted(site, tmp_path, scenario, "-u", "9", "-r", "9", "--processes", "2")
    assert found == {"/v1/turns": 7, "first text": 7, "whole turn": 7}


def test_users_of_a_closed_loop_repeat(site: Site, tmp_path: Path) -> None:
    scenario = Scenario(url=site.url, load=Closed(users=3, seconds=3.0))
    found = counted(site, tmp_path, scenario, *("-u", "3", "-r", "3", "-t", "3s", "-s", "60"))
    assert found["first text"] == found["whole turn"] > 3
