"""Scenarios: which users send which turns, and when. Plain data for the driver process."""

import hashlib
import math
import random
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from seawall.errors import ConfigError
from seawall.lab.sim_model.reply import ReplyPlan, SimTimes, plan_reply

__all__ = [
    "QUESTIONS",
    "Api",
    "Closed",
    "Crowd",
    "Instant",
    "Open",
    "Poisson",
    "Ramp",
    "Replay",
    "Scenario",
    "Shape",
    "Simulated",
    "arrivals",
    "digest_of",
]

Api = Literal["turns", "chat"]

QUESTIONS = (
    "Where is my order?",
    "When will my parcel arrive?",
    "Can I still change the size?",
    "I would like to send something back.",
    "Is this one available in blue?",
    "How do I get my money back?",
)


class Instant(Struct, frozen=True, tag="instant"):
    """A number of turns at one moment, `at` seconds after the start."""

    turns: int
    at: float = 0.0


class Poisson(Struct, frozen=True, tag="poisson"):
    """Poisson arrivals: `rate` a second, for `seconds` from second `start` on."""

    rate: float
    seconds: float
    start: float = 0.0


class Ramp(Struct, frozen=True, tag="ramp"):
    """Poisson arrivals with a rate that changes linearly from `low` to `high`."""

    low: float
    high: float
    seconds: float
    start: float = 0.0


class Replay(Struct, frozen=True, tag="replay"):
    """Recorded arrivals, in seconds after the start."""

    times: list[float]


Shape = Instant | Poisson | Ramp | Replay


class Crowd(Struct, frozen=True, kw_only=True):
    """A group of turns; `tokens` are used in rotation, none for anonymous users."""

    shapes: list[Shape]
    name: str = "crowd"
    tokens: list[str] = []


class Open(Struct, frozen=True, tag="open"):
    """Open loop: turns arrive when they are due, whether or not others were answered."""

    crowds: list[Crowd]


class Closed(Struct, frozen=True, kw_only=True, tag="closed"):
    """Closed loop: each virtual user sends a turn, reads the answer to its end, and repeats.

    Attributes:
        users: Number of virtual users.
        seconds: Duration.
        turns: Turns per session.
        think: Longest pause between an answer and the next question, in seconds.
        ramp_up: Seconds within which the users start.
        tokens: Of the users, in rotation.
    """

    users: int
    seconds: float = 60.0
    turns: int = 1
    think: float = 0.0
    ramp_up: float = 2.0
    tokens: list[str] = []


class Simulated(Struct, frozen=True):
    """The simulated model behind the server; determines the expected answers."""

    seed: int = 0
    times: SimTimes = SimTimes()

    def plan(self, text: str) -> ReplyPlan:
        """The reply to a text, and its timing."""
        return plan_reply(self.seed, text, self.times)


class Scenario(Struct, frozen=True, kw_only=True):
    """A scenario for the driver.

    Attributes:
        url: Of the server's root.
        load: Open or closed loop.
        questions: Used in rotation.
        unique: Number the questions, so that no two answers are the same.
        api: The turns API, or OpenAI's chat completions.
        model: Model name for chat completions.
        simulated: The simulated model behind the server; None for any other model.
        patience: Seconds after which a user gives up.
        keep_alive: Reuse connections, as a load balancer does; else one connection per turn.
        read_back: Completed turns to read back from their sessions, at most.
        seed: Of the arrivals.
    """

    url: str
    load: Open | Closed
    questions: list[str] = field(default_factory=lambda: list(QUESTIONS))
    unique: bool = True
    api: Api = "turns"
    model: str = "auto"
    simulated: Simulated | None = None
    patience: float = 60.0
    keep_alive: bool = False
    read_back: int = 0
    seed: int = 0

    def question(self, number: int) -> str:
        """The question with this number."""
        text = self.questions[number % len(self.questions)]
        return f"{text} I am customer {number}." if self.unique else text


def digest_of(text: str) -> str:
    """A short digest that distinguishes texts."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def arrivals(crowds: list[Crowd], seed: int) -> list[tuple[float, int]]:
    """The arrivals of an open loop: when each turn is due, in seconds, and the index of its crowd.

    Raises:
        ConfigError: There are no arrivals.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    found = [
        (due, index)
        for index, crowd in enumerate(crowds)
        for shape in crowd.shapes
        for due in _times(shape, chance)
    ]
    if not found:
        raise ConfigError("the crowd is empty: raise --rate or the time")
    return sorted(found)


def _times(shape: Shape, chance: random.Random) -> Iterator[float]:
    match shape:
        case Instant():
            yield from [shape.at] * shape.turns
        case Poisson():
            yield from _ramp(shape.rate, shape.rate, shape.seconds, shape.start, chance)
        case Ramp():
            yield from _ramp(shape.low, shape.high, shape.seconds, shape.start, chance)
        case Replay():
            yield from shape.times


def _ramp(
    low: float, high: float, seconds: float, start: float, chance: random.Random
) -> Iterator[float]:
    """Arrivals of a Poisson process with a linear rate.

    By inversion: the arrivals of a process of rate 1 are placed where the integral of the rate,
    low*t + (high-low)*t*t/(2*seconds), reaches them. Source: Çinlar, Introduction to Stochastic
    Processes, 1975, section 4.7.
    """
    growth = (high - low) / seconds / 2.0 if seconds else 0.0
    expected = (low + high) / 2.0 * seconds
    reached = chance.expovariate(1.0)
    while reached < expected:
        # The numerically stable form of the root, also valid for a constant rate.
        yield start + 2.0 * reached / (low + math.sqrt(low * low + 4.0 * growth * reached))
        reached += chance.expovariate(1.0)
