"""A scenario: whom to drive at a server, and how; plain data for the driver's process."""

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
    """So many turns at one moment, `at` seconds from the beginning."""

    turns: int
    at: float = 0.0


class Poisson(Struct, frozen=True, tag="poisson"):
    """`rate` arrivals a second, at random, from second `start` on for `seconds`."""

    rate: float
    seconds: float
    start: float = 0.0


class Ramp(Struct, frozen=True, tag="ramp"):
    """As Poisson, with a rate that goes evenly from `low` to `high`."""

    low: float
    high: float
    seconds: float
    start: float = 0.0


class Replay(Struct, frozen=True, tag="replay"):
    """Arrivals as they were recorded: seconds from the beginning."""

    times: list[float]


Shape = Instant | Poisson | Ramp | Replay


class Crowd(Struct, frozen=True, kw_only=True):
    """Turns of one kind of customers. tokens: theirs, in turns; empty for anonymous."""

    shapes: list[Shape]
    name: str = "crowd"
    tokens: list[str] = []


class Open(Struct, frozen=True, tag="open"):
    """Open loop: turns arrive when they are due, whether or not others were answered."""

    crowds: list[Crowd]


class Closed(Struct, frozen=True, kw_only=True, tag="closed"):
    """Closed loop: so many customers ask, read the answer to its end, and ask again.

    seconds: how long, where nobody ends it before. turns: of one session; then its customer opens
    another. think: seconds between answer and next question, at most. settle: within which the
    customers come.
    """

    users: int
    seconds: float = 60.0
    turns: int = 1
    think: float = 0.0
    ramp_up: float = 2.0
    tokens: list[str] = []


class Simulated(Struct, frozen=True):
    """The simulated model behind the server, from which the right answers follow."""

    seed: int = 0
    times: SimTimes = SimTimes()

    def plan(self, text: str) -> ReplyPlan:
        """What it answers, and when."""
        return plan_reply(self.seed, text, self.times)


class Scenario(Struct, frozen=True, kw_only=True):
    """What to drive.

    url: of the server's root. questions: asked in turns. unique: a question says who asks, so
    that no two answers are alike. simulated: None where another model answers. patience: seconds
    that a customer waits. keep_alive: connections are used again, as those of a load balancer are;
    else each customer comes with one of his own. read_back: completed turns that are looked up in
    their sessions afterwards, at most. seed: of arrivals.
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
        """What the customer with this number asks."""
        text = self.questions[number % len(self.questions)]
        return f"{text} I am customer {number}." if self.unique else text


def digest_of(text: str) -> str:
    """Short enough to keep, long enough to tell texts apart."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def arrivals(crowds: list[Crowd], seed: int) -> list[tuple[float, int]]:
    """In order: when somebody is due, in seconds, and which crowd is his.

    Raises:
        ConfigError: nobody comes at all.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    found = [
        (due, index)
        for index, crowd in enumerate(crowds)
        for shape in crowd.shapes
        for due in _times(shape, chance)
    ]
    if not found:
        raise ConfigError("the crowd is empty: nobody comes; give a higher --rate, or longer")
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
    """A Poisson process with a linear rate.

    By inversion: the arrivals of a process of rate 1, put where the integral of the rate,
    low*t + (high-low)*t*t/(2*seconds), reaches them. Source: Çinlar, Introduction to Stochastic
    Processes, 1975, section 4.7.
    """
    growth = (high - low) / seconds / 2.0 if seconds else 0.0
    expected = (low + high) / 2.0 * seconds
    reached = chance.expovariate(1.0)
    while reached < expected:
        # The stable form of the root, which also holds where the rate does not grow.
        yield start + 2.0 * reached / (low + math.sqrt(low * low + 4.0 * growth * reached))
        reached += chance.expovariate(1.0)
