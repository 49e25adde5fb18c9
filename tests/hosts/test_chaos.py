"""A few seconds of a provider with every kind of fault: each turn ends in one way, in time."""

import asyncio
import json
import re
import sqlite3
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated
from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server

TIMES = SimTimes(first_token=(0.02, 0.05), duration=(0.1, 0.2), chunks=10)
TURN_SECONDS = 6.0
TROUBLE = (
    'kind = "throttle"\nprobability = 0.1\nretry_after = 0.2',
    'kind = "error"\nstatus = 500\nprobability = 0.1',
    'kind = "hang"\nat = "before-head"\nprobability = 0.05',
    'kind = "hang"\nat = "in-stream"\nchunks = 3\nprobability = 0.05',
    'kind = "malformed"\nchunks = 2\nprobability = 0.05',
    'kind = "truncate"\nchunks = 3\nprobability = 0.05',
    'kind = "drop"\nat = "before-head"\nprobability = 0.1',
    'kind = "reset"\nat = "in-stream"\nchunks = 2\nprobability = 0.05',
)
LEFT = ("in_flight", "queued", "upstream_streams", "model_in_flight")


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def _gauge(server: ServerProcess, name: str) -> float:
    metrics = _fetch(server.url + "/metrics").decode()
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE)
    return sum(float(each) for each in found)


def _leases(database: Path) -> int:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        counted = opened.execute(
            "SELECT (SELECT count(*) FROM sessions WHERE holder IS NOT NULL)"
            " + (SELECT count(*) FROM idempotency WHERE number IS NULL)"
        ).fetchone()
    return int(counted[0])


def _ways(outcomes: list[Outcome]) -> Counter[str]:
    """How turns ended: "completed", the code of a problem, or an unexpected text."""
    ways: Counter[str] = Counter()
    for each in outcomes:
        code = re.search(r'"code":"([a-z-]+)"', each.error)
        ways[code[1] if code else each.error or "completed"] += 1
    return ways


@pytest.mark.parametrize("fallback", [False, True])
async def test_every_turn_ends_in_one_way_and_nothing_is_left(
    tmp_path: Path, issuer: Issuer, *, fallback: bool
) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text("".join(f'[[rules]]\nmodel = "primary"\n{rule}\n' for rule in TROUBLE))
    settings = identity(tmp_path, issuer) | {
        "SERVER__WORKERS": "1",
        "TURN__TURN": str(TURN_SECONDS),
        "MODELS__DEFAULT__MODEL": "primary",
        "MODELS__DEFAULT__RESILIENCE__FIRST_TOKEN_SECONDS": "0.5",
        "MODELS__DEFAULT__RESILIENCE__BETWEEN_TOKENS_SECONDS": "0.5",
        "MODELS__DEFAULT__RESILIENCE__OPEN_SECONDS": "0.3",
        "MODELS__DEFAULT__RESILIENCE__FAILURE_RATE": "0.9",
    }
    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)

    first, whole = (f"{low:g}..{high:g}" for low, high in (TIMES.first_token, TIMES.duration))
    service = ("--first-token", first, "--duration", whole, "--chunks", str(TIMES.chunks))
    with running_model(*service, "--faults", str(faults)) as model:
        if fallback:
            settings |= {
                "MODELS__DEFAULT__FALLBACKS": '["spare"]',
                "MODELS__SPARE__BASE_URL": model.url,
                "MODELS__SPARE__MODEL": "spare",
            }
        with running_server(tmp_path, model, **settings) as server:
            crowd = Scenario(
                url=server.url,
                load=Closed(users=30, turns=3),
                simulated=Simulated(times=TIMES),
                patience=30.0,
            )

            over = asyncio.Event()
            asyncio.get_running_loop().call_later(4.0, over.set)
            await drive(crowd, token=issuer.token, on_outcome=on_outcome, until=over)
            tasks = _gauge(server, "seawall_event_loop_tasks")
            left = {name: _gauge(server, f"seawall_{name}") for name in LEFT}
        stats = json.loads(_fetch(model.url.removesuffix("/v1") + "/sim/stats"))
    ways = _ways(outcomes)
    assert set(ways) <= {"completed", "upstream-failed", "upstream-throttled"}, ways
    assert ways["completed"] > len(outcomes) * (0.8 if fallback else 0.5)
    assert ways["upstream-failed"]
    assert max(each.total for each in outcomes) < TURN_SECONDS + 5.0
    assert left == dict.fromkeys(LEFT, 0.0)
    assert tasks < 20
    assert stats["open_streams"] == 0
    assert _leases(tmp_path / "sessions.db") == 0
    assert stats["models"].get("spare", 0) == 0 or fallback
    calls = stats["models"]["primary"]
    assert calls <= 1.1 * len(outcomes) + 10
