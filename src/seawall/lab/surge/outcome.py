"""What customers saw, one by one and together."""

import re
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from seawall.lab.statistics import Percentiles, percentiles
from seawall.lab.surge.health import DriverHealth

__all__ = ["Durability", "Interrupted", "Outcome", "Progress", "SurgeResult", "summarise"]


class Outcome(Struct, omit_defaults=True):
    """What one customer saw; times in seconds.

    number: of the question. due: when he came, from the beginning. late: how long it took the
    driver to get to him. status: of the answer, once its head was there; else 0. first_text,
    total: since he was due. model_first, model_total: the simulated model's own part of them.
    digest: of the text of the answer. error: empty when the turn was completed and the answer is
    the one that was due.
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
        """Whether the server said at once that it has no room."""
        return self.status in (429, 503)

    @property
    def added(self) -> float | None:
        """Seconds until the first text beyond the simulated model's own."""
        if self.first_text is None or self.model_first is None:
            return None
        return self.first_text - self.model_first


class Progress(Struct, frozen=True, tag="progress", tag_field="kind"):
    """How far the surge is. turns: expected in all, 0 where nobody knows. failed: not refused."""

    seconds: float
    turns: int
    sent: int
    streaming: int
    completed: int
    failed: int
    refused: int = 0


class Durability(Struct, frozen=True):
    """Completed turns that were looked up in their sessions afterwards.

    found: that stand there with the same question and answer. missing: the first that do not,
    with the reason. unread: how many could not be looked up, besides; why_unread: the first.
    """

    looked_up: int
    found: int
    missing: list[str] = []
    unread: int = 0
    why_unread: list[str] = []

    @property
    def good(self) -> bool:
        """Whether all could be looked up, and were found."""
        return self.found == self.looked_up and not self.unread


class Interrupted(Struct, frozen=True):
    """What was not done, as the surge was stopped.

    unsent: turns that were still to come; 0 in a closed loop. abandoned: those that were in flight,
    which count neither as completed nor as failed.
    """

    unsent: int
    abandoned: int


class SurgeResult(Struct, frozen=True, tag="result", tag_field="kind", kw_only=True):
    """What came of it; times in milliseconds, but those of `outcomes` in seconds.

    first_text, total: of completed turns only, since they were due. model_first_text, model_total:
    the simulated model's own part. added_first_text: per turn, what the server added. refused: by
    status 429 or 503; they are no failures. refusal, failure: how long refused and failed turns
    took, until they were. interrupted: None where it was driven to its end.
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
        """Whether there were turns, all were completed, and durable where that was looked up."""
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
    """Everything about the run."""
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
    """Without what differs from turn to turn: of a problem only its code."""
    code = re.search(r'"code":"([a-z-]+)"', error)
    return f"{error.partition(':')[0]}: {code[1]}" if code else error
