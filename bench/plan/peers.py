"""Other simulators on the same models; runs in an environment of its own.

    python peers.py simpy|ciw|simfaas|plot ...

Prints one JSON line: requests, seconds (of the process's own CPU), and the result.
"""

# ruff: noqa: PLC0415 - each process imports one simulator only
import json
import random
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

warnings.simplefilter("ignore")
SERVERS, LOAD = 10, 0.8


def with_simpy(requests: int) -> tuple[int, float]:
    """M/M/10, mean service 1: the mean wait."""
    import simpy

    environment = simpy.Environment()
    servers = simpy.Resource(environment, SERVERS)
    waits = []

    def request() -> Iterator[Any]:
        arrived = environment.now
        with servers.request() as server:
            yield server
            waits.append(environment.now - arrived)
            yield environment.timeout(random.expovariate(1.0))

    def source() -> Iterator[Any]:
        for _ in range(requests):
            yield environment.timeout(random.expovariate(SERVERS * LOAD))
            environment.process(request())

    environment.process(source())
    environment.run()
    return len(waits), sum(waits) / len(waits)


def with_ciw(requests: int) -> tuple[int, float]:
    """The same."""
    import ciw

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=SERVERS * LOAD)],
        service_distributions=[ciw.dists.Exponential(rate=1.0)],
        number_of_servers=[SERVERS],
    )
    ciw.seed(1)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(requests / (SERVERS * LOAD))
    records = simulation.get_all_records()
    return len(records), sum(record.waiting_time for record in records) / len(records)


def with_simfaas(requests: int) -> tuple[int, float]:
    """The published example: the share of cold starts."""
    from simfaas.ServerlessSimulator import ServerlessSimulator

    simulation = ServerlessSimulator(
        arrival_rate=0.9,
        warm_service_rate=1 / 1.991,
        cold_service_rate=1 / 2.244,
        expiration_threshold=600,
        max_time=requests / 0.9,
    )
    simulation.generate_trace(debug_print=False, progress=False)
    return simulation.total_req_count, simulation.total_cold_count / simulation.total_req_count


def plot(
    path: str, sizes: list[int], seconds: dict[str, list[float]], memory: dict[str, list[float]]
) -> None:
    """Time and memory against the length of the trace, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, values in seconds.items():
        left.loglog(sizes, values, marker="o", label=name)
    for name, values in memory.items():
        right.semilogx(sizes, values, marker="o", label=name)
    left.set(xlabel="requests", ylabel="CPU seconds, one core")
    right.set(xlabel="requests", ylabel="greatest memory of the process, MB", ylim=(0, None))
    left.legend()
    figure.tight_layout()
    figure.savefig(path)


def article(path: str, platforms: dict[str, dict[str, list[float]]]) -> None:
    """The article's spike on each platform, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "the same file for the same figures"
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8))
    dashes = ("-", "--", "-.", ":")
    for (name, values), dash in zip(platforms.items(), dashes, strict=True):
        for panel, key in zip(panels, ("in_service", "cold_starts"), strict=False):
            panel.plot(values["times"], values[key], dash, label=name, drawstyle="steps-post")
        panels[2].plot(values["first_token"], values["with_one"], dash)
    panels[0].set(xlabel="seconds from the spike", title="requests in service")
    panels[1].set(xlabel="seconds from the spike", title="cold starts so far")
    panels[2].set(xlabel="seconds since arrival", title="% of 5,000 with a first token")
    for panel in panels:
        panel.set_ylim(0, None)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run what the command line says."""
    if sys.argv[1] == "article":
        article(sys.argv[2], json.load(sys.stdin))
        return
    if sys.argv[1] == "plot":
        plot(*json.loads(sys.argv[2]))
        return
    random.seed(1)
    run = {"simpy": with_simpy, "ciw": with_ciw, "simfaas": with_simfaas}[sys.argv[1]]
    began = time.process_time()
    requests, found = run(int(sys.argv[2]))
    seconds = time.process_time() - began
    print(json.dumps({"requests": requests, "seconds": seconds, "found": found}))


main()
