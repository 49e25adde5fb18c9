"""Pods with Lambda as overflow: whether passing a turn on pays.

    .venv/bin/python bench/plan/overflow.py [--quick]

A crowd of 5,000 at once meets a few pods. Each serves as many turns as it has slots for. What is
more is passed on to functions, which start within their scaling rate; what these cannot take either
waits for a slot. A turn is passed on by relaying its stream, which costs the pod processor time for
every piece of text, or by redirecting its client, which costs it a request and an answer.

The processor time of a relayed turn is that of bare proxies on the same machine: 0.57 ms (asyncio
by hand) and 1.1 ms (ASGI with an HTTP client), beside 1.0 ms (at 1,000 at once) and 2.5 ms (the
default of the plan) for a turn of Seawall that is served whole. A redirect is taken as 0.15 ms.
Processors are shared equally by the turns on them, as in the plan.
"""

import argparse
import heapq
import json
import random
from collections.abc import Iterator

CROWD, AT = 5_000, 1.0
CORES, SLOTS, ROOM = 0.85, 1_000, 2_000  # of a pod; turns that it holds at most, passed on or not
BURST, RATE = 1_000.0, 100.0  # environments that Lambda starts at once, and in each second
COLD = 1.3  # seconds until a new environment serves
OBJECTIVE = 5.0  # seconds to the first token, p99
# Processor time of a turn that is passed on, in milliseconds, and slots of a pod.
WAYS: dict[str, tuple[float | None, int]] = {
    "none": (None, SLOTS),
    "none, more slots": (None, ROOM),
    "relay, 1.1 ms": (1.1, SLOTS),
    "relay, 0.57 ms": (0.57, SLOTS),
    "redirect, 0.15 ms": (0.15, SLOTS),
}


class Pod:
    """A processor that is shared equally by the bursts on it, in virtual time."""

    def __init__(self) -> None:
        self.clock = self.seen = self.used = 0.0
        self.bursts: list[tuple[float, int]] = []
        self.serving = self.holding = 0
        self.line: list[int] = []

    def advance(self, now: float) -> None:
        """Let the bursts run until now."""
        if self.bursts:
            running = len(self.bursts)
            passed = now - self.seen
            self.clock += passed * min(1.0, CORES / running)
            self.used += passed * min(float(running), CORES)
        self.seen = now

    def next_end(self) -> float:
        """When the first burst ends."""
        left = max(0.0, self.bursts[0][0] - self.clock)
        return self.seen + left * max(1.0, len(self.bursts) / CORES)


class Crowd:
    """What becomes of the crowd.

    Args:
        pods: Their number.
        cpu: Processor time of a turn that is served whole, in milliseconds.
        relay: Processor time of a turn that is passed on, in milliseconds. None: none is.
        functions: That start environments side by side.
        slots: Turns that a pod serves at once.
    """

    def __init__(
        self, pods: int, cpu: float, relay: float | None, *, functions: int, slots: int
    ) -> None:
        self.cpu, self.relay, self.slots = cpu, relay, slots
        self.draw = random.Random(1)
        self.fleet = [Pod() for _ in range(pods)]
        self.rate, self.most = RATE * functions, BURST * functions
        self.starts, self.filled = self.most, AT
        self.firsts: list[float] = []
        self.passed = self.refused = self.serial = 0
        self.events: list[tuple[float, int, str, int]] = []
        self.turns: dict[int, tuple[Pod, bool, float, float]] = {}
        self.called: set[int] = set()

    def run(self) -> dict[str, float]:
        """Simulate until all is answered."""
        for turn in range(CROWD):
            self.schedule(AT, "arrives", turn)
        handlers = {"arrives": self.arrive, "burst": self.end_burst, "answered": self.answer}
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            handlers[kind](what, now)
        self.firsts.sort()
        return {
            "first_token_p99": self.firsts[int(0.99 * len(self.firsts))],
            "passed_on": self.passed / CROWD,
            "refused": self.refused / CROWD,
            "processor_seconds": sum(pod.used for pod in self.fleet),
        }

    def schedule(self, time: float, kind: str, what: int) -> None:
        """Schedule an event of a turn, or of a pod."""
        self.serial += 1
        heapq.heappush(self.events, (time, self.serial, kind, what))

    def burst(self, pod: Pod, turn: int, milliseconds: float, now: float) -> None:
        """A turn needs a pod's processor."""
        pod.advance(now)
        heapq.heappush(pod.bursts, (pod.clock + milliseconds / 1e3, turn))
        self.schedule(pod.next_end(), "burst", self.fleet.index(pod))

    def begin(self, pod: Pod, turn: int, now: float, *, away: bool) -> None:
        """A turn is served by the pod, or passed on."""
        token, call = self.draw.lognormvariate(-0.693, 0.596), self.draw.uniform(3.0, 6.0)
        self.turns[turn] = (pod, away, token, call)
        if away:
            self.passed += 1
        else:
            pod.serving += 1
        self.burst(pod, turn, 0.4 * (self.relay or 0.0) if away else 0.24 * self.cpu, now)

    def arrive(self, turn: int, now: float) -> None:
        """A turn gets the pod with the fewest: a slot of it, a function, or a place in its line."""
        pod = min(self.fleet, key=lambda each: each.holding)
        if pod.holding >= ROOM:
            self.refused += 1
            return
        pod.holding += 1
        self.starts = min(self.most, self.starts + (now - self.filled) * self.rate)
        self.filled = now
        if pod.serving < self.slots:
            self.begin(pod, turn, now, away=False)
        elif self.relay is not None and self.starts >= 1.0:
            self.starts -= 1.0
            self.begin(pod, turn, now, away=True)
        else:
            pod.line.append(turn)

    def end_burst(self, at: int, now: float) -> None:
        """A pod's first burst ends, unless more began since that was scheduled."""
        pod = self.fleet[at]
        pod.advance(now)
        if not pod.bursts or pod.bursts[0][0] > pod.clock + 1e-9:
            return
        _, turn = heapq.heappop(pod.bursts)
        if pod.bursts:
            self.schedule(pod.next_end(), "burst", at)
        _, away, token, call = self.turns[turn]
        if turn not in self.called:
            self.called.add(turn)
            before = 0.8 + (COLD if away else 0.0)
            self.firsts.append(now + before + min(token, call) - AT)
            self.schedule(now + before + call + 0.2, "answered", turn)
            return
        pod.holding -= 1
        if not away:
            pod.serving -= 1
            if pod.line:
                self.begin(pod, pod.line.pop(0), now, away=False)

    def answer(self, turn: int, now: float) -> None:
        """The text of a turn has come, and its processor time with it."""
        pod, away, _, _ = self.turns[turn]
        self.burst(pod, turn, 0.6 * (self.relay or 0.0) if away else 0.76 * self.cpu, now)


def least_pods(
    cpu: float, relay: float | None, functions: int, slots: int
) -> tuple[int, dict[str, float]]:
    """The fewest pods with which 99 % see a first token within the objective; 1 % are refused."""
    for pods in range(1, 16):
        found = Crowd(pods, cpu, relay, functions=functions, slots=slots).run()
        if found["first_token_p99"] <= OBJECTIVE and found["refused"] <= 0.01:
            return pods, found
    raise SystemExit("no number of pods suffices")


def rows(quick: bool) -> Iterator[dict[str, object]]:
    """The fewest pods by processor time of a turn, way of passing on, and number of functions."""
    for cpu in (2.5,) if quick else (1.0, 2.5):
        for way, (relay, slots) in WAYS.items():
            for functions in (1,) if quick or relay is None else (1, 5):
                pods, found = least_pods(cpu, relay, functions, slots)
                yield {
                    "turn_ms": cpu, "way": way, "functions": functions, "pods": pods,
                    **{name: round(value, 3) for name, value in found.items()},
                }  # fmt: skip


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="turns of 2.5 ms and one function only"
    )
    found = []
    print("turn    passing on         functions  pods  first token p99  passed on  processor time")
    for row in rows(parser.parse_args().quick):
        found.append(row)
        print(
            f"{row['turn_ms']} ms  {row['way']:<18} {row['functions']:>9}  {row['pods']:>4}  "
            f"{row['first_token_p99']:>13} s  {row['passed_on']:>9.0%}  "
            f"{row['processor_seconds']:>12} s"
        )
    print(json.dumps({"bench": "plan-overflow", "crowd": CROWD, "rows": found}))


if __name__ == "__main__":
    main()
