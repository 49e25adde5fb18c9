"""Fault injection for the simulated model: scripts, and which rule applies to a request.

A script is a list of rules; the first matching rule applies. Whether a rule with a `probability`
matches is drawn from the seed, the index of the rule, the model name, the message and the attempt
(how often this model got this message since the script started). The outcome for a message is
therefore independent of other traffic, and each retry is drawn independently.

Decisions take the time as an argument. Scripts are TOML in files and JSON over HTTP.
"""

import re
import tomllib
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from seawall.errors import ConfigError

__all__ = [
    "Drop",
    "Error",
    "FaultPlan",
    "FaultScript",
    "Hang",
    "Malformed",
    "Refuse",
    "Reset",
    "Rule",
    "Slow",
    "StreamError",
    "Throttle",
    "Truncate",
    "draw",
    "load_faults",
    "parse_faults",
]

_MAX_ATTEMPTS = 1 << 20  # messages whose attempts are counted

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Chunks: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]
Factor: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]
FaultPoint: TypeAlias = Literal["before-head", "after-head", "in-stream"]


class _Window(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """When a rule is active: from `from` until `until`, in seconds since the script started.

    With `every`, the window repeats after that many seconds, counted from `from`.
    """

    begin: Seconds = field(name="from", default=0.0)
    until: Seconds | None = None
    every: Annotated[float, Meta(gt=0, le=1e9)] | None = None

    def __post_init__(self) -> None:
        if self.until is not None and self.until <= self.begin:
            raise ValueError("until: must be later than from")
        if self.every is None:
            return
        if self.until is None:
            raise ValueError("every: a repeated window needs an until")
        if self.every < self.until - self.begin:
            raise ValueError("every: is shorter than the window from .. until")

    def open_at(self, now: float) -> bool:
        """Whether the rule is active at `now`."""
        if now < self.begin:
            return False
        if self.until is None:
            return True
        passed = now - self.begin
        return (passed % self.every if self.every else passed) < self.until - self.begin

    def next_change(self, now: float) -> float | None:
        """The next time after `now` at which `open_at` may change; None if it cannot."""
        if now < self.begin:
            return self.begin
        if self.until is None:
            return None
        if self.every is None:
            return self.until if now < self.until else None
        round_began = self.begin + (now - self.begin) // self.every * self.every
        length = self.until - self.begin
        ends = (round_began + length, round_began + self.every, round_began + self.every + length)
        return next(each for each in ends if each > now)


class Refuse(_Window, frozen=True, tag="refuse"):
    """An outage: nothing listens, streams are reset, idle connections closed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until is None:
            raise ValueError("until: an outage needs an end")


class _Matching(_Window, frozen=True):
    """Which requests a rule applies to; an empty pattern matches all.

    Attributes:
        probability: Share of the matching requests; see the module.
        match: Regular expression searched for in the last user message.
        model: Regular expression for the whole model name.
        attempts: Only the first attempts with the same model and message; 0 for all.
    """

    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    match: str = ""
    model: str = ""
    attempts: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, pattern in (("match", self.match), ("model", self.model)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: not a regular expression: {error}") from error


class Throttle(_Matching, frozen=True, tag="throttle"):
    """429 with `Retry-After`, rounded up to whole seconds in the header."""

    retry_after: Seconds = 1.0


class Error(_Matching, frozen=True, tag="error"):
    """An HTTP error status and an error object with `code`; no `Retry-After` if None."""

    status: Annotated[int, Meta(ge=400, le=599)] = 500
    code: str = ""
    retry_after: Seconds | None = None


class _AtPoint(_Matching, frozen=True):
    """Where in the response: before its head, after it, or after `chunks` data events."""

    at: FaultPoint = "before-head"
    chunks: Chunks = 1


class Hang(_AtPoint, frozen=True, tag="hang"):
    """Nothing more is sent; the connection stays open until the client closes it."""


class Drop(_AtPoint, frozen=True, tag="drop"):
    """The connection is closed."""


class Reset(_AtPoint, frozen=True, tag="reset"):
    """The connection is reset (TCP RST)."""


class _InStream(_Matching, frozen=True):
    """After `chunks` data events."""

    chunks: Chunks = 1


class Malformed(_InStream, frozen=True, tag="malformed"):
    """A data event that is not JSON; the rest of the stream follows."""


class StreamError(_InStream, frozen=True, tag="stream-error"):
    """A data event with an error object, then the end of the body."""


class Truncate(_InStream, frozen=True, tag="truncate"):
    """A correctly framed end of the body, without finish_reason and [DONE]."""


class Slow(_Matching, frozen=True, tag="slow"):
    """Delays are multiplied: the first token's by `first_factor`, between tokens by `factor`."""

    first_factor: Factor = 1.0
    factor: Factor = 10.0


Rule: TypeAlias = Throttle | Error | Hang | Drop | Reset | Malformed | StreamError | Truncate | Slow


class FaultScript(Struct, frozen=True, forbid_unknown_fields=True):
    """The rules, in order of evaluation."""

    rules: tuple[Rule | Refuse, ...] = ()


def draw(seed: int, rule_index: int, model: str, message: str, attempt: int) -> float:
    """A uniform number, 0 ≤ x < 1, for an attempt (1, 2, ...) under the rule at an index."""
    text = f"{seed}\0{rule_index}\0{model}\0{message}\0{attempt}".encode("utf-8", "replace")
    # 53 bits, the precision of a float; with more, one just below 1 would be rounded up to it.
    return (int.from_bytes(blake2b(text, digest_size=8).digest()) >> 11) / 2.0**53


class FaultPlan:
    """A fault script in use: the rules, and the attempts of each message."""

    def __init__(self, script: FaultScript, *, seed: int) -> None:
        self._seed = seed
        self._attempts: dict[bytes, int] = {}
        self._outages = tuple(each for each in script.rules if isinstance(each, Refuse))
        self._rules = tuple(
            (index, rule, re.compile(rule.match), re.compile(rule.model))
            for index, rule in enumerate(script.rules)
            if not isinstance(rule, Refuse)
        )

    @property
    def idle(self) -> bool:
        """Whether no rule can apply to a request."""
        return not self._rules

    def decide(self, model: str, message: str, *, now: float) -> Rule | None:
        """The rule that applies to a request, if any. Counts as an attempt of the message.

        Args:
            model: The model name of the request.
            message: The last user message.
            now: Seconds since the script started.
        """
        attempt = self._count(model, message)
        for index, rule, match, name in self._rules:
            if (
                rule.open_at(now)
                and not 0 < rule.attempts < attempt
                and (not rule.model or name.fullmatch(model))
                and (not rule.match or match.search(message))
                and draw(self._seed, index, model, message, attempt) < rule.probability
            ):
                return rule
        return None

    def refuses(self, now: float) -> bool:
        """Whether there is an outage at `now`."""
        return any(each.open_at(now) for each in self._outages)

    def next_change(self, now: float) -> float | None:
        """The next time at which `refuses` may change; None if it cannot."""
        changes = (each.next_change(now) for each in self._outages)
        return min((each for each in changes if each is not None), default=None)

    def _count(self, model: str, message: str) -> int:
        text = f"{model}\0{message}".encode("utf-8", "replace")
        key = blake2b(text, digest_size=16).digest()
        attempt = self._attempts.pop(key, 0) + 1
        if len(self._attempts) >= _MAX_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]  # least recently seen
        self._attempts[key] = attempt
        return attempt


def load_faults(path: Path) -> FaultScript:
    """Read a fault script file.

    Raises:
        ConfigError: The file cannot be read or is invalid; the message names file and key.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return msgspec.convert(found, FaultScript)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_named(error)}") from error


def parse_faults(body: bytes) -> FaultScript:
    """Parse a fault script in JSON.

    Raises:
        ConfigError: The script is invalid; the message names the key.
    """
    try:
        return msgspec.json.decode(body, type=FaultScript)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(_named(error)) from error


def _named(error: Exception) -> str:
    """Turn `Expected ... - at `$.rules[1].status`` into `rules[1].status: Expected ...`."""
    message, _, path = str(error).partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    own = re.match(r"(\w+): ", message) if where else None  # __post_init__ names the field
    if own:
        return f"{where}.{message}"
    return f"{where}: {message}" if where else message
