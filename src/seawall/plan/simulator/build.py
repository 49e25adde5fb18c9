"""Compile the loops in advance: `python -m seawall.plan.simulator.build`, a minute.

Otherwise the first plan after an installation compiles them. `make setup` runs it.
"""

import time

from seawall.plan.inputs.arrivals import Arrivals, Spike
from seawall.plan.inputs.platforms import Eks, Lambda, Servers
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.simulate import simulate

__all__ = ["build"]


def build() -> float:
    """Compile all loops, or read them from the cache; returns the seconds that it took."""
    began = time.perf_counter()
    few = Workload(arrivals=Arrivals(horizon=60.0, rate=1.0, spikes=(Spike(5, 1.0),)))
    # A deployment with killed pods reaches the rarely used loops.
    for platform in (Servers(slots=2), Lambda(), Eks(pods=1, deploys=(5.0,), grace=1.0)):
        simulate(few, platform)
    return time.perf_counter() - began


if __name__ == "__main__":
    build()
