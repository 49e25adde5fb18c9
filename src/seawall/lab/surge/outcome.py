"""Outcomes of turns, and their summary."""

import re
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from seawall.lab.statistics import Percentiles, percentiles
from seawall.lab.surge.health import DriverHealth

__all__ = ["Durability", "Interrupted", "Outcome", "Progress", "SurgeResult", "summarise"]


class Outcome(Struct, omit_defaults=True):
    """Outcome of one turn; times in seconds.

    Attributes:
        number: Of the question.
        crowd: Name of the crowd, or of the virtual user of a closed loop.
        due: When the turn was due, since the start.
        late: How late the driver started it.
        status: Of the response; 0 without one.
        first_text: From due to the first text; None without text.
        total: From due to the end.
        model_first: The simulated model's own part of `first_text`.
        model_total: The simulated model's own part of `total`.
        turn: Id of the turn.
        session: Id of its session.
        digest: Of the text of the answer.
        error: Why the turn failed; empty if it was completed with the expected answer.
    """

    number: int
    crowd: str = ""
    due: float = 0.0
    late: float = 0.0
    status: int = 0
    first_text: float | None = None
    total: float = 0.0
    model_first: float | None = None
    model_total: float | None = None
    turn: str = ""
    session: str = ""
    digest: str = ""
    error: str = ""

    @property
    def refused(self) -> bool:
        """Whether the server refused the turn (429 or 503)."""
        return self.status in (429, 503)

    @property
    def added(self) -> float | None:
        """Seconds that the server added to the simulated model's own time to first text."""
        if self.first_text is None or self.model_first is None:
            return None
        return self.first_text - self.model_first


class Progress(Struct, frozen=True, tag="progress", tag_field="kind"):
    """Progress of a run.

    Attributes:
        seconds: Since its start.
        turns: Expected in total; 0 if that is not known.
        sent: So far.
        streaming: In flight, with a first text.
        completed: With the expected answer.
        failed: Without refused ones.
        refused: With status 429 or 503.
        first_text: Of turns that are completed or in flight, about a second old; None unless it is
            asked for.
    """

    seconds: float
    turns: int
    sent: int
    streaming: int
    completed: int
    failed: int
    refused: int = 0
    first_text: Percentiles | None = None


class Durability(Struct, frozen=True):
    """Result of reading completed turns back from their sessions.

    Attributes:
        looked_up: Turns that were read back.
        found: Of these, turns with the same question and answer.
        missing: The first turns that differ or are missing, with the reason.
        unread: Further turns that could not be read.
        why_unread: The first reasons for that.
    """

    looked_up: int
    found: int
    missing: list[str] = []
    unread: int = 0
    why_unread: list[str] = []

    @property
    def good(self) -> bool:
        """Whether all could be read back, and were found."""
        return self.found == self.looked_up and not self.unread


class Interrupted(Struct, frozen=True):
    """Turns that an interrupted run did not complete.

    Attributes:
        unsent: Turns not sent; 0 in a closed loop.
        abandoned: Turns in flight, which count neither as completed nor as failed.
    """

    unsent: int
    abandoned: int


class SurgeResult(Struct, frozen=True, tag="result", tag_field="kind", kw_only=True):
    """Result of a run; times in milliseconds, those of `outcomes` in seconds.

    Attributes:
        loop: "open" or "closed".
        turns: Turns that ended.
        completed: Turns with the expected answer.
        refused: Turns with status 429 or 503; not counted as failed.
        failed: Other turns.
        errors: Number of turns by error, the most frequent first.
        first_text: Of completed turns, from due to the first text.
        total: Of completed turns, from due to the end.
        model_first_text: The simulated model's own part of `first_text`.
        model_total: The simulated model's own part of `total`.
        added_first_text: Per turn, first text less the model's own part.
        refusal: Of refused turns, from due to the refusal.
        failure: Of failed turns, from due to the failure.
        seconds: Length of the run.
        peak_in_flight: Most turns in flight at once.
        connections: Connections opened.
        driver: Health of the driver.
        durability: None if nothing was read back.
        interrupted: None if the run was not stopped early.
        outcomes: Of every turn, if they were kept.
    """

    loop: str
    turns: int
    completed: int
    refused: int
    failed: int
    errors: dict[str, int]
    first_text: Percentiles
    total: Percentiles
    model_first_text: Percentiles
    model_total: Percentiles
    added_first_text: Percentiles
    refusal: Percentiles
    failure: Percentiles
    seconds: float
    peak_in_flight: int
    connections: int
    driver: DriverHealth
    durability: Durability | None = None
    interrupted: Interrupted | None = None
    outcomes: list[Outcome] = []

    @property
    def good(self) -> bool:
        """Whether there were turns, all were completed, and all that were read back are durable."""
        durable = self.durability is None or self.durability.good
        return 0 < self.turns == self.completed and durable and self.interrupted is None


def summarise(
    outcomes: Sequence[Outcome],
    *,
    loop: str,
    seconds: float,
    peak_in_flight: int,
    connections: int,
    driver: DriverHealth,
    durability: Durability | None = None,
    interrupted: Interrupted | None = None,
) -> SurgeResult:
    """Summarise the outcomes of a run."""
    served = [each for each in outcomes if not each.error]
    refused = [each for each in outcomes if each.error and each.refused]
    failed = [each for each in outcomes if each.error and not each.refused]
    return SurgeResult(
        loop=loop,
        turns=len(outcomes),
        completed=len(served),
        refused=len(refused),
        failed=len(failed),
        errors=dict(
            Counter(_error_group(each.error) for each in outcomes if each.error).most_common(50)
        ),
        first_text=percentiles([each.first_text for each in served if each.first_text is not None]),
        total=percentiles([each.total for each in served]),
        model_first_text=percentiles(
            [each.model_first for each in served if each.model_first is not None]
        ),
        model_total=percentiles(
            [each.model_total for each in served if each.model_total is not None]
        ),
        added_first_text=percentiles([each.added for each in served if each.added is not None]),
        refusal=percentiles([each.total for each in refused]),
        failure=percentiles([each.total for each in failed]),
        seconds=round(seconds, 3),
        peak_in_flight=peak_in_flight,
        connections=connections,
        driver=driver,
        durability=durability,
        interrupted=interrupted,
        outcomes=list(outcomes),
    )


def _error_group(error: str) -> str:
    """An error without details that differ from turn to turn: for a problem, its code."""
    code = re.search(r'"code":"([a-z-]+)"', error)
    return f"{error.partition(':')[0]}: {code[1]}" if code else error
