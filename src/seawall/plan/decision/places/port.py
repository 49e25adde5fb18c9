"""The interface of a place, and a candidate: a complete configuration on one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from seawall.plan.decision.answer import Configuration, CostItem, PlatformAnswer, PlatformName
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed

if TYPE_CHECKING:
    from seawall.plan.decision.runs import Outcome

__all__ = ["Candidate", "Cloud", "Evaluation", "Family", "Place", "Search", "Variation", "bill_of"]

Family = Literal["functions", "containers"]
Cloud = Literal["aws", "gcp", "azure"]


class Candidate(Struct, frozen=True, kw_only=True):
    """A configuration, and the platforms by which it is simulated.

    Attributes:
        place: Where it runs.
        size: Varied by the search: provisioned environments, functions, instances or pods.
        peak: In a spike.
        rest: Between spikes; differs from `peak` where spikes are announced.
        configuration: For the answer.
        at_once: Requests in service at once that it was sized for.
    """

    place: "Place"
    size: int
    peak: Platform
    rest: Platform
    configuration: Configuration
    at_once: float

    @property
    def name(self) -> PlatformName:
        """Name of the place."""
        return self.place.name


class Evaluation(Struct, frozen=True, kw_only=True):
    """A candidate with its outcome and its cost.

    Attributes:
        candidate: The configuration.
        outcome: Of the first replication.
        items: The bill.
        cost: A month.
        excess: How far it is from the objective; 0: met.
    """

    candidate: Candidate
    outcome: "Outcome"
    items: tuple[CostItem, ...]
    cost: float
    excess: float

    @property
    def met(self) -> bool:
        """Whether the objective is met."""
        return self.excess == 0.0


class Variation(Struct, frozen=True, kw_only=True):
    """An input with its value in words, and the question with a lower and a higher value."""

    input: str
    title: str
    base: str
    low: tuple[str, Question]
    high: tuple[str, Question]


class Search(Protocol):
    """What a place needs to find its best candidate.

    Attributes:
        question: To be answered.
        month: Its windows.
        within: Relative precision of sizes.
    """

    question: Question
    month: Month
    within: float

    def excess(self, candidate: Candidate) -> float:
        """How far a candidate is from the objective; 0: met."""

    def refuses(self, candidate: Candidate) -> bool:
        """Whether it refuses more requests than the objective allows to fail."""

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Its outcome and its bill."""

    def guess(self, near: Candidate | None, otherwise: float) -> int:
        """A first size: as much for each request in service as in `near`."""

    def good_enough(
        self, near: Candidate | None, of: Callable[[int], Candidate], guess: int, most: int
    ) -> Evaluation | None:
        """A candidate of the guessed size, if it meets the objective but will not be the choice."""


class Place(Protocol):
    """A place to run."""

    @property
    def name(self) -> PlatformName:
        """In answers, files and options."""

    @property
    def title(self) -> str:
        """For readers."""

    @property
    def short(self) -> str:
        """A title of at most 22 characters, for tables."""

    @property
    def family(self) -> Family:
        """Functions start environments by requests; containers stay."""

    @property
    def cloud(self) -> Cloud:
        """Whose it is."""

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """Why it cannot run the service; empty: it can."""

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The cheapest candidate that meets the objective, else the nearest to it.

        Args:
            search: Evaluates candidates.
            near: The candidate of a similar question.
        """

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """A candidate of a larger size; None: there is none, or size does not help."""

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The platform in a window of ordinary time, after it has scaled to the load.

        Traffic changes slowly between spikes. Not called for a recorded trace, where it changes.
        """

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """Add the lines of a candidate's bill."""

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """A configuration in words, a line for each setting."""

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """Notes for readers: quotas and limits. chosen: whether it is the choice."""

    def variations(self, question: Question) -> list[Variation]:
        """Variations of inputs that matter to this place alone."""

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """The candidate that is deployed. Raises ConfigError, naming the field."""


def bill_of(question: Question, month: Month, candidate: Candidate, used: Used) -> list[CostItem]:
    """The bill of a candidate: the costs that differ between the platforms."""
    lines = Bill(question, month)
    candidate.place.bill(lines, candidate, used)
    return lines.items
