"""The reference article's spike on Lambda and EKS, drawn into docs/article.svg.

    .venv/bin/python bench/plan/article.py

Simulates the platforms of docs/plan.md; the environment of run.py draws. Prints the figures.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from run import HERE, environment

from seawall.plan import Eks, Lambda, Platform, from_flags, simulate

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLATFORMS: dict[str, Platform] = {
    "Lambda, as the article has it": Lambda(account_limit=10_000, start_rate=1e9, start_burst=1e9),
    "the same, 100 provisioned": Lambda(
        account_limit=10_000, provisioned=100, start_rate=1e9, start_burst=1e9
    ),
    "Lambda, with its scaling rate": Lambda(account_limit=10_000),
    "EKS, 20 pods": Eks(pods=20),
}


def main() -> None:
    """Simulate, print, draw."""
    crowd = from_flags(spikes=["5000@20s"], duration="4s..7s", start="1s", horizon="120s")
    drawn: dict[str, dict[str, list[Any]]] = {}
    for name, platform in PLATFORMS.items():
        found = simulate(crowd, platform, keep=True, bin_seconds=0.25)
        assert found.samples is not None
        firsts = np.sort(found.samples.first_token[found.samples.outcome == 0])
        picked = np.unique(np.linspace(0, len(firsts) - 1, 200).astype(int))
        shown = slice(76, 140)
        times = (np.arange(len(found.seconds["arrived"])) * 0.25 - 20.0)[shown]
        drawn[name] = {
            "times": times.tolist(),
            "in_service": found.seconds["in_service"][shown].tolist(),
            "cold_starts": np.cumsum(found.seconds["cold_starts"])[shown].tolist(),
            "first_token": [0.0, *firsts[picked].tolist()],
            "with_one": [0.0, *((picked + 1) / found.requests * 100.0).tolist()],
        }
        print(
            f"{name:30} served {found.served:5} cold {found.cold_starts:5}"
            f" refused {found.refused:5} first token p99 {found.first_token.quantile(0.99):.1f} s",
            flush=True,
        )
    command = [environment(), HERE / "peers.py", "article", str(DOCS / "article.svg")]
    subprocess.run(command, input=json.dumps(drawn), text=True, check=True)


if __name__ == "__main__":
    main()
